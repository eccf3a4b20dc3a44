"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): text-to-image and image-to-image.

A prompt is read by two CLIP text encoders and by T5. A model may be shipped without T5, whose embeddings are then
zeros.
"""

from __future__ import annotations

import torch

from graphflow.nodes.diffusion.adapters.denoising import Described
from graphflow.nodes.diffusion.adapters.prompt_length import tokenizers_for
from graphflow.nodes.diffusion.adapters.transformer_family import TransformerFamily
from graphflow.nodes.diffusion.loading.components import quiet
from graphflow.nodes.diffusion.shared.adapters import Encoded, Warn

with quiet():
    from diffusers import StableDiffusion3Img2ImgPipeline, StableDiffusion3Pipeline

__all__ = ["StableDiffusion3"]


class StableDiffusion3(TransformerFamily):
    """A `TextToImageAdapter` for one model of the Stable Diffusion 3 family on one device."""

    text_pipeline, image_pipeline = StableDiffusion3Pipeline, StableDiffusion3Img2ImgPipeline

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """Encode a prompt to embeddings (1, tokens of CLIP + tokens of T5, width) and pooled ones of CLIP (1, width).

        Raises ValueError for a prompt longer than the longest window; reports what the others cut off to ``warn``.
        """
        tokenizers = tokenizers_for(self.info, text, warn)
        encoders = {name: self._load(name) for name in self.info.family.text_encoders if name in self.info.components}
        pipeline = self._pipeline(
            StableDiffusion3Pipeline, transformer=Described(**self.info.denoiser), **tokenizers, **encoders
        )
        with quiet():  # what CLIP cuts off is reported already
            embeds, _, pooled, _ = pipeline.encode_prompt(
                prompt=text,
                prompt_2=None,
                prompt_3=None,
                device=self.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.info.family.text_encoders["text_encoder_3"].window,
            )
        return Encoded(embeds, pooled)
