"""A model of full size: a workflow beside the plain script of diffusers that does the same. Wall seconds and a ratio.

Text to image, redrawn, decoded, with classifier-free guidance and a new seed each time, so that nothing could be taken
from a cache; both sides have their models in memory, and take turns. Both results are compared, so that both are known
to do the same work. ``GRAPHFLOW_BENCHMARK_MODELS`` names a folder in which the models (4.3 GB) are kept from one
benchmark to the next.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch

import graphflow as gf
from benchmarks.full_size_model import full_size_model, models_folder
from benchmarks.startup import ROOT
from graphflow.machine.processor import computes_in_bfloat16
from graphflow.nodes import Image2Image, Text2Image
from graphflow.nodes.diffusion.loading.components import load_component, quiet
from graphflow.nodes.diffusion.models.model_info import require_model

PROMPTS = "a red ball on grass", "a pencil sketch of a red ball"
SIZE = 128
STEPS = 4
STRENGTH = 0.8
REDRAW_STEPS = 5  # of which int(5 * 0.8) = 4 run
ROUNDS = 5


class Plain:
    """What a script does that follows the documentation of diffusers."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        library: Any = diffusers
        with quiet():
            self.text = library.StableDiffusionPipeline.from_pretrained(str(folder), dtype=dtype).to(device)
            self.image = library.StableDiffusionImg2ImgPipeline(**self.text.components, requires_safety_checker=False)
        for pipeline in (self.text, self.image):
            pipeline.set_progress_bar_config(disable=True)

    def run(self, seed: int, *, size: int = SIZE, steps: int = STEPS, redraw_steps: int = REDRAW_STEPS) -> torch.Tensor:
        """Pixels (1, 3, height, width), in the machine's memory."""
        latents = self.text(
            PROMPTS[0], height=size, width=size, num_inference_steps=steps, guidance_scale=7.5, output_type="latent",
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images  # fmt: skip
        pixels: torch.Tensor = self.image(
            PROMPTS[1], image=latents, strength=STRENGTH, num_inference_steps=redraw_steps, guidance_scale=7.5,
            output_type="pt", generator=torch.Generator("cpu").manual_seed(seed + 1000),
        ).images  # fmt: skip
        return pixels.cpu()


def workflow(
    folder: Path, seed: int, *, size: int = SIZE, steps: int = STEPS, redraw_steps: int = REDRAW_STEPS
) -> gf.Workflow:
    """The same as a workflow."""
    model, w = str(folder), gf.Workflow()
    draft = w.add(
        "draft",
        Text2Image(model=model, width=size, height=size, steps=steps, guidance_scale=7.5, seed=seed),
        prompt=PROMPTS[0],
    )
    redraw = w.add(
        "redraw",
        Image2Image(model=model, steps=redraw_steps, strength=STRENGTH, guidance_scale=7.5, seed=seed + 1000),
        image=draft,
        prompt=PROMPTS[1],
    )
    w.output("picture", redraw)
    return w


@contextmanager
def timed_forwards(network: torch.nn.Module) -> Iterator[list[float]]:
    """Wall seconds of each forward of a network."""
    begun: list[float] = []
    seconds: list[float] = []
    before = network.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
    after = network.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - begun.pop()))
    try:
        yield seconds
    finally:
        before.remove()
        after.remove()


def main() -> None:
    """Print the tables."""
    with ExitStack() as stack:
        folder = full_size_model(models_folder(stack) / "sd15")
        _side_by_side(folder)
        print()
        _dtypes(folder)


def _side_by_side(folder: Path) -> None:
    plain = Plain(folder)
    unets = plain.text.unet, load_component(require_model(str(folder)), "unet", gf.Compute())
    walls: dict[str, list[float]] = {"plain": [], "graphflow": []}
    processor: dict[str, list[float]] = {"plain": [], "graphflow": []}
    forwards: dict[str, list[float]] = {"plain": [], "graphflow": []}
    parts: dict[str, list[float]] = {}
    furthest = 0.0
    for seed in range(-1, ROUNDS):  # the first round loads and warms, and does not count
        pictures = {}
        for side in ("plain", "graphflow") if seed % 2 else ("graphflow", "plain"):
            with timed_forwards(unets[side == "graphflow"]) as seconds:
                begun, busy = time.perf_counter(), time.process_time()
                if side == "plain":
                    pictures[side] = plain.run(seed + 1)
                else:
                    run = workflow(folder, seed + 1).run(device="cpu", dtype="float32", cache=False)
                    pictures[side] = run["picture"].pixels
                wall, worked = time.perf_counter() - begun, time.process_time() - busy
            if seed < 0:
                continue
            walls[side].append(wall)
            processor[side].append(worked)
            forwards[side].append(sum(seconds))
            if side == "graphflow":
                for record in run.outcome.records:
                    parts.setdefault(record.name, []).append(record.seconds)
                parts.setdefault("engine", []).append(wall - sum(record.seconds for record in run.outcome.records))
        furthest = max(furthest, float((pictures["plain"] - pictures["graphflow"]).abs().max()))
    print(
        f"Stable Diffusion 1.5 of full size, float32, {SIZE} x {SIZE} pixels, text → image → image, {len(seconds)} "
        f"forwards of the UNet; medians of {ROUNDS} rounds, {torch.get_num_threads()} threads"
    )
    print("| side | wall seconds | in the UNet | the rest | processor seconds | wall / script | processor / script |")
    print("|---|---|---|---|---|---|---|")
    for side, name in (("plain", "script of diffusers"), ("graphflow", "workflow")):
        rest = statistics.median(a - b for a, b in zip(walls[side], forwards[side], strict=True))
        seconds = [statistics.median(times[side]) for times in (walls, forwards)] + [rest]
        told = " | ".join(f"{value:.2f}" for value in [*seconds, statistics.median(processor[side])])
        print(f"| {name} | {told} | {_ratio(walls, side)} | {_ratio(processor, side)} |")
    print(f"pixels of both differ by {furthest:.1e} at most; steps of the workflow, seconds:")
    for name, seconds in parts.items():
        print(f"  {name}: {statistics.median(seconds):.3f}")


def _ratio(times: dict[str, list[float]], side: str) -> str:
    """Round by round against the script, for the machine is not as busy in one as in another."""
    return f"**{statistics.median(b / a for a, b in zip(times['plain'], times[side], strict=True)):.2f}**"


def _dtypes(folder: Path) -> None:
    """What `auto` gains where the processor computes in bfloat16: time in turns, memory in fresh processes."""
    print("| dtype auto on a processor with bfloat16, against float32 | float32 | auto | ratio |")
    print("|---|---|---|---|")
    if not computes_in_bfloat16():
        print("| not measured: no such processor | | | |")
        return
    walls: dict[str, list[float]] = {"float32": [], "auto": []}
    for seed in range(-1, ROUNDS):
        for dtype, seconds in walls.items():
            begun = time.perf_counter()
            workflow(folder, seed + 1).run(device="cpu", dtype=dtype, cache=False)
            if seed >= 0:
                seconds.append(time.perf_counter() - begun)
    ratio = statistics.median(b / a for a, b in zip(walls["float32"], walls["auto"], strict=True))
    told = " | ".join(f"{statistics.median(seconds):.2f}" for seconds in walls.values())
    print(f"| wall seconds, models in memory | {told} | **{ratio:.2f}** |")
    peaks = {dtype: _peaks(folder, dtype) for dtype in walls}
    for place, name in enumerate(("while it computes, models in memory", "of the process, loading included")):
        first, second = (peaks[dtype][place] for dtype in walls)
        print(f"| peak memory {name}, GB | {first / 1e9:.2f} | {second / 1e9:.2f} | **{second / first:.2f}** |")


def _peaks(folder: Path, dtype: str) -> tuple[int, int]:
    """Most bytes resident in a process of its own: in its second and third run, and ever."""
    command = [sys.executable, "-m", "benchmarks.full_size", str(folder), dtype]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    warm, whole = json.loads(done.stdout)
    return warm, whole


def _watched(folder: Path, dtype: str) -> tuple[int, int]:
    """What `_peaks` asks a process for."""
    peaks, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            peaks[-1] = max(peaks[-1], resident)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for seed in range(3):
        workflow(folder, seed).run(device="cpu", dtype=dtype, cache=False)
        peaks.append(0)
    ended.set()
    watcher.join()
    return max(peaks[1:]), max(peaks)


if __name__ == "__main__":
    print(json.dumps(_watched(Path(sys.argv[1]), sys.argv[2])))
