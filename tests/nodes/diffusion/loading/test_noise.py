"""Noise of one seed in each dtype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.utils import torch_utils

from graphflow.nodes.diffusion.loading import noise_in_float32 as noise

HALVES = [torch.float16, torch.bfloat16]
SHAPE = (2, 4, 8, 8)


def seeded(count: int = 2) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def in_float32() -> torch.Tensor:
    return torch.cat([torch.randn(1, *SHAPE[1:], generator=draw) for draw in seeded()])


@pytest.fixture
def torch_of_diffusers() -> Iterator[None]:
    before = torch_utils.torch
    yield
    torch_utils.torch = before


@pytest.mark.parametrize("dtype", HALVES)
def test_diffusers_draws_the_noise_of_float32(dtype: torch.dtype) -> None:
    """On whatever torch is installed; `nodes.diffusion.models` sees to it where torch does not."""
    import graphflow.nodes.diffusion.loading.components  # noqa: F401

    drawn = torch_utils.randn_tensor(SHAPE, generator=seeded(), dtype=dtype)
    assert drawn.dtype == dtype
    assert torch.equal(drawn, in_float32().to(dtype))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("torch_of_diffusers")
def test_a_torch_that_draws_other_noise_in_half_precision_is_helped(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = torch.randn

    def wrong(*size: Any, dtype: torch.dtype | None = None, **options: Any) -> torch.Tensor:
        drawn = right(*size, dtype=dtype, **options)
        return drawn + 1 if dtype in HALVES else drawn

    monkeypatch.setattr(torch, "randn", wrong)
    torch_utils.torch = torch
    assert not torch.equal(torch_utils.randn_tensor(SHAPE, generator=seeded(), dtype=dtype), in_float32().to(dtype))
    noise.draw_noise_in_float32()
    assert torch.equal(torch_utils.randn_tensor(SHAPE, generator=seeded(), dtype=dtype), in_float32().to(dtype))
    full = torch_utils.randn_tensor(SHAPE, generator=seeded(), dtype=torch.float32)
    assert torch.equal(full, in_float32())


@pytest.mark.usefixtures("torch_of_diffusers")
def test_one_that_does_not_is_left_alone() -> None:
    torch_utils.torch = torch
    noise.draw_noise_in_float32()
    same = torch.equal(
        torch.randn(64, generator=seeded()[0], dtype=torch.float16), torch.randn(64, generator=seeded()[0]).half()
    )
    assert (torch_utils.torch is torch) == same
