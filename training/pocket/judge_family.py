"""Judges the family: `python -m training.pocket.judge_family FOLDER [image-to-image controlnet x2 x4 depth size]`.

Everything is measured on scenes that training never saw. Beside each figure stand what true renders reach under the
same reading (or what the autoencoder leaves possible), and what is had by chance or without the model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from training.pocket import judge_control, judge_enlarge, judge_redraw
from training.pocket.measures import Figure, table

LARGEST_FOLDER, LARGEST_FILE = 25_000_000, 16_000_000


def judge_size(folder: Path) -> list[Figure]:
    """What the shipped files take, in bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return [
        Figure("all files, bytes", sum(sizes), LARGEST_FOLDER, at_most=True),
        Figure("largest file, bytes", max(sizes), LARGEST_FILE, at_most=True),
    ]


def main() -> None:
    """Reads the command line, judges, prints."""
    parser = argparse.ArgumentParser(prog="python -m training.pocket.judge_family", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with base, controlnet-depth, x2, x4 and depth")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="groups of figures; all without it")
    parser.add_argument("--count", type=int, default=100, help="pictures of each kind (of 512 pixels a quarter)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="steps of the upscalers")
    parser.add_argument("--noise-level", type=int, default=0, help="noise that x4 puts on the small picture")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--sheet", type=Path, help="also save pictures side by side in this folder")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder, steps = options.folder, options.steps
    common = {"count": options.count, "seed": options.seed, "sheet": options.sheet}
    groups: dict[str, tuple[Callable[[], list[Figure]], str, str]] = {
        "image-to-image": (
            lambda: judge_redraw.judge(folder, **common), "true renders", "another picture's region, or the source"
        ),
        "controlnet": (lambda: judge_control.judge(folder, **common), "true renders", "without control"),
        "x2": (
            lambda: judge_enlarge.judge_x2(folder, steps=steps, **common), "autoencoder", "decoded small, Lanczos"
        ),
        "x4": (
            lambda: judge_enlarge.judge_x4(folder, steps=steps, noise_level=options.noise_level, **common),
            "autoencoder", "Lanczos",
        ),
        "depth": (lambda: judge_control.judge_depth(folder, **common), "exact", "empty scene"),
        "size": (lambda: judge_size(folder), "none", "none"),
    }  # fmt: skip
    unknown = set(options.groups) - groups.keys()
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    report = {}
    for name in options.groups or groups:
        work, ceiling, baseline = groups[name]
        start = time.monotonic()
        figures = work()
        seconds = time.monotonic() - start
        print(
            f"\n{name} ({options.count} pictures, {seconds:.0f} s)\n\n{table(figures, ceiling, baseline)}", flush=True
        )
        report[name] = {"seconds": seconds, "figures": [asdict(figure) | {"met": figure.met} for figure in figures]}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
