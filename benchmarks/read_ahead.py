"""Two models of full size, one after the other, from a cold disk: with their files read ahead, and without."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from benchmarks.startup import ROOT

ROUNDS = 3
SIZE = 128
STEPS = 2


def main() -> None:
    """Print wall seconds of a run, and of the step in which the second model begins."""
    from benchmarks.full_size_model import full_size_model, models_folder

    with ExitStack() as stack:
        folder = models_folder(stack)
        folders = [full_size_model(folder / "sd15"), full_size_model(folder / "another", seed=1)]
        found: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
        environment = {**os.environ, "GRAPHFLOW_CACHE": str(folder / "cache")}
        for attempt in range(-1, ROUNDS):  # the first one hashes the files, and does not count
            for way in sorted(found, reverse=bool(attempt % 2)):
                _drop(folders)
                command = [sys.executable, "-m", "benchmarks.read_ahead", way, *map(str, folders)]
                done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
                if attempt >= 0:
                    found[way].append(tuple(json.loads(done.stdout)))
                else:
                    break
    print(
        f"text → image by one model, redrawn by another, {SIZE} x {SIZE} pixels, {STEPS} steps each; neither in memory"
    )
    print("| files read ahead | wall seconds | until the second model has its first answer |")
    print("|---|---|---|")
    for way, times in found.items():
        wholes, seconds = zip(*times, strict=True)
        print(f"| {way} | **{statistics.median(wholes):.1f}** | **{statistics.median(seconds):.1f}** |")


def _drop(folders: list[Path]) -> None:
    """Have the system forget what it has read of the models."""
    for folder in folders:
        for file in folder.rglob("*.safetensors"):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _run(way: str, first: str, second: str) -> tuple[float, float]:
    """Wall seconds of the run, and from the second model's first step of denoising to the end of its first forward."""
    import graphflow as gf
    from graphflow.events import Event, StepProgress, StepStarted
    from graphflow.nodes import Image2Image, Text2Image
    from graphflow.nodes.diffusion.loading import components as models

    assert models.pool.loads == 0  # imported before the clock runs
    w = gf.Workflow()
    draft = w.add("draft", Text2Image(model=first, width=SIZE, height=SIZE, steps=STEPS), prompt="a red ball")
    redraw = w.add("redraw", Image2Image(model=second, steps=STEPS, strength=1.0), image=draft, prompt="a blue cube")
    w.output("picture", redraw)
    begun, started, answered = time.perf_counter(), 0.0, 0.0

    def listen(event: Event) -> None:
        nonlocal started, answered
        if isinstance(event, StepStarted) and event.type == "Denoise":
            started, answered = time.perf_counter(), 0.0
        if isinstance(event, StepProgress) and not answered:
            answered = time.perf_counter()

    with ExitStack() as stack:
        if way == "without":
            stack.enter_context(mock.patch("graphflow.run.scheduler.read_ahead"))
        w.run(device="cpu", dtype="float32", cache=False, listeners=[listen])
    return time.perf_counter() - begun, answered - started


if __name__ == "__main__":
    print(json.dumps(_run(*sys.argv[1:])))
