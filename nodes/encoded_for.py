"""Pictures brought into the latent space of a model, for the coarse nodes that redraw them."""

from __future__ import annotations

from graphflow import Expansion, Latent
from graphflow.nodes.diffusion.checks import comes_in_pixels, floored
from graphflow.nodes.diffusion.model_info import ModelInfo
from graphflow.nodes.encode_image import EncodeImage
from graphflow.nodes.resize_image import ResizeImage

__all__ = ["encoded_for"]


def encoded_for(g: Expansion, info: ModelInfo, image: Latent, seed: int) -> tuple[Latent, bool]:
    """Latents of ``image`` for a model, and whether it came in pixels and so was sampled with ``seed``.

    Latents of the model's space are passed on; a picture is cut down to whole latent cells and encoded.
    """
    source = g.type_of(image)
    if not comes_in_pixels(info, source):
        return image, False
    if source.width is None or source.height is None or floored(info, source):
        image = g.add(ResizeImage(multiple=info.pixels_per_cell), image=image)
    return g.add(EncodeImage(model=info.reference, seed=seed), image=image), True
