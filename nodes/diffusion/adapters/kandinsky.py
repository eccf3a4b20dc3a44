"""Kandinsky 2.2 (Razzhigaev et al. 2023): a prior predicts the embedding of a picture, a decoder draws it.

Latents are those of the MoVQ autoencoder, without a scaling factor. `KandinskyV22Img2ImgPipeline` takes pixels only,
always encodes them, and swaps their height and width when it resizes them. Here encoding is a step of its own, so the
pipeline gets latents and a stand-in for the autoencoder that returns them unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.adapters.clip_family import ClipFamily
from graphflow.nodes.diffusion.adapters.denoising import DescribedVae, image_to_image_steps, step_callback
from graphflow.nodes.diffusion.adapters.noise import generators_from
from graphflow.nodes.diffusion.loading.components import make_scheduler, quiet
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT
from graphflow.nodes.diffusion.shared.adapters import Control, Encoded, Progress, Prompts, Sampling

with quiet():
    from diffusers import KandinskyV22Img2ImgPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline

__all__ = ["Kandinsky"]


class Kandinsky(ClipFamily):
    """A `TextToImageAdapter` and `PriorAdapter` for one Kandinsky 2.2 model on one device."""

    def imagine(self, text: str, negative_text: str, sampling: Sampling, progress: Progress) -> tuple[Encoded, Encoded]:
        """Run the prior once per seed: embeddings (seeds, width) of pictures of ``text``, and the negative ones.

        Raises ValueError for a text longer than the window of the text encoder.
        """
        for each in (text, negative_text):
            tokenizer = self._tokenizer_for(each)
        pipeline = self._pipeline(
            KandinskyV22PriorPipeline,
            prior=self._load("prior"),
            text_encoder=self._load("text_encoder"),
            image_encoder=self._load("image_encoder"),
            tokenizer=tokenizer,
            scheduler=make_scheduler(self.info, DEFAULT, name="prior_scheduler"),
        )
        positive, negative = [], []
        total = sampling.steps * len(sampling.seeds)
        for index, generator in enumerate(generators_from(sampling.seeds)):
            # One by one: for a batch of one prompt the pipeline draws all noise from the first generator.
            ended = step_callback(_after(progress, index * sampling.steps, total), sampling.steps)
            wanted, unwanted = pipeline(
                prompt=text,
                negative_prompt=negative_text or None,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                generator=generator,
                callback_on_step_end=ended,
                return_dict=False,
            )
            positive.append(wanted)
            negative.append(unwanted)
        return Encoded(torch.cat(positive)), Encoded(torch.cat(negative))

    def text_to_image(
        self, shape: Sequence[int], prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return clean latents of ``shape``, denoised from pure noise."""
        batch = shape[0]
        pipeline = self._pipeline(
            KandinskyV22Pipeline,
            unet=self._load("unet"),
            scheduler=make_scheduler(self.info, sampling.sampler),
            movq=DescribedVae(self.info),
        )
        latents: torch.Tensor = pipeline(
            **self._size_arguments(shape),
            **self._sampling_arguments(sampling, generators_from(sampling.seeds), progress, sampling.steps),
            **self._prompt_arguments(prompts, batch),
        ).images
        return latents

    def image_to_image(
        self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return clean latents, denoised from ``latents`` with noise added."""
        count = image_to_image_steps(self.info, sampling)
        unet, batch = self._load("unet"), len(latents)
        pipeline = self._pipeline(
            KandinskyV22Img2ImgPipeline,
            unet=unet,
            scheduler=make_scheduler(self.info, sampling.sampler),
            movq=_IdentityVae(self.info),
        )
        result: torch.Tensor = pipeline(
            image=latents.to(self.device, unet.dtype),
            strength=sampling.strength,
            **self._sampling_arguments(sampling, generators_from(sampling.seeds), progress, count),
            **self._prompt_arguments(prompts, batch),
        ).images
        return result

    def _encoded(self, autoencoder: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Encode a tile of pixels to latents before quantisation: there is no distribution to sample."""
        latents: torch.Tensor = autoencoder.encode(pixels).latents
        return latents

    def _latents_of(self, autoencoder: Any, moments: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        return moments

    def _decoded(self, autoencoder: Any, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = autoencoder.decode(latents, force_not_quantize=True).sample
        return pixels

    def _prompt_arguments(self, prompts: Prompts, batch: int) -> dict[str, Any]:
        embeds = self._rows(prompts.positive, batch).embeds
        # Without guidance the pipelines use the positive embedding only, but require both.
        unwanted = self._rows(prompts.negative, batch).embeds if prompts.negative else embeds
        return {"image_embeds": embeds, "negative_image_embeds": unwanted}


class _IdentityVae(DescribedVae):
    """A stand-in for the autoencoder whose ``encode`` returns its argument, which is latents already."""

    def encode(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"latents": latents}


def _after(progress: Progress, done: int, total: int) -> Progress:
    """Return the progress callback of one of several runs: it reports to ``progress`` after ``done`` earlier steps."""
    return lambda step, _: progress(done + step, total)
