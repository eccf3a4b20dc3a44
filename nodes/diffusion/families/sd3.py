"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): text-to-image and image-to-image.

As in `stable_diffusion`, the pipelines of diffusers do the work, and the VAE's sample and the noise are two steps. A
prompt is read by two CLIP text encoders and by T5, which a model may be shipped without: then zeros stand for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.families.adapters import Control, Encoded, Progress, Prompts, Sampling, Warn
from graphflow.nodes.diffusion.families.autoencoder_family import AutoencoderFamily
from graphflow.nodes.diffusion.families.denoising import (
    Described,
    DescribedVae,
    check_cells,
    check_steps,
    generators,
    skip_encoding,
    step_callback,
)
from graphflow.nodes.diffusion.families.prompt_length import tokenizers_for
from graphflow.nodes.diffusion.models import make_scheduler, quiet

with quiet():
    from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusion3Pipeline

__all__ = ["StableDiffusion3"]


class StableDiffusion3(AutoencoderFamily):
    """Runs one model of the family on one device. Satisfies `adapters.Draws`."""

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """Embeddings (1, tokens of CLIP + tokens of T5, width), and CLIP's pooled ones side by side (1, width)."""
        tokenizers = tokenizers_for(self.info, text, warn)
        encoders = {name: self._load(name) for name in self.info.family.tokenizers if name in self.info.components}
        pipeline = self._pipeline(
            StableDiffusion3Pipeline, transformer=Described(**self.info.denoiser), **tokenizers, **encoders
        )
        with quiet():  # what CLIP does not read was told
            embeds, _, pooled, _ = pipeline.encode_prompt(
                prompt=text,
                prompt_2=None,
                prompt_3=None,
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.info.family.t5_window,
            )
        return Encoded(embeds, pooled)

    def text_to_image(
        self, shape: Sequence[int], prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Clean latents of ``shape``, from pure noise."""
        batch, _, rows, columns = shape
        latents: torch.Tensor = self._drawing(StableDiffusion3Pipeline, sampling)(
            width=columns * self.info.pixels_per_cell,
            height=rows * self.info.pixels_per_cell,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            generator=generators(sampling.seed, batch),
            output_type="latent",
            callback_on_step_end=step_callback(progress, sampling.steps),
            **self._guided(prompts, batch),
        ).images
        return latents

    def image_to_image(
        self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Clean latents, from ``latents`` with noise added. See `stable_diffusion` for ``after_encoding``."""
        count = self.info.family.denoise_steps(sampling.steps, sampling.strength)
        check_steps(count, sampling)
        check_cells(latents, self.info)
        pipeline = self._drawing(StableDiffusion3Img2ImgPipeline, sampling)
        (batch, _, rows, columns), dtype = latents.shape, pipeline.transformer.dtype
        draws = generators(sampling.seed, batch)
        if sampling.after_encoding:
            skip_encoding(draws, latents, dtype)
        result: torch.Tensor = pipeline(
            image=latents.to(self.device, dtype),
            width=columns * self.info.pixels_per_cell,
            height=rows * self.info.pixels_per_cell,
            strength=sampling.strength,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            generator=draws,
            output_type="latent",
            callback_on_step_end=step_callback(progress, count),
            **self._guided(prompts, batch),
        ).images
        return result

    def _guided(self, prompts: Prompts, batch: int) -> dict[str, Any]:
        embeds, pooled = self._rows(prompts.positive, batch)
        unwanted, unwanted_pooled = self._rows(prompts.negative, batch)
        return {
            "prompt_embeds": embeds,
            "pooled_prompt_embeds": pooled,
            "negative_prompt_embeds": unwanted,
            "negative_pooled_prompt_embeds": unwanted_pooled,
        }

    def _drawing(self, cls: Any, sampling: Sampling) -> Any:
        return self._pipeline(
            cls,
            transformer=self._load("transformer"),
            vae=DescribedVae(self.info),
            scheduler=make_scheduler(self.info, sampling.sampler),
        )
