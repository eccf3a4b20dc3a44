"""Stable Diffusion 1.x and 2.x, and every model of the same architecture: text-to-image and image-to-image.

The pipelines of diffusers do the work, called with explicit arguments only: their ``__call__`` swallows a misspelt
keyword. With a `Control` it is their ControlNet twins.

Noise and the VAE's sample. ``StableDiffusionImg2ImgPipeline`` called with pixels draws twice from one generator: first
the sample of the VAE's posterior, then the noise. Here the two are separate steps. `encode_image` takes the first draw
from ``seed``, and `image_to_image` told ``after_encoding=True`` repeats and drops that draw before it draws the noise.
So the result is the one of the pipeline, while both steps depend on nothing but their parameters and can be cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.checks import denoise_steps
from graphflow.nodes.diffusion.families import Control, Progress
from graphflow.nodes.diffusion.families.clip_family import ClipFamily, generators, skip_encoding, step_callback
from graphflow.nodes.diffusion.models import load_network, make_scheduler, quiet

with quiet():
    from diffusers import (
        StableDiffusionControlNetImg2ImgPipeline,
        StableDiffusionControlNetPipeline,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionPipeline,
    )
    from diffusers.image_processor import VaeImageProcessor

__all__ = ["StableDiffusion"]


class StableDiffusion(ClipFamily):
    """Runs one model of the family on one device. Satisfies `graphflow.nodes.diffusion.families.Draws`."""

    def text_to_image(
        self,
        *,
        shape: Sequence[int],
        positive: torch.Tensor,
        negative: torch.Tensor | None,
        steps: int,
        guidance_scale: float,
        seed: int,
        sampler: str,
        control: Control | None,
        progress: Progress,
    ) -> torch.Tensor:
        """Clean latents of ``shape``, from pure noise."""
        batch, _, rows, columns = shape
        scheduler = make_scheduler(self.info, sampler)
        pipeline = self._drawing(StableDiffusionPipeline, StableDiffusionControlNetPipeline, scheduler, control)
        embeds, unwanted, each = self._conditions(batch, positive, negative, one_each=control is not None)
        latents: torch.Tensor = pipeline(
            prompt_embeds=embeds,
            negative_prompt_embeds=unwanted,
            width=columns * self.info.pixels_per_cell,
            height=rows * self.info.pixels_per_cell,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=each,
            generator=generators(seed, batch),
            output_type="latent",
            callback_on_step_end=step_callback(progress, steps),
            **self._controlled(control, batch, "image"),
        ).images
        return latents

    def image_to_image(
        self,
        *,
        latents: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor | None,
        steps: int,
        guidance_scale: float,
        strength: float,
        seed: int,
        sampler: str,
        after_encoding: bool,
        control: Control | None,
        progress: Progress,
    ) -> torch.Tensor:
        """Clean latents, from ``latents`` with noise added. See the module for ``after_encoding``."""
        count = denoise_steps(steps, strength)
        if count == 0:
            # the pipeline would give back an empty batch without a word
            raise ValueError(
                f"found strength {strength:g} of {steps} steps, which is 0 denoise steps; expected at least 1"
            )
        scheduler = make_scheduler(self.info, sampler)
        pipeline = self._drawing(
            StableDiffusionImg2ImgPipeline, StableDiffusionControlNetImg2ImgPipeline, scheduler, control
        )
        batch, dtype = len(latents), pipeline.unet.dtype
        embeds, unwanted, each = self._conditions(batch, positive, negative, one_each=control is not None)
        draws = generators(seed, batch)
        if after_encoding:
            skip_encoding(draws, latents, dtype)
        result: torch.Tensor = pipeline(
            image=latents.to(self.device, dtype),
            prompt_embeds=embeds,
            negative_prompt_embeds=unwanted,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=each,
            generator=draws,
            output_type="latent",
            callback_on_step_end=step_callback(progress, count),
            **self._controlled(control, batch, "control_image"),
        ).images
        return result

    def _drawing(self, plain: Any, controlled: Any, scheduler: Any, control: Control | None) -> Any:
        """The pipeline of class ``plain``, or with a ControlNet of class ``controlled``."""
        parts = {"unet": self._load("unet"), "scheduler": scheduler, "requires_safety_checker": False}
        if control is None:
            return self._pipeline(plain, **parts)
        network = load_network(control.network.component, control.network.cls, self.device, self.dtype)
        pipeline = self._pipeline(controlled, controlnet=network, **parts)
        pipeline.control_image_processor = VaeImageProcessor(
            vae_scale_factor=self.info.pixels_per_cell, do_convert_rgb=True, do_normalize=False
        )
        return pipeline

    def _controlled(self, control: Control | None, batch: int, name: str) -> dict[str, Any]:
        """The arguments that a pipeline takes for a ControlNet: one control picture for all, or one for each."""
        if control is None:
            return {}
        pixels = control.pixels.to(self.device, getattr(torch, self.dtype))
        if len(pixels) not in (1, batch):
            raise ValueError(f"found {len(pixels)} depth maps for a batch of {batch}, expected 1 or {batch}")
        return {
            name: pixels,
            "controlnet_conditioning_scale": control.scale,
            "control_guidance_start": control.start,
            "control_guidance_end": control.end,
        }
