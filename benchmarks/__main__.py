"""Run the benchmarks and print their tables: those named, or all but the ones that make models of full size."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks import chain, engine, kept, memory, read_ahead, shared_store, startup, together


def _full_size() -> None:
    from benchmarks import full_size  # imports diffusers, whose time the others should not pay

    full_size.main()


def _accelerator() -> None:
    from benchmarks import accelerator

    accelerator.main()


TABLES: dict[str, Callable[[], None]] = {
    "accelerator": _accelerator,
    "chain": chain.main,
    "engine": engine.main,
    "full_size": _full_size,
    "kept": kept.main,
    "store": shared_store.main,
    "memory": memory.main,
    "read_ahead": read_ahead.main,
    "startup": startup.main,
    "together": together.main,
}

FULL_SIZE = frozenset({"accelerator", "full_size", "read_ahead"})
"""They write 4.3 GB a model and take minutes."""


def main(names: list[str]) -> int:
    """Print the tables of the named benchmarks; returns the exit status."""
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(TABLES)}", file=sys.stderr)
        return 2
    for name in names or [name for name in TABLES if name not in FULL_SIZE]:
        TABLES[name]()
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
