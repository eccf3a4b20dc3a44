"""sd-x2-latent-upscaler and models of its architecture: latents to latents of twice the height and width."""

from __future__ import annotations

import torch

from graphflow.nodes.diffusion.adapters.clip_family import ClipFamily
from graphflow.nodes.diffusion.adapters.denoising import DescribedVae
from graphflow.nodes.diffusion.adapters.noise import generators_for
from graphflow.nodes.diffusion.loading.components import make_scheduler, quiet
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT
from graphflow.nodes.diffusion.shared.adapters import Encoded, Progress, Prompts, Sampling, Warn

with quiet():
    from diffusers import StableDiffusionLatentUpscalePipeline

__all__ = ["LatentUpscaler"]


class LatentUpscaler(ClipFamily):
    """An `UpscaleAdapter` for one model on one device."""

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """Encode a prompt to embeddings before the last norm (1, tokens, width) and pooled ones (1, width).

        Raises ValueError for a prompt longer than the window.
        """
        tokenizer, encoder = self._tokenizer_for(text), self._load("text_encoder")
        pipeline = self._pipeline(
            StableDiffusionLatentUpscalePipeline,
            vae=DescribedVae(self.info),
            text_encoder=encoder,
            tokenizer=tokenizer,
        )
        embeds, _, pooled, _ = pipeline.encode_prompt(text, self.device, do_classifier_free_guidance=False)
        return Encoded(embeds, pooled)

    def upscale(self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, progress: Progress) -> torch.Tensor:
        """Return latents of the same pictures at twice the height and width.

        Raises ValueError for a prompt without pooled embeddings.
        """
        if any(prompt.pooled is None for prompt in prompts if prompt):
            raise ValueError("found a prompt without pooled embeddings; encode it with the upscaler's own model")
        unet, batch, steps = self._load("unet"), len(latents), sampling.steps
        pipeline = self._pipeline(
            StableDiffusionLatentUpscalePipeline,
            vae=DescribedVae(self.info),
            unet=unet,
            # Its preconditioning reads the noise levels of its own scheduler, so the sampler is fixed.
            scheduler=make_scheduler(self.info, DEFAULT),
        )
        result: torch.Tensor = pipeline(
            prompt=None,
            image=latents.to(self.device, unet.dtype),
            num_inference_steps=steps,
            guidance_scale=sampling.guidance_scale,
            generator=generators_for(latents, sampling),
            output_type="latent",
            callback=lambda index, timestep, values: progress(index + 1, steps),
            **self._prompt_arguments(prompts, batch),
        ).images
        return result
