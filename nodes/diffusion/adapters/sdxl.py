"""Stable Diffusion XL, base and refiner (Podell et al. 2023): text-to-image and image-to-image.

A base and a refiner can share one noise schedule: the base stops at ``denoising_end``, and the refiner continues from
the noisy latents at ``denoising_start``. For ``after_encoding`` see `stable_diffusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.adapters.clip_family import ClipFamily
from graphflow.nodes.diffusion.adapters.denoising import DescribedVae, image_to_image_steps
from graphflow.nodes.diffusion.adapters.noise import generators_for, generators_from
from graphflow.nodes.diffusion.adapters.prompt_reading import encode_windows, pooled_text
from graphflow.nodes.diffusion.loading.components import make_scheduler, quiet
from graphflow.nodes.diffusion.sampling.prompts import PromptReading
from graphflow.nodes.diffusion.shared.adapters import Control, Encoded, Progress, Prompts, Sampling, Warn

with quiet():
    from diffusers import (
        StableDiffusionXLControlNetImg2ImgPipeline,
        StableDiffusionXLControlNetPipeline,
        StableDiffusionXLImg2ImgPipeline,
        StableDiffusionXLPipeline,
    )

__all__ = ["StableDiffusionXL"]


class StableDiffusionXL(ClipFamily):
    """A `TextToImageAdapter` and `PromptAdapter` for one SDXL base or refiner model on one device."""

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """Encode a prompt to embeddings (1, tokens, width) of all encoders side by side and pooled ones (1, width).

        Pooled embeddings are those of the last text encoder. An empty negative prompt is zeros for a model that was
        trained so, as in the pipelines. Raises ValueError for a prompt longer than the window.
        """
        parts = {name: self._load(name) for name in self.info.family.text_encoders}
        parts |= {name: self._tokenizer_for(text, name) for name in self.info.tokenizers}
        pipeline = self._pipeline(StableDiffusionXLPipeline, add_watermarker=False, **parts)
        embeds, _, pooled, _ = pipeline.encode_prompt(text, device=self.device, do_classifier_free_guidance=False)
        return self._encoded_prompt(embeds, pooled, empty_negative=negative and not text)

    @torch.no_grad()
    def read_prompt(self, text: str, reading: PromptReading, *, beside: str | None, negative: bool) -> Encoded:
        """Encode a prompt as `encode_prompt`, in several windows; pooled embeddings are those of the first window."""
        layer = -2 - (reading.clip_skip or 0)  # as in `StableDiffusionXLPipeline.encode_prompt`
        encoders = [
            self._window_encoder(name, lambda output: output.hidden_states[layer])
            for name in self.info.family.text_encoders
        ]
        embeds = encode_windows(encoders, text, beside, reading, self.info)
        pooled = encoders[-1].pooled(pooled_text(text, reading))
        return self._encoded_prompt(embeds, pooled, empty_negative=negative and not text)

    def _encoded_prompt(self, embeds: torch.Tensor, pooled: torch.Tensor, *, empty_negative: bool) -> Encoded:
        if empty_negative and self.info.zeros_for_no_negative:
            return Encoded(torch.zeros_like(embeds), torch.zeros_like(pooled))
        return Encoded(embeds, pooled)

    def text_to_image(
        self, shape: Sequence[int], prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return latents of ``shape``, denoised from pure noise; still noisy where the schedule stops early."""
        batch = shape[0]
        ending = {} if control else {"denoising_end": sampling.denoising_end}
        pipeline = self._denoising_pipeline(
            StableDiffusionXLPipeline, StableDiffusionXLControlNetPipeline, sampling, control
        )
        latents: torch.Tensor = pipeline(
            **self._size_arguments(shape),
            **self._sampling_arguments(sampling, generators_from(sampling.seeds), progress),
            **ending,
            **self._prompt_arguments(prompts, batch),
            **self._control_arguments(control, batch, "image"),
        ).images
        return latents

    def image_to_image(
        self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return latents, denoised from ``latents`` with noise added or from the noisy ones of another model."""
        if sampling.denoising_start is None:
            image_to_image_steps(self.info, sampling)
        batch = len(latents)
        pipeline = self._denoising_pipeline(
            StableDiffusionXLImg2ImgPipeline, StableDiffusionXLControlNetImg2ImgPipeline, sampling, control
        )
        dtype = pipeline.unet.dtype
        generators = generators_for(latents, sampling)
        shares = {} if control else {
            "denoising_start": sampling.denoising_start, "denoising_end": sampling.denoising_end,
        }  # fmt: skip
        result: torch.Tensor = pipeline(
            image=latents.to(self.device, dtype),
            strength=sampling.strength,
            **self._sampling_arguments(sampling, generators, progress),
            **shares,
            **self._prompt_arguments(prompts, batch),
            **self._control_arguments(control, batch, "control_image"),
        ).images
        return result

    def _denoising_pipeline(self, plain: Any, controlled: Any, sampling: Sampling, control: Control | None) -> Any:
        """Build the pipeline with the UNet and the sampler; see `_pipeline_with_control`."""
        parts = {
            "unet": self._load("unet"),
            "vae": DescribedVae(self.info),
            "scheduler": make_scheduler(self.info, sampling.sampler, seeds=sampling.seeds),
            "add_watermarker": False,
        }
        # Selects the sizes and scores that the UNet gets beside the prompt; only image-to-image pipelines have both.
        if "requires_aesthetics_score" in self.info.configs["pipeline"] and plain is StableDiffusionXLImg2ImgPipeline:
            parts["requires_aesthetics_score"] = self.info.configs["pipeline"]["requires_aesthetics_score"]
        return self._pipeline_with_control(plain, controlled, control, parts)
