"""Stable Diffusion 1.x and 2.x, and every model of the same architecture: text-to-image and image-to-image.

The work is done by the pipelines of diffusers, put together from pooled components and called with explicit arguments
only: their ``__call__`` swallows a misspelt keyword. A pipeline is given no more than it needs for what it is asked to
do, so that encoding a prompt never loads the UNet and denoising never loads the VAE.

Noise and the VAE's sample. ``StableDiffusionImg2ImgPipeline`` called with pixels draws twice from one generator: first
the sample of the VAE's posterior, then the noise. Here the two are separate steps. `encode_image` takes the first draw
from ``seed``, and `image_to_image` told ``after_encoding=True`` repeats and drops that draw before it draws the noise.
So the result is the one of the pipeline, while both steps depend on nothing but their parameters and can be cached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.checks import denoise_steps
from graphflow.nodes.diffusion.families import Progress
from graphflow.nodes.diffusion.model_info import ModelInfo
from graphflow.nodes.diffusion.models import load_component, load_tokenizer, make_scheduler, quiet

with quiet():
    from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
    from diffusers.image_processor import VaeImageProcessor

__all__ = ["StableDiffusion", "generators"]


def generators(seed: int, count: int) -> list[torch.Generator]:
    """A fresh CPU generator for each item of a batch, item i seeded with ``seed + i`` (modulo 2**64)."""
    return [torch.Generator("cpu").manual_seed((seed + index) % 2**64) for index in range(count)]


class StableDiffusion:
    """Runs one model of the family on one device. Satisfies `graphflow.nodes.diffusion.families.Adapter`."""

    def __init__(self, info: ModelInfo, device: str, dtype: str) -> None:
        self.info, self.device, self.dtype = info, device, dtype

    @torch.no_grad()
    def encode_prompt(self, text: str) -> torch.Tensor:
        """Embeddings (1, tokens, width). Raises ValueError for a prompt longer than the model's window."""
        tokenizer = load_tokenizer(self.info)
        window = min(self.info.prompt_window, tokenizer.model_max_length)
        markers = tokenizer.num_special_tokens_to_add()
        with quiet():
            count = len(tokenizer(text, truncation=False).input_ids) - markers
        if count > window - markers:
            raise ValueError(
                f"found a prompt of {count} tokens, expected at most {window - markers} for the model "
                f'"{self.info.reference}": "{text if len(text) <= 60 else text[:59] + "…"}"; shorten it, for its end '
                "would be cut off"
            )
        pipeline = self._pipeline(StableDiffusionPipeline, text_encoder=self._load("text_encoder"), tokenizer=tokenizer)
        embeds, _ = pipeline.encode_prompt(
            prompt=text, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        result: torch.Tensor = embeds
        return result

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor, seed: int | None) -> torch.Tensor:
        """Latents of pixels (batch, 3, height, width) in [0, 1]: a sample of the posterior, or its mode for None."""
        cell = self.info.pixels_per_cell
        height, width = pixels.shape[-2:]
        if height % cell or width % cell:
            raise ValueError(
                f"found an image of {width} x {height} pixels, expected multiples of {cell}; put a ResizeImage with "
                f"multiple {cell} before it"
            )
        vae = self._load("vae")
        values = 2 * pixels.to(self.device, vae.dtype) - 1
        draws = generators(seed, len(values)) if seed is not None else []
        items = []
        for index in range(len(values)):  # one by one, as the pipeline does it: an item must not depend on its batch
            posterior = vae.encode(values[index : index + 1]).latent_dist
            items.append(posterior.sample(draws[index]) if draws else posterior.mode())
        scaled: torch.Tensor = vae.config.scaling_factor * torch.cat(items)
        return scaled

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (batch, 3, height, width), float32 in [0, 1] on the CPU. Items are decoded one by one."""
        vae = self._load("vae")
        values = latents.to(self.device, vae.dtype) / vae.config.scaling_factor
        items = [vae.decode(values[index : index + 1]).sample for index in range(len(values))]
        return (torch.cat(items).float().cpu() / 2 + 0.5).clamp(0, 1)

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
        progress: Progress,
    ) -> torch.Tensor:
        """Clean latents of ``shape``, from pure noise."""
        batch, _, rows, columns = shape
        unet, scheduler = self._load("unet"), make_scheduler(self.info, sampler)
        pipeline = self._pipeline(StableDiffusionPipeline, unet=unet, scheduler=scheduler)
        embeds, unwanted, each = self._conditions(batch, positive, negative)
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
            callback_on_step_end=_step_callback(progress, steps),
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
        progress: Progress,
    ) -> torch.Tensor:
        """Clean latents, from ``latents`` with noise added. See the module for ``after_encoding``."""
        count = denoise_steps(steps, strength)
        if count == 0:
            # the pipeline would give back an empty batch without a word
            raise ValueError(
                f"found strength {strength:g} of {steps} steps, which is 0 denoise steps; expected at least 1"
            )
        unet, scheduler = self._load("unet"), make_scheduler(self.info, sampler)
        pipeline = self._pipeline(StableDiffusionImg2ImgPipeline, unet=unet, scheduler=scheduler)
        batch = len(latents)
        embeds, unwanted, each = self._conditions(batch, positive, negative)
        draws = generators(seed, batch)
        if after_encoding:
            for draw in draws:
                torch.randn((1, *latents.shape[1:]), generator=draw, dtype=unet.dtype)
        result: torch.Tensor = pipeline(
            image=latents.to(self.device, unet.dtype),
            prompt_embeds=embeds,
            negative_prompt_embeds=unwanted,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=each,
            generator=draws,
            output_type="latent",
            callback_on_step_end=_step_callback(progress, count),
        ).images
        return result

    def _load(self, name: str) -> Any:
        return load_component(self.info, name, self.device, self.dtype)

    def _pipeline(self, cls: Any, **components: Any) -> Any:
        """A pipeline of diffusers that has only the given components."""
        names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "safety_checker", "feature_extractor")
        with quiet():
            pipeline = cls(**{name: components.get(name) for name in names}, requires_safety_checker=False)
        # Without a VAE the pipeline takes a cell to be 8 pixels.
        pipeline.vae_scale_factor = self.info.pixels_per_cell
        pipeline.image_processor = VaeImageProcessor(
            vae_scale_factor=self.info.pixels_per_cell, vae_latent_channels=self.info.latent_channels
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _conditions(
        self, batch: int, positive: torch.Tensor, negative: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        """Embeddings as the pipeline takes them, and how many pictures it makes for each row of them."""
        dtype = getattr(torch, self.dtype)
        rows = {len(embeds) for embeds in (positive, negative) if embeds is not None} - {1}
        if rows - {batch}:
            raise ValueError(f"found {max(rows)} encoded prompts for a batch of {batch}, expected 1 or {batch}")
        if rows:  # one of them has a row for each item
            positive = positive.expand(batch, -1, -1)
            negative = None if negative is None else negative.expand(batch, -1, -1)
        unwanted = None if negative is None else negative.to(self.device, dtype)
        return positive.to(self.device, dtype), unwanted, 1 if rows else batch


def _step_callback(progress: Progress, total: int) -> Callable[..., dict[str, Any]]:
    def ended(pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        # A sampler of second order visits more timesteps than the steps that were asked for.
        progress(math.ceil((index + 1) * total / pipeline.num_timesteps), total)
        return values

    return ended
