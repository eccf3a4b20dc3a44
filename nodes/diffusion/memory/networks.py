"""Memory of networks, estimated from their configurations and the headers of their weights.

During inference a network keeps two kinds of tensors: those that a later layer needs (a UNet's skip connections), and
those of the current layer. So the estimate goes through the blocks in the order of diffusers, sums up the tensors that
are kept, and finds the largest block. The factors are the numbers of tensors alive at once inside a block, counted in
the source of diffusers 0.42. Attention is linear in the tokens, since the scores of all pairs are never stored, except
with "eager".

The tests compare the estimates with the allocations of torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphflow import Compute
from graphflow.machine.processor import convolves_with_onednn
from graphflow.nodes.diffusion.checkpoints.model_files import Component, component_dtype, mtime_ns
from graphflow.nodes.diffusion.checkpoints.safetensors_header import BITS, DamagedError, read_header

__all__ = [
    "controlnet_activations",
    "decoder_activations",
    "encoder_activations",
    "text_activations",
    "unet_activations",
    "weight_bytes",
]

WIDTH = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes per number, by dtype."""

TRANSFORMER = 19
"""Tensors of a token's width alive in a transformer block's feed-forward part: 16 in its gated layers, which are four
times as wide, its input, the normed input, and the residual of the block."""
ATTENTION = 7
"""Tensors of a token's width alive in attention: residual, tokens, normed tokens, query, key, value, output."""


# Weights -------------------------------------------------------------------------------------------------------------


def weight_bytes(component: Component, config: Mapping[str, Any], compute: Compute) -> int | None:
    """Return the bytes of a component's weights on the device while it computes; None for unreadable files.

    ``config`` is the component's own. With offload "sequential" only the largest tensor is on the device.
    """
    files = tuple(file for file in component.files if file.suffix == ".safetensors")
    prefixes = [component.prefix if file == component.checkpoint else "" for file in files]
    counted = [_counted(file, prefix, mtime_ns(file)) for file, prefix in zip(files, prefixes, strict=True)]
    width = WIDTH[component_dtype(config, compute.dtype)]
    sizes = [floats * width + rest for tensors in counted if tensors for floats, rest in tensors]
    if None in counted or not sizes:
        return None
    return max(sizes) if compute.offload == "sequential" else sum(sizes)


@lru_cache(maxsize=256)
def _counted(file: Path, prefix: str, written: int) -> tuple[tuple[int, int], ...] | None:
    """Count floating-point numbers, and bytes of any others, of each tensor with a prefix in a safetensors file.

    They are apart because floating-point numbers are converted when they are read. ``written`` (ns) is a part of the
    cache key only.
    """
    try:
        header = read_header(file)
    except (OSError, DamagedError):
        return None
    found = []
    for name, numbers in header.starting(prefix).items():
        dtype, count = header.dtypes[prefix + name], math.prod(numbers)
        found.append((count, 0) if dtype.startswith(("F", "BF")) else (0, count * BITS.get(dtype, 8) // 8))
    return tuple(found)


# Activations ---------------------------------------------------------------------------------------------------------


def unet_activations(
    config: Mapping[str, Any], rows: int, columns: int, items: int, compute: Compute, *, controlled: bool = False
) -> int:
    """Return the bytes that a UNet needs for ``items`` latents of ``rows`` x ``columns`` cells, weights excluded.

    Under guidance every picture counts as two items. With ``controlled`` it also takes the outputs of a ControlNet.
    """
    walk = _Walk(config, items, compute)
    groups, waiting, peak = walk.down(rows, columns)
    if controlled:
        outputs = waiting  # as large as the skips, and alive until the end; skips, outputs and sums are alive at once
        peak = max(peak, 3 * waiting)
        waiting += outputs
    channels, layers, kinds = _levels(config, "up_block_types")
    before = channels[0]
    size = _cells(rows, columns, len(channels) - 1) * items
    held = before * size
    peak = max(peak, waiting + held + walk.block(before, before, size, attends=True))
    for place, (out, count) in enumerate(zip(channels, layers, strict=True)):
        level = len(channels) - 1 - place
        size = _cells(rows, columns, level) * items
        skip = max(groups[level]) // size
        for _ in range(count):
            # the skips of a level are freed at its end only, and so is the input of the level
            block = walk.block(before + skip, out, size, attends="Attn" in kinds[place], level=level)
            peak = max(peak, waiting + held + block)
            before = out
        if level:
            finer = _cells(rows, columns, level - 1) * items
            peak = max(peak, waiting + held + out * size + walk.conv(out, out, finer))
            held = out * finer
        waiting -= sum(groups[level])
    peak = max(peak, walk.conv(before, before, size))
    own = 16 * int(config.get("in_channels", 4)) * rows * columns * items
    return (peak + own) * walk.width


def controlnet_activations(config: Mapping[str, Any], rows: int, columns: int, items: int, compute: Compute) -> int:
    """Return the bytes that a ControlNet needs, weights excluded; arguments are as in `unet_activations`."""
    walk = _Walk(config, items, compute)
    _, waiting, peak = walk.down(rows, columns)
    channels, _, _ = _levels(config, "down_block_types")
    size = _cells(rows, columns, len(channels) - 1) * items
    middle = waiting + channels[-1] * size + walk.block(channels[-1], channels[-1], size, attends=True)
    widths = config.get("conditioning_embedding_out_channels") or (16, 32, 96, 256)
    pixels = rows * columns * 4 ** (len(widths) - 1) * items
    return max(peak, middle, 2 * waiting, walk.conv(int(widths[0]), int(widths[0]), pixels)) * walk.width


class _Walk:
    """The sizes of a network's blocks, counted in numbers (not bytes) for all items of a batch."""

    def __init__(self, config: Mapping[str, Any], items: int, compute: Compute, dtype: str | None = None) -> None:
        self.config, self.items, self.compute = config, items, compute
        self.dtype = dtype or compute.dtype
        self.width = WIDTH[self.dtype]

    def down(self, rows: int, columns: int) -> tuple[list[list[int]], int, int]:
        """Count the encoder of a UNet: its skips by the level of the decoder that uses them, their sum, the peak."""
        channels, layers, kinds = _levels(self.config, "down_block_types")
        before = channels[0]
        groups = [[before * rows * columns * self.items]]
        waiting = peak = groups[0][0]
        for level, (out, count) in enumerate(zip(channels, layers, strict=True)):
            size = _cells(rows, columns, level) * self.items
            for _ in range(count):
                block = self.block(before, out, size, attends="Attn" in kinds[level], level=level)
                peak = max(peak, waiting + block)
                waiting += out * size
                groups[level].append(out * size)
                before = out
            if level + 1 < len(channels):
                coarser = out * _cells(rows, columns, level + 1) * self.items
                peak = max(peak, waiting + self.conv(out, out, size))
                waiting += coarser
                groups.append([coarser])
        return groups, waiting, peak

    def block(self, before: int, out: int, size: int, *, attends: bool, level: int = -1) -> int:
        """Count a residual block from ``before`` to ``out`` channels at ``size`` pixels, and its transformer."""
        first = before * size + self.conv(before, out, size)
        second = out * size + self.conv(out, out, size)
        if not attends:
            return max(first, second)
        scores = 0
        if self.compute.attention == "eager":
            scores = 2 * _heads(self.config, level) * size * (size // self.items)
        return max(first, second, TRANSFORMER * out * size, ATTENTION * out * size + scores)

    def conv(self, before: int, out: int, size: int) -> int:
        """Count a convolution of 3 x 3 at ``size`` pixels: its input, the input in the compute layout, its output.

        On the CPU its weights are copied to another layout too; in a half precision without instructions of the
        processor for it, the 9 neighbours of each pixel are stored instead.
        """
        numbers = (2 * before + out) * size
        if not self.compute.on_cpu:
            return numbers
        if self.dtype == "float32" or convolves_with_onednn(self.dtype):
            return numbers + 9 * before * out
        return numbers + 9 * before * size


def _heads(config: Mapping[str, Any], level: int) -> int:
    """Return the number of attention heads, which diffusers may store as ``attention_head_dim``."""
    value = config.get("num_attention_heads") or config.get("attention_head_dim") or 8
    return int(value[level]) if isinstance(value, Sequence) else int(value)


def _levels(config: Mapping[str, Any], which: str) -> tuple[list[int], list[int], list[str]]:
    """Return the channels, residual blocks and kind of each level, in the order in which they run."""
    channels = [int(width) for width in config["block_out_channels"]]
    per_level = config.get("layers_per_block", 2)
    layers = (
        [int(count) for count in per_level] if isinstance(per_level, Sequence) else [int(per_level)] * len(channels)
    )
    kinds = [str(kind) for kind in config[which]]
    if which == "up_block_types":
        channels.reverse()
        layers = [count + 1 for count in reversed(layers)]
    return channels, layers, kinds


def _cells(rows: int, columns: int, level: int) -> int:
    return -(-rows >> level) * -(-columns >> level)  # both halved ``level`` times, rounded up


def decoder_activations(config: Mapping[str, Any], rows: int, columns: int, compute: Compute) -> int:
    """Return the bytes that a VAE needs to decode one latent of ``rows`` x ``columns`` cells, weights excluded."""
    walk = _Walk(config, 1, compute, component_dtype(config, compute.dtype))
    channels = [int(width) for width in reversed(config["block_out_channels"])]
    size, before = rows * columns, channels[0]
    peak = _middle(walk, before, size)
    for level, out in enumerate(channels):
        peak = max(peak, walk.block(before, out, size, attends=False))
        if level + 1 < len(channels):
            peak = max(peak, (before + out) * size + walk.conv(out, out, 4 * size))
            size *= 4
        before = out
    return peak * walk.width


def encoder_activations(config: Mapping[str, Any], rows: int, columns: int, compute: Compute) -> int:
    """Return the bytes that a VAE needs to encode one picture of ``rows`` x ``columns`` cells, weights excluded."""
    walk = _Walk(config, 1, compute, component_dtype(config, compute.dtype))
    channels = [int(width) for width in config["block_out_channels"]]
    size, before = rows * columns * 4 ** (len(channels) - 1), channels[0]
    peak = 0
    for level, out in enumerate(channels):
        # the input of a level is kept until its end
        peak = max(peak, before * size + walk.block(out, out, size, attends=False))
        if level + 1 < len(channels):
            size //= 4
        before = out
    return max(peak, _middle(walk, before, size)) * walk.width


def _middle(walk: _Walk, width: int, size: int) -> int:
    """Count the middle of a VAE: two residual blocks, and attention with one head if it has any."""
    block = width * size + walk.block(width, width, size, attends=False)
    if not walk.config.get("mid_block_add_attention", True):
        return block
    scores = 2 * size * size if walk.compute.attention == "eager" else 0
    return max(block, ATTENTION * width * size + scores)


def text_activations(config: Mapping[str, Any], tokens: int, compute: Compute) -> int:
    """Return the bytes that a CLIP text encoder needs for one prompt, with the states of all layers kept."""
    width, inner = int(config["hidden_size"]), int(config.get("intermediate_size") or 4 * int(config["hidden_size"]))
    layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
    scores = tokens * tokens * (1 + (2 * heads if compute.attention == "eager" else 0))
    return (tokens * ((ATTENTION + layers) * width + 2 * inner) + scores) * WIDTH[compute.dtype]
