"""Checks and arithmetic that several nodes share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from graphflow import Latent, Node, PortType, Problem
from graphflow.nodes.diffusion.families.family import cut_steps
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.models.network_info import check_controlnet, find_network

__all__ = [
    "check_control",
    "check_guidance",
    "check_negative",
    "check_redrawing",
    "check_size",
    "check_strength",
    "check_tiles",
    "comes_in_pixels",
    "cut_down",
    "cut_size",
    "floored",
    "with_smaller_tiles",
]

MOST_STEPS = 1000
"""Steps of the longest noise schedule that a node takes."""


def check_strength(info: ModelInfo, steps: int, strength: float) -> Iterator[Problem]:
    """Yield an error where no step would run; a warning where rounding in binary removes a step, or adds one."""
    denoise_steps = info.family.denoise_steps
    count, exact = denoise_steps(steps, strength), round(steps * strength, 9)
    if count == 0:
        near = math.floor(1 / strength)
        longest = range(near, min(near + 4, MOST_STEPS + 1))
        enough = next((number for number in longest if denoise_steps(number, strength)), None)
        least = math.ceil(100 / steps) / 100
        ways = [f"at least {enough} steps with this strength"] if enough else []
        if denoise_steps(steps, least) and least <= 1:
            ways.append(f"a strength of at least {least:g} with {steps} steps")
        hint = f"use {', or '.join(ways)}"
        cut = f"int({steps} * {strength:g}) = " if denoise_steps is cut_steps else ""
        message = f"found strength {strength:g} with {steps} steps, which is {cut}0 denoise steps; expected at least 1"
        yield Problem("value.strength_steps", message, field="strength", hint=hint)
    elif abs(count - exact) >= 1:
        less = count < exact
        message = f"strength {strength:g} of {steps} steps runs {count} denoise steps, one {'less' if less else 'more'}"
        other = strength + (0.1 if less else -0.1) / steps
        why = "the product is cut, not rounded" if less else "a step that is begun counts"
        hint = f"{why}; strength {other:.4g} runs {denoise_steps(steps, other)}"
        yield Problem("value.strength_share", f"{message} than asked for", "strength", hint, severity="warning")


def check_redrawing(
    info: ModelInfo, source: PortType, steps: int, strength: float | None, end: float | None
) -> Iterator[Problem]:
    """Yield errors about the noise that is added to latents, or is in them already.

    ``strength`` is None where it is not given; ``end`` is the share of the noise schedule after which to stop.
    """
    if end is not None and not info.family.supports_denoising_end:
        yield _no_hand_over(info, "denoising_end")
    if not source.partly_noisy or source.noise is None:
        return
    start = 1 - source.noise
    if not info.family.supports_denoising_end:
        yield _no_hand_over(info, None)
    if strength is not None:
        message = f"found strength {strength:g} for latents that are noisy at {source.noise:g} already"
        yield Problem("value.strength_noise", message, "strength", "leave strength out: no noise is added to them")
    if source.steps is not None and steps != source.steps:
        message = f"found {steps} steps for latents that were left on a schedule of {source.steps}"
        hint = f"use {source.steps} steps, or leave steps out: both models must go through one schedule"
        yield Problem("value.hand_over_steps", message, "steps", hint)
    if end is not None and end <= start:
        message = f"found denoising_end {end:g} for latents that were left at {start:g}, expected more"
        yield Problem("value.hand_over", message, "denoising_end", "leave it out to finish the picture")


def _no_hand_over(info: ModelInfo, field: str | None) -> Problem:
    message = (
        f'the model "{info.reference}" goes through its whole noise schedule: it hands nothing over, and takes nothing '
        "over"
    )
    return Problem("value.hand_over", message, field, "models of the SDXL family can share one schedule")


def check_negative(info: ModelInfo, guidance_scale: float, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
    """Yield an error for classifier-free guidance without a negative prompt connected."""
    if info.family.uses_negative_prompt(guidance_scale) and "negative" not in inputs:
        off = info.family.guidance_threshold
        yield Problem(
            "port.missing",
            f"the port 'negative' is not connected, but guidance_scale {guidance_scale:g} needs it",
            hint=f"connect an EncodePrompt with an empty text, or set guidance_scale to {off:g}",
        )


def check_guidance(info: ModelInfo, given: float | None, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
    """Yield errors for a negative prompt, and for a ``given`` guidance scale, that the model does not use."""
    if info.family.guidance == "classifier-free":
        return
    for port in ("negative", "negative_prompt"):
        if port in inputs:
            message = f'found a negative prompt, but the model "{info.reference}" is guided by the prompt alone'
            yield Problem("value.ignored", message, port, "leave it out, and say in the prompt what to show")
    if info.family.guidance == "none" and given is not None and given > 1:
        message = f'found guidance_scale {given:g}, but the model "{info.reference}" takes no guidance'
        yield Problem("value.ignored", message, "guidance_scale", "leave it out")


def check_size(info: ModelInfo, width: int | None, height: int | None) -> Iterator[Problem]:
    """Yield errors for a width or height (pixels) that the model cannot make from noise."""
    multiple = info.size_multiple
    for name, value in (("width", width), ("height", height)):
        if value is not None and value % multiple:
            below, above = value // multiple * multiple, (value // multiple + 1) * multiple
            message = f'found {name} {value}, expected a multiple of {multiple} for the model "{info.reference}"'
            hint = f"use {below} or {above}" if below else f"use {above}"
            yield Problem("value.size_multiple", message, field=name, hint=hint)


def check_tiles(size: int, overlap: int) -> Iterator[Problem]:
    """Yield an error for an overlap of more than half a tile (pixels)."""
    if 2 * overlap > size:
        message = f"found tile_overlap {overlap}, expected at most half of the tile_size {size}"
        yield Problem("value.tiles", message, "tile_overlap", "use larger tiles, or a smaller overlap")


def cut_size(info: ModelInfo | None, source: PortType) -> tuple[int, int] | None:
    """Return the size as `floored`; None also for latents of the model's own space, which are never cut."""
    return floored(info, source) if info and comes_in_pixels(info, source) else None


def floored(info: ModelInfo, source: PortType) -> tuple[int, int] | None:
    """Return the size (width, height) to which a picture is cut for the model; None if it fits or is unknown."""
    if source.width is None or source.height is None:
        return None
    multiple = info.image_multiple
    size = (source.width // multiple * multiple, source.height // multiple * multiple)
    return None if size == (source.width, source.height) else size


def cut_down(info: ModelInfo, source: PortType, size: tuple[int, int]) -> Problem:
    """Return a warning for a picture that is cut to ``size``, or an error if nothing is left of it."""
    found, multiple = f"{source.width} x {source.height} pixels", info.image_multiple
    if 0 in size:
        message = f"found an image of {found}, expected at least {multiple} x {multiple}"
        return Problem("value.image_size", message, field="image", hint="enlarge it with a ResizeImage")
    message = f"the image of {found} is resized to {size[0]} x {size[1]}, multiples of {multiple}"
    hint = "put a ResizeImage before it to choose another size"
    return Problem("value.size_floored", message, field="image", hint=hint, severity="warning")


def comes_in_pixels(info: ModelInfo, source: PortType) -> bool:
    """Return whether a picture comes as pixels, or in another latent space and so through pixels."""
    return source.kind is not Latent or source.space not in (None, info.space)


class _Controlled(Protocol):
    @property
    def controlnet(self) -> str: ...
    @property
    def control_guidance_start(self) -> float: ...
    @property
    def control_guidance_end(self) -> float: ...


def check_control(node: _Controlled, info: ModelInfo) -> Iterator[Problem]:
    """Yield errors for a ControlNet that is missing or not for the model, and for an end before its start."""
    if not info.family.controlnet:
        message = f'the model "{info.reference}" is of the family {info.family.name}, which works with no ControlNet'
        yield Problem("model.controlnet", message, "model", "choose a Stable Diffusion 1.x, 2.x or XL model")
        return
    network = find_network(node.controlnet, "controlnet", "controlnet")
    problem = network if isinstance(network, Problem) else check_controlnet(network, info)
    if problem:
        yield problem
    if node.control_guidance_start >= node.control_guidance_end:
        message = (
            f"found control_guidance_start {node.control_guidance_start:g} and control_guidance_end "
            f"{node.control_guidance_end:g}, expected a start before the end"
        )
        yield Problem("value.control_range", message, "control_guidance_start", "0 and 1 steer through all steps")


NodeType = TypeVar("NodeType", bound=Node)


def with_smaller_tiles(node: NodeType, *sizes: int) -> Iterator[NodeType]:
    """Yield copies of a node with each of the tile sizes (pixels) that is smaller than its own ``tile_size``."""
    given = node.model_dump()
    for size in sizes:
        if size < given["tile_size"]:
            yield type(node)(**{**given, "tile_size": size})
