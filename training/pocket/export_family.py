"""Exports trained members of the family: `python -m training.pocket.export_family RUNS_DIR OUT_DIR [NAME ...]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from training.pocket.export import BASE, TRAINED, export_member


def main() -> None:
    """Reads the command line and exports."""
    parser = argparse.ArgumentParser(prog="python -m training.pocket.export_family", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder that training left its results in")
    parser.add_argument("out", type=Path, help="folder to write one folder a model in")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(TRAINED)}; all without it")
    parser.add_argument("--base", type=Path, default=BASE, help="folder of the base model")
    options = parser.parse_args()
    unknown = set(options.names) - TRAINED.keys()
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    for name in options.names or TRAINED:
        size = export_member(name, options.runs / TRAINED[name], options.base, options.out / name)
        print(f"{name}: {size} bytes in {options.out / name}")


if __name__ == "__main__":
    main()
