from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

from graphflow import Context, Latent, PortType, Problem
from graphflow.nodes.diffusion.families import Tasks
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.shared.checks import check_size
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import BatchSize, PictureSide

__all__ = ["EmptyLatent"]


class EmptyLatent(ModelNode, version=1, cached=False):
    """Set the size of pictures that are made from noise.

    The latents hold zeros and are marked as pure noise (``noise`` 1.0): the noise itself is drawn by `Denoise`, from
    its seed.
    """

    tasks: ClassVar[Tasks] = ("text-to-image",)

    width: PictureSide = None
    height: PictureSide = None
    batch_size: BatchSize = 1

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Latents of the model with this size."""
        info = self.model_info()
        width, height = (info.native_width, info.native_height) if info else (None, None)
        size = PortType(Latent, width=self.width or width, height=self.height or height, batch=self.batch_size)
        return {"latent": replace(self.latent_type(size), noise=1.0)}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Report sizes that the model cannot make."""
        return check_size(info, self.width, self.height)

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """None: only their configurations are read."""
        return ()

    def run(self, *, context: Context) -> Latent:
        """Make zeros (batch, channels, height / cell, width / cell)."""
        import torch

        info = self.require_model_info()
        for problem in check_size(info, self.width, self.height):
            raise ValueError(problem.message)
        rows = (self.height or info.native_height) // info.pixels_per_cell
        columns = (self.width or info.native_width) // info.pixels_per_cell
        dtype = getattr(torch, context.dtype)
        data = torch.zeros(self.batch_size, info.latent_channels, rows, columns, dtype=dtype, device=context.device)
        return Latent(data, info.space, self.model, noise=1.0)
