"""The work shared by all families with an autoencoder: encoding, decoding, building pipelines.

The pipelines of diffusers do the computing, built from pooled components. Each gets only the components that its task
needs, so that encoding a prompt never loads the denoiser and denoising never loads the autoencoder.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from graphflow import Compute
from graphflow.nodes.diffusion.adapters.denoising import step_callback
from graphflow.nodes.diffusion.adapters.noise import generators_from
from graphflow.nodes.diffusion.loading.components import load_component, quiet
from graphflow.nodes.diffusion.loading.tiling import in_tiles
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.noise import seeds_from
from graphflow.nodes.diffusion.shared.adapters import Encoded, Progress, Prompts, Sampling

with quiet():
    from diffusers.image_processor import VaeImageProcessor
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

__all__ = ["AutoencoderFamily"]


def scaled(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Scale an autoencoder's latents to the range that the pipelines of diffusers expect; ``config`` is its own."""
    mean, deviation = _statistics(latents, config)
    result: torch.Tensor = (latents - mean) * config.scaling_factor / deviation
    return result


def unscaled(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Undo `scaled`."""
    mean, deviation = _statistics(latents, config)
    result: torch.Tensor = latents * deviation / config.scaling_factor + mean
    return result


def _statistics(latents: torch.Tensor, config: Any) -> tuple[Any, Any]:
    """Return the mean to subtract and the deviation to divide by: per channel where the configuration has them."""
    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or deviation is None:
        return getattr(config, "shift_factor", None) or 0.0, 1.0
    return latents.new_tensor(mean).view(1, -1, 1, 1), latents.new_tensor(deviation).view(1, -1, 1, 1)


@functools.cache
def _needed(cls: Any) -> tuple[str, ...]:
    """Return the names of the components without which a pipeline cannot be built."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return tuple(each.name for each in parameters if each.default is each.empty and each.name != "self")


class Rows(NamedTuple):
    """The parts of an encoded prompt, with one row per picture, as a denoiser takes them; see `Encoded`."""

    embeds: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None


class AutoencoderFamily:
    """Base of the adapters, each of which runs one model on one device: all of `Adapter` but `encode_prompt`."""

    def __init__(self, info: ModelInfo, compute: Compute) -> None:
        self.info, self.compute, self.device, self.dtype = info, compute, compute.device, compute.dtype

    @torch.no_grad()
    def encode_image(self, pixels: torch.Tensor, seed: int | None, tile: int) -> torch.Tensor:
        """Encode pixels (batch, 3, height, width) in [0, 1] to latents (batch, channels, rows, columns).

        They are a sample of the posterior drawn from ``seed + i`` for item i, or its mode where ``seed`` is None. A
        picture larger than ``tile`` pixels is encoded in tiles, blended before the sample is drawn, so that the noise
        is that of the whole picture. Raises ValueError for a width or height that the model cannot take.
        """
        cell, multiple = self.info.pixels_per_cell, self.info.image_multiple
        height, width = pixels.shape[-2:]
        if height % multiple or width % multiple:
            raise ValueError(
                f"found an image of {width} x {height} pixels, expected multiples of {multiple}; put a ResizeImage "
                f"with multiple {multiple} before it"
            )
        autoencoder = self._load(self.info.family.autoencoder)
        values = (2 * pixels.to(self.device) - 1).to(autoencoder.dtype)
        generators = generators_from(seeds_from(seed, len(values))) if seed is not None else []
        cells = max(tile // cell, 8)

        def encoded(item: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
            part = item[:, :, rows.start * cell : rows.stop * cell, columns.start * cell : columns.stop * cell]
            return self._encoded(autoencoder, part)

        items = []
        for index in range(len(values)):  # one by one, as in the pipeline: an item must not depend on its batch
            moments = in_tiles(
                functools.partial(encoded, values[index : index + 1]),
                height // cell, width // cell, tile=cells, overlap=cells // 4,
            )  # fmt: skip
            items.append(self._latents_of(autoencoder, moments, generators[index] if generators else None))
        return torch.cat(items)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, tile: int) -> torch.Tensor:
        """Decode latents to pixels (batch, 3, height, width), float32 in [0, 1] on the CPU, one item at a time."""
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
        """Encode a tile of pixels in [-1, 1] to the parameters of the posterior."""
        moments: torch.Tensor = autoencoder.encode(pixels).latent_dist.parameters
        return moments

    def _latents_of(self, autoencoder: Any, moments: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Return scaled latents from the result of `_encoded`: a sample, or the mode without a generator."""
        posterior = DiagonalGaussianDistribution(moments)
        return scaled(posterior.sample(generator) if generator else posterior.mode(), autoencoder.config)

    def _decoded(self, autoencoder: Any, latents: torch.Tensor) -> torch.Tensor:
        """Decode a tile of scaled latents to pixels in [-1, 1]."""
        pixels: torch.Tensor = autoencoder.decode(unscaled(latents, autoencoder.config)).sample
        return pixels

    def _load(self, name: str) -> Any:
        return load_component(self.info, name, self.compute)

    def _pipeline(self, cls: Any, **arguments: Any) -> Any:
        """Build a pipeline of diffusers from the given components, with None for the others that it requires."""
        with quiet():
            pipeline = cls(**{**dict.fromkeys(_needed(cls)), **arguments})
        # Without a VAE the pipeline assumes 8 pixels per cell.
        pipeline.vae_scale_factor = self.info.pixels_per_cell
        pipeline.image_processor = VaeImageProcessor(
            vae_scale_factor=self.info.pixels_per_cell, vae_latent_channels=self.info.latent_channels
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _sampling_arguments(
        self, sampling: Sampling, generators: list[torch.Generator], progress: Progress, total: int | None = None
    ) -> dict[str, Any]:
        """Return the sampling arguments of every pipeline, with latents as output; ``total`` as in `step_callback`."""
        return {
            "num_inference_steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
            "generator": generators,
            "output_type": "latent",
            "callback_on_step_end": step_callback(progress, total),
        }

    def _size_arguments(self, shape: Sequence[int]) -> dict[str, int]:
        """Return the width and height, in pixels, of latents of a shape."""
        cell = self.info.pixels_per_cell
        return {"width": shape[-1] * cell, "height": shape[-2] * cell}

    def _prompt_arguments(self, prompts: Prompts, batch: int) -> dict[str, Any]:
        """Return the embeddings and pooled embeddings of both prompts, under the names that most pipelines use."""
        positive, negative = self._rows(prompts.positive, batch), self._rows(prompts.negative, batch)
        return {
            "prompt_embeds": positive.embeds,
            "pooled_prompt_embeds": positive.pooled,
            "negative_prompt_embeds": negative.embeds,
            "negative_pooled_prompt_embeds": negative.pooled,
        }

    def _rows(self, prompt: Encoded | None, batch: int) -> Rows:
        """Return a prompt with one row per picture, on the device and in its dtype; `Rows()` for None.

        Raises ValueError where the number of encoded prompts is neither 1 nor ``batch``.
        """

        def rows(values: torch.Tensor | None) -> torch.Tensor | None:
            if values is None:
                return None
            if len(values) not in (1, batch):
                raise ValueError(f"found {len(values)} encoded prompts for a batch of {batch}, expected 1 or {batch}")
            return values.expand(batch, *values.shape[1:]).to(self.device, getattr(torch, self.dtype))

        return Rows(*map(rows, prompt)) if prompt else Rows()
