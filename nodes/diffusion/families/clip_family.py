"""What all families with a CLIP text encoder and an `AutoencoderKL` do alike: prompts, encoding, decoding.

The work is done by the pipelines of diffusers, put together from pooled components. A pipeline is given no more than it
needs for what it is asked to do, so that encoding a prompt never loads the UNet and denoising never loads the VAE.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from graphflow import Compute
from graphflow.nodes.diffusion.families.adapters import Control, Encoded, Progress, Sampling
from graphflow.nodes.diffusion.model_info import ModelInfo
from graphflow.nodes.diffusion.models import load_component, load_tokenizer, quiet
from graphflow.nodes.diffusion.tiling import in_tiles

with quiet():
    from diffusers import StableDiffusionPipeline
    from diffusers.image_processor import VaeImageProcessor
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

__all__ = ["ClipFamily", "DescribedVae", "check_steps", "generators", "seeds", "skip_encoding", "step_callback"]


def seeds(seed: int, count: int) -> list[int]:
    """The seed of each item of a batch, ``seed + i`` (modulo 2**64)."""
    return [(seed + index) % 2**64 for index in range(count)]


def generators(seed: int, count: int) -> list[torch.Generator]:
    """A fresh CPU generator for each item of a batch, seeded with `seeds`."""
    return [torch.Generator("cpu").manual_seed(each) for each in seeds(seed, count)]


def skip_encoding(draws: list[torch.Generator], latents: torch.Tensor, dtype: torch.dtype) -> None:
    """Draw and drop the noise with which ``encode_image`` sampled these latents from the same seeds."""
    for draw in draws:
        torch.randn((1, *latents.shape[1:]), generator=draw, dtype=dtype)


def check_steps(count: int, sampling: Sampling) -> None:
    """Raises ValueError where nothing would be denoised: a pipeline gives back an empty batch without a word."""
    if count == 0:
        raise ValueError(
            f"found strength {sampling.strength:g} of {sampling.steps} steps, which is 0 denoise steps; expected at "
            "least 1"
        )


def scaled(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Latents as an autoencoder makes them, scaled as the pipelines of diffusers take them; ``config`` is its own."""
    mean, deviation = _statistics(latents, config)
    result: torch.Tensor = (latents - mean) * config.scaling_factor / deviation
    return result


def unscaled(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """The reverse of `scaled`."""
    mean, deviation = _statistics(latents, config)
    result: torch.Tensor = latents * deviation / config.scaling_factor + mean
    return result


def _statistics(latents: torch.Tensor, config: Any) -> tuple[Any, Any]:
    """What is taken off before scaling, and what is divided by: a few autoencoders tell it for each channel."""
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or deviation is None:
        return getattr(config, "shift_factor", None) or 0.0, 1.0
    return latents.new_tensor(mean).view(1, -1, 1, 1), latents.new_tensor(deviation).view(1, -1, 1, 1)


def step_callback(progress: Progress, total: int | None = None) -> Callable[..., dict[str, Any]]:
    """What a pipeline calls after each step, to tell that one of ``total`` is done; None is as many as it has."""

    def ended(pipeline: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        # A sampler of second order visits more timesteps than the steps that were asked for.
        count = total or pipeline.num_timesteps
        progress(math.ceil((index + 1) * count / pipeline.num_timesteps), count)
        return values

    return ended


class DescribedVae:
    """As much of a VAE as an upscaling pipeline looks at when it neither encodes nor decodes: its configuration."""

    def __init__(self, info: ModelInfo, scaling_factor: float) -> None:
        self.config = SimpleNamespace(
            scaling_factor=scaling_factor,
            block_out_channels=info.autoencoder["block_out_channels"],
            latent_channels=info.latent_channels,
        )


class ClipFamily:
    """Runs one model on one device. Satisfies `adapters.Adapter`."""

    def __init__(self, info: ModelInfo, compute: Compute) -> None:
        self.info, self.compute, self.device, self.dtype = info, compute, compute.device, compute.dtype

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool) -> Encoded:
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

    def _tokenizer_for(self, text: str, name: str = "tokenizer") -> Any:
        """A tokenizer, once it is known that the whole text fits the window of the text encoder."""
        tokenizer = load_tokenizer(self.info, name)
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
    def encode_image(self, pixels: torch.Tensor, seed: int | None, tile: int) -> torch.Tensor:
        """Latents of pixels (batch, 3, height, width) in [0, 1]: a sample of the posterior, or its mode for None.

        Tiles are mixed before the sample is drawn, so it takes the same noise as that of the whole picture.
        """
        cell = self.info.pixels_per_cell
        height, width = pixels.shape[-2:]
        if height % cell or width % cell:
            raise ValueError(
                f"found an image of {width} x {height} pixels, expected multiples of {cell}; put a ResizeImage with "
                f"multiple {cell} before it"
            )
        autoencoder = self._load(self.info.family.autoencoder)
        values = 2 * pixels.to(self.device, autoencoder.dtype) - 1
        draws = generators(seed, len(values)) if seed is not None else []
        cells = max(tile // cell, 8)

        def encoded(item: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
            part = item[:, :, rows.start * cell : rows.stop * cell, columns.start * cell : columns.stop * cell]
            return self._encoded(autoencoder, part)

        items = []
        for index in range(len(values)):  # one by one, as the pipeline does it: an item must not depend on its batch
            moments = in_tiles(
                functools.partial(encoded, values[index : index + 1]),
                height // cell, width // cell, tile=cells, overlap=cells // 4,
            )  # fmt: skip
            items.append(self._drawn(autoencoder, moments, draws[index] if draws else None))
        return torch.cat(items)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, tile: int) -> torch.Tensor:
        """Pixels (batch, 3, height, width), float32 in [0, 1] on the CPU. Items are decoded one by one."""
        autoencoder, cell = self._load(self.info.family.autoencoder), self.info.pixels_per_cell
        values = latents.to(self.device, autoencoder.dtype)
        cells = max(tile // cell, 8)

        def decoded(item: torch.Tensor) -> torch.Tensor:
            return in_tiles(
                lambda rows, columns: self._decoded(autoencoder, item[:, :, rows, columns]).float().cpu(),
                *item.shape[-2:], tile=cells, overlap=cells // 4, scale=cell,
            )  # fmt: skip

        items = [decoded(values[index : index + 1]) for index in range(len(values))]
        return (torch.cat(items) / 2 + 0.5).clamp(0, 1)

    def _encoded(self, autoencoder: Any, pixels: torch.Tensor) -> torch.Tensor:
        """What the autoencoder says of a tile of pixels in [-1, 1]: the parameters of a distribution."""
        moments: torch.Tensor = autoencoder.encode(pixels).latent_dist.parameters
        return moments

    def _drawn(self, autoencoder: Any, moments: torch.Tensor, draw: torch.Generator | None) -> torch.Tensor:
        """Latents of what `_encoded` gave."""
        posterior = DiagonalGaussianDistribution(moments)
        return scaled(posterior.sample(draw) if draw else posterior.mode(), autoencoder.config)

    def _decoded(self, autoencoder: Any, latents: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1] of a tile of latents."""
        pixels: torch.Tensor = autoencoder.decode(unscaled(latents, autoencoder.config)).sample
        return pixels

    def _load(self, name: str) -> Any:
        return load_component(self.info, name, self.compute)

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

    def _rows(self, prompt: Encoded | None, batch: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """A prompt's embeddings and what is pooled of it, a row for each picture, as the denoiser takes them."""

        def rows(values: torch.Tensor | None) -> torch.Tensor | None:
            if values is None:
                return None
            if len(values) not in (1, batch):
                raise ValueError(f"found {len(values)} encoded prompts for a batch of {batch}, expected 1 or {batch}")
            return values.expand(batch, *values.shape[1:]).to(self.device, getattr(torch, self.dtype))

        return (rows(prompt.embeds), rows(prompt.pooled)) if prompt else (None, None)

    def _control(self, control: Control | None, batch: int, name: str) -> dict[str, Any]:
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
