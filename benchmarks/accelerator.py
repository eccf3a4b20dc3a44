"""The model of full size on an accelerator: a workflow beside the plain script, memory, and sweeps computed together.

Stable Diffusion 1.5 with random weights, 512 x 512 pixels, 20 steps and 16 more to redraw, in float16, models in
memory, a new seed each time.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

import graphflow as gf
from benchmarks.full_size import PROMPTS, Plain, workflow
from benchmarks.full_size_model import full_size_model, models_folder
from graphflow.nodes import Text2Image
from graphflow.nodes.diffusion.loading.components import pool

SETTINGS = {"size": 512, "steps": 20, "redraw_steps": 20}
ROUNDS = 5
POINTS = 8
DEVICE = "cuda:0"


def main() -> None:
    """Print the tables."""
    if not torch.cuda.is_available():
        print("On an accelerator: not measured, there is none")
        return
    with ExitStack() as stack:
        folder = full_size_model(models_folder(stack) / "sd15")
        _side_by_side(folder)
        print()
        _memory(folder)
        print()
        _together(folder)


def _made(folder: Path, seed: int) -> tuple[torch.Tensor, dict[str, float]]:
    """Pixels of the workflow, and the seconds that each of its steps took."""
    run = workflow(folder, seed, **SETTINGS).run(device=DEVICE, dtype="float16", cache=False)
    pixels: torch.Tensor = run["picture"].pixels.cpu()
    return pixels, {record.name: record.seconds for record in run.outcome.records}


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    made = work()
    torch.cuda.synchronize()
    return made, time.perf_counter() - begun


def _side_by_side(folder: Path) -> None:
    plain = Plain(folder, torch.float16, DEVICE)
    script, ours, outside, furthest = [], [], [], 0.0
    for seed in range(ROUNDS + 1):
        sides: dict[str, Any] = {}
        for side in ("plain", "graphflow") if seed % 2 else ("graphflow", "plain"):
            if side == "plain":
                sides[side] = _timed(partial(plain.run, seed, **SETTINGS))
            else:
                sides[side] = _timed(partial(_made, folder, seed))
        theirs, (made, steps) = sides["plain"][0], sides["graphflow"][0]
        furthest = max(furthest, float((theirs.float() - made.float()).abs().max()))
        if seed:  # the first loads and warms
            script.append(sides["plain"][1])
            ours.append(sides["graphflow"][1])
            outside.append(sides["graphflow"][1] - sum(steps.values()))
    ratio = statistics.median(b / a for a, b in zip(script, ours, strict=True))
    print(
        f"{torch.cuda.get_device_name(0)}: Stable Diffusion 1.5 of full size, float16, 512 x 512 pixels, "
        f"text → image → image, 36 forwards of the UNet; medians of {ROUNDS} rounds in turns"
    )
    print("| script, seconds | workflow, seconds | outside of its steps | workflow / script | pixels differ by |")
    print("|---|---|---|---|---|")
    told = [statistics.median(seconds) for seconds in (script, ours, outside)]
    print(f"| {told[0]:.3f} | {told[1]:.3f} | {told[2]:.3f} | **{ratio:.2f}** | {furthest:.1e} |")
    print("steps of the last round, seconds: " + ", ".join(f"{name} {seconds:.3f}" for name, seconds in steps.items()))


def _memory(folder: Path) -> None:
    """Estimated and allocated memory of the workflow, by dtype, with nothing else on the device."""
    print("| memory on the device, MB | dtype | weights loaded | largest step, estimated | peak, allocated |")
    print("|---|---|---|---|---|")
    for dtype in ("float16", "float32"):
        for offload in ("none", "model"):
            pool.clear()
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            built = workflow(folder, 1, **SETTINGS)
            built.run(device=DEVICE, dtype=dtype, offload=offload, cache=False)
            planned = built.plan(device=DEVICE, dtype=dtype, offload=offload)
            need = max(found.total for step in planned.steps if (found := planned.memory(step)))
            peak = torch.cuda.max_memory_allocated() - before
            told = " | ".join(f"{count / 1e6:.0f}" for count in (pool.nbytes(DEVICE), need, peak))
            print(f"| offload {offload} | {dtype} | {told} |")


def _together(folder: Path) -> None:
    pool.clear()
    built = gf.Workflow()
    draw = Text2Image(model=str(folder), width=512, height=512, steps=20, guidance_scale=7.5)
    built.output("image", built.add("draw", draw, prompt=PROMPTS[0], seed=built.input("seed", "seed")))
    print(f"| sweep of {POINTS} seeds, at once | seconds | / one by one | pixels differ by, largest, mean |")
    print("|---|---|---|---|")
    alone: tuple[torch.Tensor, float] | None = None
    for count in (1, 1, 2, 4, 8):  # the first loads and warms

        def work(count: int = count) -> torch.Tensor:
            made = built.run(device=DEVICE, cache=False, sweep={"seed": list(range(POINTS))}, max_batch=count)
            return torch.cat([point["image"].pixels.float().cpu() for point in made.points])

        measured = _timed(work)
        if alone is None:
            alone = measured
            continue
        if count == 1:
            alone = measured
        difference = (measured[0] - alone[0]).abs()
        told = f"{float(difference.max()):.1e}, {float(difference.mean()):.1e}"
        print(f"| {count} | {measured[1]:.2f} | **{measured[1] / alone[1]:.2f}** | {told} |")
