"""What kept results save: a run again in a fresh process, a changed last step, and a sweep over the last stage."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import graphflow as gf
from graphflow.nodes import Image2Image, Text2Image

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / "workflows" / "text_to_image_to_image.json"
POINTS = 8
REPEATS = 5


def run_again(folder: Path, *words: str) -> tuple[float, str]:
    """Wall seconds of ``graphflow run`` in a fresh process on a store in the folder, and what it says of its steps."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**environment, "GRAPHFLOW_CACHE": str(folder / "cache"), "GRAPHFLOW_NO_CACHE": ""}
    command = [sys.executable, "-m", "graphflow", "run", str(WORKFLOW), "--out", str(folder / "out"), *words]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begun
    found = re.search(r"(\d+ steps? run(?:, \d+ from the cache)?)", done.stderr)
    return seconds, found[1] if found else "?"


def chain(seed: int) -> gf.Workflow:
    """A drawing, redrawn with a seed that is an input, and decoded."""
    workflow = gf.Workflow()
    redraw_seed = workflow.input("redraw_seed", "seed", default=0)
    drawn = workflow.add("draw", Text2Image(seed=seed), prompt="a red ball and a blue cube on green grass")
    redrawn = workflow.add("redraw", Image2Image(), image=drawn, prompt="pencil sketch of a ball", seed=redraw_seed)
    workflow.output("image", redrawn)
    return workflow


def sweep_ratio(seed: int, folder: Path) -> tuple[float, float, float]:
    """Seconds of the prefix, of all that follows it, and of a sweep of 8 over that with a store on the disk."""
    begun = time.perf_counter()
    run = chain(seed).run(device="cpu", cache=False)
    prefix = sum(record.seconds for record in run.outcome.records if record.name.startswith("draw/"))
    suffix = time.perf_counter() - begun - prefix
    begun = time.perf_counter()
    points: dict[str, Any] = {"redraw_seed": list(range(POINTS))}
    chain(seed).run(device="cpu", cache=gf.DiskStore(folder / f"store-{seed}"), sweep=points)
    return prefix, suffix, time.perf_counter() - begun


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        first, said_first = run_again(folder)
        again = [run_again(folder) for _ in range(REPEATS)]
        changed = run_again(folder, "--set", "redraw_prompt=watercolor of a ball")
        print("`graphflow run` in a fresh process,", WORKFLOW.name, "on the pocket model")
        print("| run | wall seconds | steps |")
        print("|---|---|---|")
        print(f"| first | {first:.2f} | {said_first} |")
        print(f"| unchanged | **{statistics.median(each[0] for each in again):.2f}** | {again[-1][1]} |")
        print(f"| prompt of the last stage changed | {changed[0]:.2f} | {changed[1]} |")
        print()
        sweep_ratio(0, folder)  # models are loaded
        rows = [sweep_ratio(seed, folder) for seed in range(1, REPEATS + 1)]
        ratios = [swept / (prefix + POINTS * suffix) for prefix, suffix, swept in rows]
        prefix, suffix, swept = (statistics.median(column) for column in zip(*rows, strict=True))
        print("A sweep of", POINTS, "over the last stage, warm, with a store on the disk; medians of", REPEATS)
        print("| prefix, s | suffix, s | sweep, s | sweep / (prefix + 8 suffix) |")
        print("|---|---|---|---|")
        print(f"| {prefix:.3f} | {suffix:.3f} | {swept:.3f} | **{statistics.median(ratios):.2f}** |")


if __name__ == "__main__":
    main()
