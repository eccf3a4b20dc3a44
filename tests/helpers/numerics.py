"""The distance of two results, and the random numbers that both begin with."""

from __future__ import annotations

import torch


def generators(seed: int, count: int) -> list[torch.Generator]:
    """Make a generator for each item of a batch, as diffusers takes them."""
    return [torch.Generator("cpu").manual_seed((seed + index) % 2**64) for index in range(count)]


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest distance of two numbers at one place."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())
