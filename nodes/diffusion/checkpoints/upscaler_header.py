"""Upscaling networks recognised by the names and shapes of their tensors alone.

Three architectures, those of most published files: ESRGAN (Wang et al. 2018; RRDBNet, with the names of its first code,
of BSRGAN and of Real-ESRGAN), Compact (SRVGGNetCompact of Real-ESRGAN) and SwinIR with Swin2SR (Liang et al. 2021,
Conde et al. 2022). Others are recognised by spandrel when they are loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from graphflow.nodes.diffusion.checkpoints.safetensors_header import Shape

__all__ = ["Recognised", "recognise"]

Shapes = Mapping[str, Shape]

LARGEST_SCALE = 16


@dataclass(frozen=True, slots=True)
class Recognised:
    """An upscaling network: the name of its architecture, its factor, and the channels it takes and returns."""

    architecture: str
    scale: int
    channels_in: int
    channels_out: int


def recognise(shapes: Shapes) -> Recognised | None:
    """Recognise a network by the shapes of its tensors; None for an unknown or inconsistent one."""
    for prefix in ("module.", "netG."):
        if shapes and all(name.startswith(prefix) for name in shapes):
            shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    try:
        found = _compact(shapes) or _swin(shapes) or _esrgan(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # it only resembles one of them
        return None
    return found if found and found.scale in range(1, LARGEST_SCALE + 1) else None


def _compact(shapes: Shapes) -> Recognised | None:
    """Recognise convolutions with PReLUs in between; the last has scale² outputs for each channel of the picture."""
    if "body.0.weight" not in shapes or len(shapes.get("body.1.weight", ())) != 1:
        return None
    last = max(_numbers(r"body\.(\d+)\.weight", shapes))
    channels, width = shapes["body.0.weight"][1], shapes[f"body.{last}.weight"][0]
    for made in (channels, 3, 4, 1):
        scale = math.isqrt(width // made)
        if made * scale**2 == width:
            return Recognised("Compact", scale, channels, made)
    return None


def _esrgan(shapes: Shapes) -> Recognised | None:
    """Recognise residual blocks with a convolution per doubling; Real-ESRGAN's small factors unshuffle pixels."""
    if "model.1.sub.0.RDB1.conv1.0.weight" in shapes:
        numbers = _numbers(r"model\.(\d+)\.weight", shapes)
        doublings, first, last = (max(numbers) - 4) // 3, "model.0.weight", f"model.{max(numbers)}.weight"
    elif {"body.0.rdb1.conv1.weight", "RRDB_trunk.0.RDB1.conv1.weight"} & shapes.keys():
        doublings = max(_numbers(r"(?:upconv|conv_up)(\d)\.weight", shapes), default=0)
        first, last = "conv_first.weight", "conv_last.weight"
    else:
        return None
    if not 0 <= doublings <= 4:  # a file may contain any number
        return None
    channels, made, scale = shapes[first][1], shapes[last][0], 2**doublings
    folded = {4: 2, 16: 4}.get(channels // made, 1) if channels % made == 0 else 1
    return Recognised("ESRGAN", scale // folded, channels // folded**2, made)


def _swin(shapes: Shapes) -> Recognised | None:
    block = "layers.0.residual_group.blocks.0.attn"
    if f"{block}.relative_position_index" not in shapes or "conv_first.weight" not in shapes:
        return None
    if {"conv_bicubic.weight", "conv_after_body_hf.weight"} & shapes.keys():  # with a second output
        return None
    channels = shapes["conv_first.weight"][1]
    made = shapes.get("conv_last.weight", (channels,))[0]
    if "conv_up1.weight" in shapes:
        scale = 2 ** len(_numbers(r"conv_up(\d)\.weight", shapes))
    elif "conv_before_upsample.0.weight" in shapes:
        steps = [shapes[f"upsample.{number}.weight"] for number in _numbers(r"upsample\.(\d+)\.weight", shapes)]
        scale = math.prod(math.isqrt(shape[0] // shape[1]) for shape in steps)
    elif "upsample.0.weight" in shapes:
        scale = math.isqrt(shapes["upsample.0.weight"][0] // made)
    else:
        scale = 1
    return Recognised("Swin2SR" if f"{block}.logit_scale" in shapes else "SwinIR", scale, channels, made)


def _numbers(pattern: str, shapes: Shapes) -> list[int]:
    """Return the numbers in the names that a pattern with one group matches."""
    return [int(match[1]) for name in shapes if (match := re.fullmatch(pattern, name))]
