"""FLUX.1 dev and schnell (Black Forest Labs 2024): text-to-image and image-to-image.

As in `stable_diffusion`, the pipelines of diffusers do the work, and the VAE's sample and the noise are two steps.
Between nodes latents are (batch, 16, height, width) like those of other families. The transformer takes them packed,
squares of 2 x 2 cells as tokens (batch, tokens, 64), and that is also how the pipelines give them back.

Guidance is distilled into the weights of dev, which takes its scale as an input; schnell knows none. Neither is led
away from a negative prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.families.adapters import Control, Encoded, Progress, Prompts, Sampling, Warn
from graphflow.nodes.diffusion.families.autoencoder_family import AutoencoderFamily
from graphflow.nodes.diffusion.families.denoising import (
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
    from diffusers import FluxImg2ImgPipeline, FluxPipeline

__all__ = ["Flux"]


class Flux(AutoencoderFamily):
    """Runs one model of the family on one device. Satisfies `adapters.Draws`."""

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """T5's embeddings (1, tokens, width), and CLIP's pooled one (1, width)."""
        tokenizers = tokenizers_for(self.info, text, warn)
        encoders = {name: self._load(name) for name in self.info.family.tokenizers}
        pipeline = self._pipeline(FluxPipeline, **tokenizers, **encoders)
        with quiet():  # what CLIP does not read was told
            embeds, pooled, _ = pipeline.encode_prompt(
                prompt=text, device=self.device, max_sequence_length=self.info.family.t5_window
            )
        return Encoded(embeds, pooled)

    def text_to_image(
        self, shape: Sequence[int], prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Clean latents of ``shape``, from pure noise."""
        batch, _, rows, columns = shape
        pipeline = self._drawing(FluxPipeline, sampling)
        packed = pipeline(
            width=columns * self.info.pixels_per_cell,
            height=rows * self.info.pixels_per_cell,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            generator=generators(sampling.seed, batch),
            output_type="latent",
            callback_on_step_end=step_callback(progress, sampling.steps),
            **self._guided(prompts, batch),
        ).images
        return self._unpacked(pipeline, packed, rows, columns)

    def image_to_image(
        self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Clean latents, from ``latents`` with noise added. See `stable_diffusion` for ``after_encoding``."""
        count = self.info.family.denoise_steps(sampling.steps, sampling.strength)
        check_steps(count, sampling)
        check_cells(latents, self.info)
        pipeline = self._drawing(FluxImg2ImgPipeline, sampling)
        (batch, _, rows, columns), dtype = latents.shape, pipeline.transformer.dtype
        draws = generators(sampling.seed, batch)
        if sampling.after_encoding:
            skip_encoding(draws, latents, dtype)
        packed = pipeline(
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
        return self._unpacked(pipeline, packed, rows, columns)

    def _guided(self, prompts: Prompts, batch: int) -> dict[str, Any]:
        embeds, pooled = self._rows(prompts.positive, batch)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def _drawing(self, cls: Any, sampling: Sampling) -> Any:
        return self._pipeline(
            cls,
            transformer=self._load("transformer"),
            vae=DescribedVae(self.info),
            scheduler=make_scheduler(self.info, sampling.sampler),
        )

    def _unpacked(self, pipeline: Any, packed: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        latents: torch.Tensor = pipeline._unpack_latents(packed, rows, columns, vae_scale_factor=1)
        return latents
