"""Stable Diffusion 1.x and 2.x, and every model of the same architecture: text-to-image and image-to-image.

The pipelines of diffusers do the computing, called with explicit arguments only: their ``__call__`` ignores a misspelt
keyword. With a `Control` it is their ControlNet variants.

Noise and the VAE's sample. ``StableDiffusionImg2ImgPipeline`` called with pixels draws twice from one generator: first
the sample of the VAE's posterior, then the noise. Here the two are separate steps. `encode_image` takes the first draw
from ``seed``, and `image_to_image` with ``after_encoding=True`` repeats and drops that draw before it draws the noise.
So the result equals that of the pipeline, while both steps depend on nothing but their parameters and can be cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.adapters.clip_family import ClipFamily
from graphflow.nodes.diffusion.adapters.denoising import image_to_image_steps
from graphflow.nodes.diffusion.adapters.noise import generators_for, generators_from
from graphflow.nodes.diffusion.adapters.prompt_reading import encode_windows
from graphflow.nodes.diffusion.loading.components import make_scheduler, quiet
from graphflow.nodes.diffusion.sampling.prompts import PromptReading
from graphflow.nodes.diffusion.shared.adapters import Control, Encoded, Progress, Prompts, Sampling

with quiet():
    from diffusers import (
        StableDiffusionControlNetImg2ImgPipeline,
        StableDiffusionControlNetPipeline,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionPipeline,
    )

__all__ = ["StableDiffusion"]


class StableDiffusion(ClipFamily):
    """A `TextToImageAdapter` and `PromptAdapter` for one Stable Diffusion 1.x or 2.x model on one device."""

    @torch.no_grad()
    def read_prompt(self, text: str, reading: PromptReading, *, beside: str | None, negative: bool) -> Encoded:
        """Encode a prompt to embeddings (1, windows * window, width). Raises ValueError as `encode_windows`."""
        network, skipped = self._load("text_encoder"), reading.clip_skip

        def states(output: Any) -> torch.Tensor:
            # As `StableDiffusionPipeline.encode_prompt`, which looks for the norm where transformers 5 no longer has
            # it: the final norm is applied to whichever layer is taken.
            found: torch.Tensor = output.last_hidden_state
            if skipped is not None:
                norm = getattr(network, "text_model", network).final_layer_norm
                found = norm(output.hidden_states[-(skipped + 1)])
            return found

        encoder = self._window_encoder("text_encoder", states)
        return Encoded(encode_windows([encoder], text, beside, reading, self.info))

    def text_to_image(
        self, shape: Sequence[int], prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return clean latents of ``shape``, denoised from pure noise."""
        batch = shape[0]
        pipeline = self._denoising_pipeline(
            StableDiffusionPipeline, StableDiffusionControlNetPipeline, sampling, control
        )
        latents: torch.Tensor = pipeline(
            **self._size_arguments(shape),
            **self._sampling_arguments(sampling, generators_from(sampling.seeds), progress, sampling.steps),
            **self._prompt_arguments(prompts, batch),
            **self._control_arguments(control, batch, "image"),
        ).images
        return latents

    def image_to_image(
        self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return clean latents, denoised from ``latents`` with noise added. See the module for ``after_encoding``."""
        count = image_to_image_steps(self.info, sampling)
        batch = len(latents)
        pipeline = self._denoising_pipeline(
            StableDiffusionImg2ImgPipeline, StableDiffusionControlNetImg2ImgPipeline, sampling, control
        )
        dtype = pipeline.unet.dtype
        generators = generators_for(latents, sampling)
        result: torch.Tensor = pipeline(
            image=latents.to(self.device, dtype),
            strength=sampling.strength,
            **self._sampling_arguments(sampling, generators, progress, count),
            **self._prompt_arguments(prompts, batch),
            **self._control_arguments(control, batch, "control_image"),
        ).images
        return result

    def _prompt_arguments(self, prompts: Prompts, batch: int) -> dict[str, Any]:
        return {
            "prompt_embeds": self._rows(prompts.positive, batch).embeds,
            "negative_prompt_embeds": self._rows(prompts.negative, batch).embeds,
        }

    def _denoising_pipeline(self, plain: Any, controlled: Any, sampling: Sampling, control: Control | None) -> Any:
        """Build the pipeline with the UNet and the sampler; see `_pipeline_with_control`."""
        parts = {
            "unet": self._load("unet"),
            "scheduler": make_scheduler(self.info, sampling.sampler, seeds=sampling.seeds),
            "requires_safety_checker": False,
        }
        return self._pipeline_with_control(plain, controlled, control, parts)
