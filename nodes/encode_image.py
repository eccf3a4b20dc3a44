from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Self

from graphflow import Compute, Context, Field, Image, Latent, Memory, PortType, Problem, Seed
from graphflow.nodes.diffusion.memory.steps import encoding_memory
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.shared.adapters import Adapter
from graphflow.nodes.diffusion.shared.checks import floored, with_smaller_tiles
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import VaeTileSize

__all__ = ["EncodeImage"]


class EncodeImage(ModelNode, version=1, converts=True):
    """Turn pictures into latents with the VAE of a model.

    A VAE answers with a distribution. Without a seed its mode is taken, the same for every use; with a seed a sample,
    as the image-to-image pipelines of diffusers take it (item i from ``seed + i``): then give `Denoise` the same seed
    and ``after_encoding``. The engine puts this node, without a seed, where latents are wanted and a picture comes.
    """

    seed: Seed | None = Field(None, description="draw a sample with this seed; default: the mode of the distribution")
    tile_size: VaeTileSize = 1024

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Latents of the model with the size of the image."""
        return {"latent": self.latent_type(inputs.get("image"))}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report an image that does not fill whole latent cells, and a seed for a VAE that draws nothing."""
        image = inputs.get("image")
        if self.seed is not None and not info.family.samples_encoding:
            message = f"found seed {self.seed}, which models of the family {info.family.name} do not encode with"
            yield Problem("value.ignored", message, "seed", "leave it out: its encoding is always the same")
        size = floored(info, image) if image else None
        if image and size:
            multiple = info.image_multiple
            message = f"found an image of {image.width} x {image.height} pixels, expected multiples of {multiple}"
            hint = f"put a ResizeImage with multiple {multiple} before it ({size[0]} x {size[1]})"
            yield Problem("value.image_size", message, "image", hint)

    @classmethod
    def convert(cls, source: PortType, target: PortType) -> Self | None:
        """Make the node for latents of the model that the target names."""
        return cls(model=target.model) if target.model else None

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """Return the VAE."""
        return (info.family.autoencoder,)

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """Estimate the VAE with one tile at a time, and the pictures."""
        info = self.model_info()
        return encoding_memory(info, inputs["image"], self.tile_size, compute) if info else None

    def lighter(self) -> Iterable[Self]:
        """Smaller tiles."""
        return with_smaller_tiles(self, 512, 256)

    def run(self, *, image: Image, context: Context) -> Latent:
        """Encode each picture by itself. Raises ValueError for a size that does not fill whole latent cells."""
        backend: Adapter = self.adapter(context)
        return Latent(
            backend.encode_image(image.pixels, self.seed, self.tile_size), self.require_model_info().space, self.model
        )
