"""The depth ControlNet: whether things stand where the depth map says, in the colours that the prompt says.

And the depth network, which reads where things stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, UNet2DModel
from numpy.typing import NDArray

from training.pocket import control_data
from training.pocket.control import as_control
from training.pocket.data import held_out_scenes, to_bytes
from training.pocket.depth import estimate
from training.pocket.judge import load_pipeline
from training.pocket.measures import (
    Figure,
    Images,
    empty_depth,
    grey,
    overlap,
    regions,
    sample,
    side_by_side,
    size_of,
)
from training.pocket.read_picture import COLORFUL, color_in_mask
from training.pocket.render import Rendering, render
from training.pocket.scenes import Scene

STEPS, GUIDANCE, SCALE = 20, 3.0, 1.0
LARGEST_ERROR = 0.04
"""Of inverse depth, 0..1."""


def load_depth(folder: Path) -> UNet2DModel:
    """The depth network of the family, in float32."""
    return UNet2DModel.from_pretrained(folder / "depth", dtype=torch.float32).eval()


def colors_right(scenes: Sequence[Scene], renderings: Sequence[Rendering], images: Images) -> float:
    """Share of the colourful things of plain scenes whose colour is found, by hue, where the thing truly stands."""
    right = []
    for scene, rendering, image in zip(scenes, renderings, images, strict=True):
        for number, thing in enumerate(scene.things, 1):
            if scene.style == "none" and thing.color in COLORFUL:
                color = color_in_mask(image, rendering.mask == number)
                right += [] if color is None else [color == thing.color]
    return float(np.mean(right)) if right else float("nan")


def _depths(renderings: Sequence[Rendering]) -> NDArray[np.float32]:
    return np.stack([rendering.depth for rendering in renderings])


def judge(folder: Path, *, count: int, seed: int, sheet: Path | None = None) -> list[Figure]:
    """Ceiling: true renders read in the same way. Baseline: the same prompts and seeds without control.

    `folder` is the family's; it uses base/, controlnet-depth/ and depth/.
    """
    controlnet = ControlNetModel.from_pretrained(folder / "controlnet-depth", dtype=torch.float32)
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        folder / "base", controlnet=controlnet, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    free_pipeline, network = load_pipeline(folder / "base"), load_depth(folder)
    scenes, prompts, renderings = control_data.held_out(count, seed)
    maps = _depths(renderings)
    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "seed": seed, **size_of(64)}
    drawn = sample(
        pipeline, prompts, image=as_control(torch.from_numpy(to_bytes(maps))),
        controlnet_conditioning_scale=SCALE, **options,
    )  # fmt: skip
    free = sample(free_pipeline, prompts, **options)
    renders = np.stack([to_bytes(rendering.image) for rendering in renderings])
    if sheet:
        side_by_side([grey(maps), drawn, free, renders], sheet / "controlnet.png")
    region = regions(maps)
    shown, unled, true = (overlap(regions(estimate(network, images)), region) for images in (drawn, free, renders))
    return [
        Figure("region of things (IoU)", shown, 0.75, ceiling=true, baseline=unled),
        Figure("region of things without control (IoU)", unled, 0.35, at_most=True),
        Figure(
            "colour inside the true mask", colors_right(scenes, renderings, drawn), 0.9,
            ceiling=colors_right(scenes, renderings, renders), baseline=colors_right(scenes, renderings, free),
        ),
    ]  # fmt: skip


def judge_depth(folder: Path, *, count: int, seed: int, sheet: Path | None = None) -> list[Figure]:
    """Baseline: the depth of the empty scene, whatever the picture shows. `folder` is the family's; it uses depth/."""
    network = load_depth(folder)
    groups = {
        "things in slots": [render(scene) for scene in held_out_scenes(count, seed)[0]],
        "things at any place": control_data.held_out(count, seed)[2],
    }
    figures = []
    for name, renderings in groups.items():
        images, exact = np.stack([to_bytes(rendering.image) for rendering in renderings]), _depths(renderings)
        error, empty = np.abs(estimate(network, images) - exact), np.abs(empty_depth() - exact)
        things = np.stack([rendering.mask > 0 for rendering in renderings])
        # The second figure is the one that tells: things are so little of a picture that the empty scene is near by.
        figures += [
            Figure(
                f"{name}: mean error", float(error.mean()), LARGEST_ERROR, at_most=True, baseline=float(empty.mean()),
            ),
            Figure(
                f"{name}: mean error on things", float(error[things].mean()), LARGEST_ERROR, at_most=True,
                baseline=float(empty[things].mean()),
            ),
        ]  # fmt: skip
        if sheet:
            columns = [images, grey(estimate(network, images)), grey(exact)]
            side_by_side(columns, sheet / f"depth {name}.png".replace(" ", "-"))
    return figures
