"""Sweeps over seeds, with several of them going through the denoiser at once, beside one after the other."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable

import graphflow as gf
from graphflow.nodes import Text2Image

POINTS = 8
REPEATS = 3


def sweep(together: int) -> tuple[float, list[gf.Image]]:
    """Seconds of the sweep on the embedded model, and its pictures."""
    built = gf.Workflow()
    seed = built.input("seed", "int")
    built.output("image", built.add("draw", Text2Image(steps=20), prompt="a red ball on sand", seed=seed))
    begun = time.perf_counter()
    run = built.run(device="cpu", cache=False, sweep={"seed": list(range(POINTS))}, max_batch=together)
    return time.perf_counter() - begun, [point["image"] for point in run.points]


def chain(together: int) -> tuple[float, list[gf.Image]]:
    """Seconds of a sweep over half as many seeds through the longest chain, and its pictures."""
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        seeds = {"seed": list(range(POINTS // 2))}
        run = gf.load("text_to_image_to_super_res").run(
            device="cpu", cache=False, sweep=seeds, max_batch=together, out=out
        )
        return time.perf_counter() - begun, [point["image"] for point in run.points]


def main() -> None:
    """Print the tables."""
    _table(f"Sweep of {POINTS} seeds, 20 steps, embedded model", (1, 2, 4, 8), sweep)
    print()
    _table(f"Sweep of {POINTS // 2} seeds, text → image → image → x2 → x4, 512 x 512 pixels", (1, 2, 4), chain)


def _table(title: str, sizes: tuple[int, ...], sweep: Callable[[int], tuple[float, list[gf.Image]]]) -> None:
    """Medians of several sweeps, interleaved."""
    sweep(1)  # loads the model
    measured: dict[int, list[tuple[float, list[gf.Image]]]] = {size: [] for size in sizes}
    for _ in range(REPEATS):
        for size in sizes:
            measured[size].append(sweep(size))
    alone = statistics.median(seconds for seconds, _ in measured[1])
    print(f"{title} (medians of {REPEATS})")
    print("| at once | seconds | / one by one | largest difference of a pixel, of 1 |")
    print("|---|---|---|---|")
    for size in sizes:
        seconds = statistics.median(each for each, _ in measured[size])
        pictures, expected = measured[size][0][1], measured[1][0][1]
        pairs = zip(pictures, expected, strict=True)
        difference = max(float((made.pixels - other.pixels).abs().max()) for made, other in pairs)
        print(f"| {size} | {seconds:.2f} | **{seconds / alone:.2f}** | {difference:.1e} |")
