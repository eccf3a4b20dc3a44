"""Noise that is the same for a seed in every dtype, up to rounding.

Some versions of torch draw half precision on the CPU directly in half precision (seen with 2.11, not with 2.13): other
numbers than in float32, fewer distinct ones, and none far from zero (pytorch issue 166853). Since diffusers draws noise
in the compute dtype, a seed gives another picture in each (diffusers issue 11056).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from diffusers.utils import torch_utils

__all__ = ["draw_noise_in_float32"]

HALVES = frozenset({torch.float16, torch.bfloat16})


def draw_noise_in_float32() -> None:
    """Make diffusers draw noise in float32 and round it, for the rest of this process, if torch needs that."""
    in_half, in_full = (
        torch.randn(64, generator=torch.Generator().manual_seed(0), dtype=dtype)
        for dtype in (torch.float16, torch.float32)
    )
    if not torch.equal(in_half, in_full.half()):
        # every pipeline and scheduler imports randn_tensor by name, so the torch that it calls is replaced instead
        torch_utils.torch = _Torch()


def randn(*size: Any, dtype: torch.dtype | None = None, **options: Any) -> torch.Tensor:
    """Draw as `torch.randn`, but half precision as float32, rounded."""
    drawn = torch.randn(*size, dtype=torch.float32 if dtype in HALVES else dtype, **options)
    return drawn if dtype is None else drawn.to(dtype)


class _Torch(ModuleType):
    """A stand-in for the module torch with another ``randn``."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.randn = randn

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)
