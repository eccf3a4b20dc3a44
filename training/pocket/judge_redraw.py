"""Image to image with the base model: whether a render changes as new words say, and stays where it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, UNet2DModel

from training.pocket import depth as depth_network
from training.pocket.captions import caption
from training.pocket.data import to_bytes
from training.pocket.measures import Figure, Images, overlap, regions, sample, side_by_side
from training.pocket.read_picture import Reader, Reading
from training.pocket.render import render
from training.pocket.scenes import COLORS, GROUNDS, SKIES, STYLES, Scene, draw_scene, is_kept_out
from training.pocket.vae import to_tensor

STEPS, GUIDANCE = 20, 3.0
GENTLE, STRONG = 0.3, 0.7
"""Strengths at which a thing should stay what it is, and at which it should follow the words."""


@dataclass(frozen=True)
class Change:
    """A plain scene, the scene that the prompt asks for instead, and which thing (from the left) differs, if one."""

    source: Scene
    wanted: Scene
    prompt: str
    thing: int = 0


def _changes(scene: Scene, recolor: bool) -> list[tuple[Scene, int]]:
    if not recolor:
        return [(replace(scene, style=style), 0) for style in STYLES if style != "none"]
    return [
        (
            replace(scene, things=(*scene.things[:number], replace(thing, color=color), *scene.things[number + 1 :])),
            number,
        )
        for number, thing in enumerate(scene.things)
        for color in COLORS
        if color != thing.color
    ]


def draw_changes(count: int, seed: int, recolor: bool) -> list[Change]:
    """Changes of one thing's colour, or of the style: the scenes before and after are both kept out of training."""
    rng = np.random.default_rng((seed, 5 << 20, int(recolor)))
    changes: list[Change] = []
    while len(changes) < count:
        # Of the things of one scene on all grounds under all skies one in fifty is kept out: quicker than new scenes.
        drawn = replace(draw_scene(rng), style="none", degraded=False)
        scenes = [replace(drawn, ground=ground, sky=sky) for ground in GROUNDS for sky in SKIES]
        choices = [
            (source, wanted, thing)
            for source in filter(is_kept_out, scenes)
            for wanted, thing in _changes(source, recolor)
            if is_kept_out(wanted)
        ]
        if choices:
            source, wanted, thing = choices[int(rng.integers(len(choices)))]
            changes.append(Change(source, wanted, caption(wanted, rng, full=True), thing))
    return changes


def _pictures(scenes: Sequence[Scene]) -> Images:
    return np.stack([to_bytes(render(scene).image) for scene in scenes])


def _share(changes: Sequence[Change], readings: Sequence[Reading], right: Callable[[Change, Reading], bool]) -> float:
    return float(np.mean([right(change, reading) for change, reading in zip(changes, readings, strict=True)]))


def _recolored(change: Change, reading: Reading) -> bool:
    thing = change.wanted.things[change.thing]
    return reading.things.get(thing.slot, ("", ""))[1] == thing.color


def _restyled(change: Change, reading: Reading) -> bool:
    return reading.style == change.wanted.style


def judge(folder: Path, *, count: int, seed: int, sheet: Path | None = None) -> list[Figure]:
    """Ceiling: renders of the wanted scene. Baseline: the region of another picture; for colour and style, the source.

    `folder` is the family's; it uses base/ and depth/.
    """
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(folder / "base", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    network, reader = UNet2DModel.from_pretrained(folder / "depth", dtype=torch.float32).eval(), Reader()
    recolors, restyles = draw_changes(count, seed, True), draw_changes(count, seed, False)

    def redraw(changes: Sequence[Change], strength: float) -> tuple[Images, Images]:
        sources = _pictures([change.source for change in changes])
        drawn = sample(
            pipeline, [change.prompt for change in changes], seed=seed, image=(to_tensor(sources) + 1) / 2,
            strength=strength, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        )  # fmt: skip
        return sources, drawn

    sources, gentle = redraw(recolors, GENTLE)
    _, strong = redraw(recolors, STRONG)
    plain, styled = redraw(restyles, STRONG)
    exact = regions(np.stack([render(change.source).depth for change in recolors]))
    found = regions(depth_network.estimate(network, gentle))
    wanted_colors = _pictures([change.wanted for change in recolors])
    wanted_styles = _pictures([change.wanted for change in restyles])
    if sheet:
        side_by_side([sources, gentle, strong, wanted_colors], sheet / "image-to-image-color.png")
        side_by_side([plain, styled, wanted_styles], sheet / "image-to-image-style.png")
    return [
        Figure(
            f"strength {GENTLE}: region of things stays (IoU)", overlap(found, exact), 0.7,
            ceiling=overlap(regions(depth_network.estimate(network, sources)), exact),
            baseline=overlap(found, np.roll(exact, 1, 0)),
        ),
        Figure(
            f"strength {STRONG}: new colour", _share(recolors, reader.read(strong), _recolored), 0.85,
            ceiling=_share(recolors, reader.read(wanted_colors), _recolored),
            baseline=_share(recolors, reader.read(sources), _recolored),
        ),
        Figure(
            f"strength {STRONG}: new style", _share(restyles, reader.read(styled), _restyled), 0.85,
            ceiling=_share(restyles, reader.read(wanted_styles), _restyled),
            baseline=_share(restyles, reader.read(plain), _restyled),
        ),
    ]  # fmt: skip
