"""The work shared by the families with a diffusion transformer: SD3, FLUX and Z-Image.

Both pipelines of such a family take the transformer, a scheduler of flow matching and the configuration of a VAE, and
are called with the same arguments. As in `stable_diffusion`, encoding a picture and adding noise are separate steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from graphflow.nodes.diffusion.adapters.autoencoder_family import AutoencoderFamily
from graphflow.nodes.diffusion.adapters.denoising import DescribedVae, check_cells, image_to_image_steps
from graphflow.nodes.diffusion.adapters.noise import generators_for, generators_from
from graphflow.nodes.diffusion.loading.components import make_scheduler
from graphflow.nodes.diffusion.shared.adapters import Control, Progress, Prompts, Sampling

__all__ = ["TransformerFamily"]


class TransformerFamily(AutoencoderFamily):
    """Base of adapters with a transformer: all of `TextToImageAdapter` but `encode_prompt`."""

    text_pipeline: ClassVar[Any]
    """The text-to-image pipeline of diffusers."""
    image_pipeline: ClassVar[Any]
    """The image-to-image pipeline of diffusers."""

    def text_to_image(
        self, shape: Sequence[int], prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return clean latents of ``shape``, denoised from pure noise."""
        pipeline = self._denoising_pipeline(self.text_pipeline, sampling)
        answer = pipeline(
            **self._size_arguments(shape),
            **self._sampling_arguments(sampling, generators_from(sampling.seeds), progress, sampling.steps),
            **self._prompt_arguments(prompts, shape[0]),
        ).images
        return self._unpacked(pipeline, answer, shape)

    def image_to_image(
        self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return clean latents, denoised from ``latents`` with noise added. See `stable_diffusion` for the noise."""
        count = image_to_image_steps(self.info, sampling)
        check_cells(latents, self.info)
        pipeline = self._denoising_pipeline(self.image_pipeline, sampling)
        dtype = pipeline.transformer.dtype
        answer = pipeline(
            image=latents.to(self.device, dtype),
            strength=sampling.strength,
            **self._size_arguments(latents.shape),
            **self._sampling_arguments(sampling, generators_for(latents, sampling), progress, count),
            **self._prompt_arguments(prompts, len(latents)),
        ).images
        return self._unpacked(pipeline, answer, latents.shape)

    def _unpacked(self, pipeline: Any, answer: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Return latents of ``shape`` from the output of the pipeline."""
        return answer

    def _denoising_pipeline(self, cls: Any, sampling: Sampling) -> Any:
        return self._pipeline(
            cls,
            transformer=self._load("transformer"),
            vae=DescribedVae(self.info),
            scheduler=make_scheduler(self.info, sampling.sampler),
        )
