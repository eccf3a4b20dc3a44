"""Pictures and prompts encoded for a model: what the coarse nodes have in common when they expand."""

from __future__ import annotations

from typing import Any

from graphflow import Expansion, Latent, Text
from graphflow.nodes.diffusion.checks import comes_in_pixels, floored
from graphflow.nodes.diffusion.model_info import ModelInfo
from graphflow.nodes.encode_image import EncodeImage
from graphflow.nodes.encode_prompt import EncodePrompt
from graphflow.nodes.resize_image import ResizeImage

__all__ = ["encoded_for", "prompts_for"]


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


def prompts_for(g: Expansion, model: str, prompt: Text, negative_prompt: Text, guidance_scale: float) -> dict[str, Any]:
    """What a denoising node takes as ``positive`` and ``negative``.

    Without guidance the negative prompt is never looked at, so it is not encoded.
    """
    encode = EncodePrompt(model=model)
    return {
        "positive": g.add(encode, text=prompt),
        "negative": g.add(encode, text=negative_prompt) if guidance_scale > 1 else None,
    }
