"""Arguments for pipelines that denoise: a step callback, and stand-ins for the components that they do not run."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.shared.adapters import Progress, Sampling

__all__ = [
    "Described",
    "DescribedVae",
    "check_cells",
    "image_to_image_steps",
    "step_callback",
]


def image_to_image_steps(info: ModelInfo, sampling: Sampling) -> int:
    """Count the denoise steps that image-to-image runs.

    Raises ValueError where there are none: a pipeline would silently return an empty batch.
    """
    count = info.family.denoise_steps(sampling.steps, sampling.strength)
    if count == 0:
        raise ValueError(
            f"found strength {sampling.strength:g} of {sampling.steps} steps, which is 0 denoise steps; expected at "
            "least 1"
        )
    return count


def step_callback(progress: Progress, total: int | None = None) -> Callable[..., dict[str, Any]]:
    """Return a callback that reports each finished step to ``progress`` as one of ``total``.

    With None the total is the number of timesteps of the pipeline.
    """

    def ended(pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        # A second-order sampler visits more timesteps than the requested steps.
        count = total or pipeline.num_timesteps
        progress(math.ceil((index + 1) * count / pipeline.num_timesteps), count)
        return values

    return ended


class Described:
    """A stand-in for a network that a pipeline does not run: its configuration alone."""

    def __init__(self, **config: Any) -> None:
        self.config = SimpleNamespace(**config)


class DescribedVae(Described):
    """A stand-in for the autoencoder of a pipeline that neither encodes nor decodes."""

    def __init__(self, info: ModelInfo, scaling_factor: float = 1.0) -> None:
        super().__init__(
            scaling_factor=scaling_factor,
            block_out_channels=info.autoencoder["block_out_channels"],
            latent_channels=info.latent_channels,
        )


def check_cells(latents: torch.Tensor, info: ModelInfo) -> None:
    """Raise ValueError for latents that a transformer cannot split into its square patches of cells."""
    side = info.image_multiple // info.pixels_per_cell
    rows, columns = latents.shape[-2:]
    if rows % side or columns % side:
        raise ValueError(
            f"found latents of {columns} x {rows} cells, expected multiples of {side}: pictures of multiples of "
            f"{info.image_multiple} pixels"
        )
