"""Encode pictures and prompts for a model: the part that the coarse nodes share when they expand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from graphflow import Conditioning, Expansion, Latent, Text
from graphflow.nodes.denoise_prior import DenoisePrior
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.prompts import PromptReading
from graphflow.nodes.diffusion.shared.adapters import Encoded, Prompts
from graphflow.nodes.diffusion.shared.checks import comes_in_pixels, floored
from graphflow.nodes.encode_image import EncodeImage
from graphflow.nodes.encode_prompt import EncodePrompt
from graphflow.nodes.resize_image import ResizeImage

__all__ = ["encoded_for", "prompts_for", "prompts_of"]


def encoded_for(g: Expansion, info: ModelInfo, image: Latent, seed: int) -> tuple[Latent, bool]:
    """Return latents of ``image`` for a model, and whether they were sampled with ``seed`` as it came in pixels.

    Latents of the model's space are passed on; a picture is cut down to whole latent cells and encoded.
    """
    source = g.type_of(image)
    if not comes_in_pixels(info, source):
        return image, False
    if source.width is None or source.height is None or floored(info, source):
        image = g.add(ResizeImage(multiple=info.image_multiple), image=image)
    drawn = info.family.samples_encoding
    return g.add(EncodeImage(model=info.reference, seed=seed if drawn else None), image=image), drawn


def prompts_for(
    g: Expansion,
    info: ModelInfo,
    prompt: Text,
    negative_prompt: Text,
    guidance_scale: float,
    *,
    seed: int = 0,
    batch: int | None = None,
    reading: PromptReading = PromptReading(),  # noqa: B008  it is frozen
) -> dict[str, Any]:
    """Add the nodes that encode prompts; return the arguments ``positive`` and ``negative`` of a denoising node.

    A negative prompt that is never used is not encoded. A prior draws noise from ``seed`` for each picture
    of the batch. As in diffusers, layers are skipped for the prompt only.
    """
    if info.family.prior:
        prior = DenoisePrior(model=info.reference, seed=seed, batch_size=batch or 1)
        positive, negative = g.add(prior, text=prompt, negative_text=negative_prompt)
        return {"positive": positive, "negative": negative}
    how = asdict(reading)
    wanted = EncodePrompt(model=info.reference, **how)
    # Where it makes no difference, equal texts are one step.
    unwanted = EncodePrompt(model=info.reference, negative=info.zeros_for_no_negative, **{**how, "clip_skip": None})
    if not info.family.uses_negative_prompt(guidance_scale):
        return {"positive": g.add(wanted, text=prompt), "negative": None}
    beside = {"positive": negative_prompt, "negative": prompt} if reading.varies else {}
    return {
        "positive": g.add(wanted, text=prompt, beside=beside.get("positive")),
        "negative": g.add(unwanted, text=negative_prompt, beside=beside.get("negative")),
    }


def prompts_of(
    info: ModelInfo, positive: Conditioning, negative: Conditioning | None, guidance_scale: float
) -> Prompts:
    """Join the values of two ports for an adapter. Raises ValueError where guidance has no negative prompt."""
    guided = info.family.uses_negative_prompt(guidance_scale)
    if guided and negative is None:
        off = info.family.guidance_threshold
        raise ValueError(
            f"guidance_scale {guidance_scale:g} needs a negative prompt; connect one, or set it to {off:g}"
        )
    if negative and guided and negative.embeds.shape[1:] != positive.embeds.shape[1:]:
        raise ValueError(
            f"found a prompt of {positive.embeds.shape[1]} tokens and a negative prompt of {negative.embeds.shape[1]}, "
            "expected equally many; give each EncodePrompt the other's text at 'beside'"
        )
    unwanted = _encoded(negative) if negative and guided else None
    return Prompts(_encoded(positive), unwanted)


def _encoded(prompt: Conditioning) -> Encoded:
    return Encoded(prompt.embeds, prompt.pooled, prompt.mask)
