"""Kandinsky 2.2 (Razzhigaev et al. 2023): a prior imagines the embedding of a picture, a decoder draws it.

Latents are those of the MoVQ autoencoder, to which no factor is applied. `KandinskyV22Img2ImgPipeline` takes pixels
only, always encodes them, and swaps their height and width when it resizes them. Here encoding is a step of its own,
and the pipeline is given latents together with a stand-in for the autoencoder that hands them through.
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
    """Runs one model on one device: a `TextToImageAdapter` and a `PriorAdapter`."""

    def imagine(self, text: str, negative_text: str, sampling: Sampling, progress: Progress) -> tuple[Encoded, Encoded]:
        """Embeddings (seeds, width) of pictures that show ``text``, and of what to be guided away from."""
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
            # One by one: a batch of one prompt draws all of its noise from the first generator.
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
        """Clean latents of ``shape``, from pure noise."""
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
        """Clean latents, from ``latents`` with noise added."""
        count = image_to_image_steps(self.info, sampling)
        unet, batch = self._load("unet"), len(latents)
        pipeline = self._pipeline(
            KandinskyV22Img2ImgPipeline,
            unet=unet,
            scheduler=make_scheduler(self.info, sampling.sampler),
            movq=_HandsThrough(self.info),
        )
        result: torch.Tensor = pipeline(
            image=latents.to(self.device, unet.dtype),
            strength=sampling.strength,
            **self._sampling_arguments(sampling, generators_from(sampling.seeds), progress, count),
            **self._prompt_arguments(prompts, batch),
        ).images
        return result

    def _encoded(self, autoencoder: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Latents before they are quantised: nothing is drawn."""
        latents: torch.Tensor = autoencoder.encode(pixels).latents
        return latents

    def _latents_of(self, autoencoder: Any, moments: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        return moments

    def _decoded(self, autoencoder: Any, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = autoencoder.decode(latents, force_not_quantize=True).sample
        return pixels

    def _prompt_arguments(self, prompts: Prompts, batch: int) -> dict[str, Any]:
        embeds = self._rows(prompts.positive, batch).embeds
        # Without guidance the pipelines look at the first only, but want both.
        unwanted = self._rows(prompts.negative, batch).embeds if prompts.negative else embeds
        return {"image_embeds": embeds, "negative_image_embeds": unwanted}


class _HandsThrough(DescribedVae):
    """Stands in for the autoencoder of a pipeline that encodes what is encoded already."""

    def encode(self, latents: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"latents": latents}


def _after(progress: Progress, done: int, total: int) -> Progress:
    """Progress of one of several runs, told as that of all of them."""
    return lambda step, _: progress(done + step, total)
