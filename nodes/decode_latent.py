from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from graphflow import Compute, Context, Image, Latent, Memory, PortType, Problem
from graphflow.nodes.diffusion.memory.steps import decoding_memory
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.shared.adapters import Adapter
from graphflow.nodes.diffusion.shared.checks import with_smaller_tiles
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import VaeTileSize

__all__ = ["DecodeLatent"]


class DecodeLatent(ModelNode, version=1, converts=True):
    """Turn latents into pictures with the VAE of a model.

    The engine puts this node where a picture is wanted and latents come; its model is then the one that made them.
    """

    tile_size: VaeTileSize = 1024

    def input_types(self) -> dict[str, PortType]:
        """Latents in the model's space."""
        return {"latent": self.latent_type()}

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many pictures of the same size."""
        latent = inputs.get("latent", PortType(Latent))
        return {"image": PortType(Image, width=latent.width, height=latent.height, batch=latent.batch)}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Report latents that hold no picture yet."""
        latent = inputs.get("latent")
        if latent and latent.noise:
            message = f"found latents that are noisy at {latent.noise:g}, expected clean ones"
            return [Problem("value.noisy_latent", message, "latent", "put a Denoise before it")]
        return ()

    @classmethod
    def convert(cls, source: PortType, target: PortType) -> Self | None:
        """Make the node for latents that name the model which reads them."""
        return cls(model=source.model) if source.model else None

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """Return the VAE."""
        return (info.family.autoencoder,)

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """Estimate the VAE with one tile at a time, and the pictures."""
        info = self.model_info()
        return decoding_memory(info, inputs["latent"], self.tile_size, compute) if info else None

    def lighter(self) -> Iterable[Self]:
        """Smaller tiles."""
        return with_smaller_tiles(self, 512, 256)

    def run(self, *, latent: Latent, context: Context) -> Image:
        """Decode each picture by itself. Raises ValueError for latents of another space, or that are not clean."""
        space = self.require_model_info().space
        if latent.space != space:
            raise ValueError(f'found latents of the space "{latent.space}", expected "{space}"')
        if latent.noise:
            raise ValueError(
                f"found latents that are noisy at {latent.noise:g}, expected clean ones; denoise them first"
            )
        backend: Adapter = self.adapter(context)
        return Image(backend.decode(latent.data, self.tile_size))
