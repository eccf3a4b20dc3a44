"""sd-x2-latent-upscaler and models of its architecture: latents to latents of twice the height and width."""

from __future__ import annotations

import torch

from graphflow.nodes.diffusion.families import Encoded, Progress
from graphflow.nodes.diffusion.families.clip_family import ClipFamily, DescribedVae, generators, skip_encoding
from graphflow.nodes.diffusion.models import make_scheduler, quiet
from graphflow.nodes.diffusion.samplers import DEFAULT

with quiet():
    from diffusers import StableDiffusionLatentUpscalePipeline

__all__ = ["LatentUpscaler"]


class LatentUpscaler(ClipFamily):
    """Runs one model of the family on one device. Satisfies `graphflow.nodes.diffusion.families.Upscales`."""

    @torch.no_grad()
    def encode_prompt(self, text: str) -> Encoded:
        """Embeddings before the last norm (1, tokens, width), and pooled ones (1, width)."""
        tokenizer, encoder = self._tokenizer_for(text), self._load("text_encoder")
        pipeline = self._pipeline(
            StableDiffusionLatentUpscalePipeline,
            vae=DescribedVae(self.info, 1.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
        )
        embeds, _, pooled, _ = pipeline.encode_prompt(text, self.device, do_classifier_free_guidance=False)
        return Encoded(embeds, pooled)

    def upscale(
        self,
        *,
        latents: torch.Tensor,
        positive: Encoded,
        negative: Encoded | None,
        steps: int,
        guidance_scale: float,
        seed: int,
        after_encoding: bool,
        progress: Progress,
    ) -> torch.Tensor:
        """Latents of the same pictures with twice the height and width."""
        unet, batch = self._load("unet"), len(latents)
        # Its preconditioning reads the noise levels of its own scheduler: there is no choice of a sampler.
        scheduler = make_scheduler(self.info, DEFAULT)
        pipeline = self._pipeline(
            StableDiffusionLatentUpscalePipeline,
            vae=DescribedVae(self.info, 1.0),
            unet=unet,
            scheduler=scheduler,
        )
        draws = generators(seed, batch)
        if after_encoding:
            skip_encoding(draws, latents, unet.dtype)
        result: torch.Tensor = pipeline(
            prompt=None,
            image=latents.to(self.device, unet.dtype),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=draws,
            prompt_embeds=self._rows(positive.embeds, batch),
            pooled_prompt_embeds=self._rows(_pooled(positive), batch),
            negative_prompt_embeds=self._rows(negative.embeds, batch) if negative else None,
            negative_pooled_prompt_embeds=self._rows(_pooled(negative), batch) if negative else None,
            output_type="latent",
            callback=lambda index, timestep, values: progress(index + 1, steps),
        ).images
        return result

    def _rows(self, values: torch.Tensor, batch: int) -> torch.Tensor:
        if len(values) not in (1, batch):
            raise ValueError(f"found {len(values)} encoded prompts for a batch of {batch}, expected 1 or {batch}")
        return values.expand(batch, *values.shape[1:]).to(self.device, getattr(torch, self.dtype))


def _pooled(prompt: Encoded) -> torch.Tensor:
    if prompt.pooled is None:
        raise ValueError("found a prompt without pooled embeddings; encode it with the upscaler's own model")
    return prompt.pooled
