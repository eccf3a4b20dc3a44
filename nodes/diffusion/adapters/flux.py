"""FLUX.1 dev and schnell (Black Forest Labs 2024): text-to-image and image-to-image.

Between nodes latents are (batch, 16, height, width) like those of other families. The transformer takes them packed,
squares of 2 x 2 cells as tokens (batch, tokens, 64), and the pipelines return them packed.

Guidance is distilled into the weights of dev, which takes its scale as an input; schnell has none. Neither uses a
negative prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.adapters.prompt_length import tokenizers_for
from graphflow.nodes.diffusion.adapters.transformer_family import TransformerFamily
from graphflow.nodes.diffusion.loading.components import quiet
from graphflow.nodes.diffusion.shared.adapters import Encoded, Prompts, Warn

with quiet():
    from diffusers import FluxImg2ImgPipeline, FluxPipeline

__all__ = ["Flux"]


class Flux(TransformerFamily):
    """A `TextToImageAdapter` for one model of the FLUX.1 family on one device."""

    text_pipeline, image_pipeline = FluxPipeline, FluxImg2ImgPipeline

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """Encode a prompt to T5's embeddings (1, tokens, width) and CLIP's pooled embedding (1, width).

        Raises ValueError for a prompt longer than T5's window; reports what CLIP cuts off to ``warn``.
        """
        tokenizers = tokenizers_for(self.info, text, warn)
        encoders = {name: self._load(name) for name in self.info.family.text_encoders}
        pipeline = self._pipeline(FluxPipeline, **tokenizers, **encoders)
        with quiet():  # what CLIP cuts off is reported already
            embeds, pooled, _ = pipeline.encode_prompt(
                prompt=text,
                device=self.device,
                max_sequence_length=self.info.family.text_encoders["text_encoder_2"].window,
            )
        return Encoded(embeds, pooled)

    def _prompt_arguments(self, prompts: Prompts, batch: int) -> dict[str, Any]:
        rows = self._rows(prompts.positive, batch)
        return {"prompt_embeds": rows.embeds, "pooled_prompt_embeds": rows.pooled}

    def _unpacked(self, pipeline: Any, answer: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        latents: torch.Tensor = pipeline._unpack_latents(answer, shape[-2], shape[-1], vae_scale_factor=1)
        return latents
