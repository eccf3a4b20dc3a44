"""What all families with a CLIP text encoder and an `AutoencoderKL` do alike: prompts, encoding, decoding.

The work is done by the pipelines of diffusers, put together from pooled components. A pipeline is given no more than it
needs for what it is asked to do, so that encoding a prompt never loads the UNet and denoising never loads the VAE.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from graphflow.nodes.diffusion.families import Encoded, Progress
from graphflow.nodes.diffusion.model_info import ModelInfo
from graphflow.nodes.diffusion.models import load_component, load_tokenizer, quiet
from graphflow.nodes.diffusion.tiling import in_tiles

with quiet():
    from diffusers import StableDiffusionPipeline
    from diffusers.image_processor import VaeImageProcessor

__all__ = ["ClipFamily", "DescribedVae", "generators", "skip_encoding", "step_callback"]


def generators(seed: int, count: int) -> list[torch.Generator]:
    """A fresh CPU generator for each item of a batch, item i seeded with ``seed + i`` (modulo 2**64)."""
    return [torch.Generator("cpu").manual_seed((seed + index) % 2**64) for index in range(count)]


def skip_encoding(draws: list[torch.Generator], latents: torch.Tensor, dtype: torch.dtype) -> None:
    """Draw and drop the noise with which ``encode_image`` sampled these latents from the same seeds."""
    for draw in draws:
        torch.randn((1, *latents.shape[1:]), generator=draw, dtype=dtype)


def step_callback(progress: Progress, total: int) -> Callable[..., dict[str, Any]]:
    """What a pipeline calls after each step, to tell that one of ``total`` is done."""

    def ended(pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        # A sampler of second order visits more timesteps than the steps that were asked for.
        progress(math.ceil((index + 1) * total / pipeline.num_timesteps), total)
        return values

    return ended


class DescribedVae:
    """As much of a VAE as an upscaling pipeline looks at when it neither encodes nor decodes: its configuration."""

    def __init__(self, info: ModelInfo, scaling_factor: float) -> None:
        self.config = SimpleNamespace(
            scaling_factor=scaling_factor,
            block_out_channels=info.configs["vae"]["block_out_channels"],
            latent_channels=info.latent_channels,
        )


class ClipFamily:
    """Runs one model on one device. Satisfies `graphflow.nodes.diffusion.families.Adapter`."""

    def __init__(self, info: ModelInfo, device: str, dtype: str) -> None:
        self.info, self.device, self.dtype = info, device, dtype

    @torch.no_grad()
    def encode_prompt(self, text: str) -> Encoded:
        """Embeddings (1, tokens, width). Raises ValueError for a prompt longer than the model's window."""
        tokenizer = self._tokenizer_for(text)
        pipeline = self._pipeline(
            StableDiffusionPipeline, text_encoder=self._load("text_encoder"), tokenizer=tokenizer,
            requires_safety_checker=False,
        )  # fmt: skip
        embeds, _ = pipeline.encode_prompt(
            prompt=text, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Encoded(embeds)

    def _tokenizer_for(self, text: str) -> Any:
        """The tokenizer, once it is known that the whole text fits the window of the text encoder."""
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
        return tokenizer

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
    def decode(self, latents: torch.Tensor, tile: int) -> torch.Tensor:
        """Pixels (batch, 3, height, width), float32 in [0, 1] on the CPU. Items are decoded one by one."""
        vae, cell = self._load("vae"), self.info.pixels_per_cell
        values = latents.to(self.device, vae.dtype) / vae.config.scaling_factor
        cells = max(tile // cell, 8)

        def decoded(item: torch.Tensor) -> torch.Tensor:
            return in_tiles(
                lambda rows, columns: vae.decode(item[:, :, rows, columns]).sample.float().cpu(),
                *item.shape[-2:], tile=cells, overlap=cells // 4, scale=cell,
            )  # fmt: skip

        items = [decoded(values[index : index + 1]) for index in range(len(values))]
        return (torch.cat(items) / 2 + 0.5).clamp(0, 1)

    def _load(self, name: str) -> Any:
        return load_component(self.info, name, self.device, self.dtype)

    def _pipeline(self, cls: Any, **arguments: Any) -> Any:
        """A pipeline of diffusers with the given arguments, and nothing for the other components it could have."""
        needed = inspect.signature(cls.__init__).parameters.values()
        absent = {each.name: None for each in needed if each.default is each.empty and each.name != "self"}
        with quiet():
            pipeline = cls(**{**absent, **arguments})
        # Without a VAE the pipeline takes a cell to be 8 pixels.
        pipeline.vae_scale_factor = self.info.pixels_per_cell
        pipeline.image_processor = VaeImageProcessor(
            vae_scale_factor=self.info.pixels_per_cell, vae_latent_channels=self.info.latent_channels
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _conditions(
        self, batch: int, positive: torch.Tensor, negative: torch.Tensor | None, *, one_each: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, int]:
        """Embeddings as the pipeline takes them, and how many pictures it makes for each row of them.

        With ``one_each`` there is a row for each picture even where all have the same prompt.
        """
        dtype = getattr(torch, self.dtype)
        rows = {len(embeds) for embeds in (positive, negative) if embeds is not None} - {1}
        if rows - {batch}:
            raise ValueError(f"found {max(rows)} encoded prompts for a batch of {batch}, expected 1 or {batch}")
        if rows or one_each:
            positive = positive.expand(batch, -1, -1)
            negative = None if negative is None else negative.expand(batch, -1, -1)
        unwanted = None if negative is None else negative.to(self.device, dtype)
        return positive.to(self.device, dtype), unwanted, 1 if rows or one_each else batch
