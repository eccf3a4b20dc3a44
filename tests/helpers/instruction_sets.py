"""Instruction sets under which the numeric tests run again: ``python -m tests.helpers.instruction_sets`` lists them."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.machine.processor import instruction_sets

FURTHER = ("AVX2", "AVX512_CORE", "AVX512_CORE_BF16")
"""Sets of which each one convolves in its own way, in float32 or in half precision."""


def further_sets(available: Sequence[str]) -> list[str]:
    """Those of `FURTHER` that are available, but for the best one: oneDNN takes that by itself."""
    return [name for name in available[:-1] if name in FURTHER]


if __name__ == "__main__":
    print(*further_sets(instruction_sets()))
