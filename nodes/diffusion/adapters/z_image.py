"""Z-Image and Z-Image-Turbo: text-to-image and image-to-image.

A prompt is a user's message to Qwen3. The transformer gets the states of the second to last layer, without padding.
Between nodes prompts are padded to the window, with a mask, so that a batch can hold several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflow.nodes.diffusion.adapters.prompt_length import chat_tokenizer
from graphflow.nodes.diffusion.adapters.transformer_family import TransformerFamily
from graphflow.nodes.diffusion.loading.components import quiet
from graphflow.nodes.diffusion.shared.adapters import Encoded, Prompts, Warn

with quiet():
    from diffusers import ZImageImg2ImgPipeline, ZImagePipeline

__all__ = ["ZImage"]


class ZImage(TransformerFamily):
    """A `TextToImageAdapter` for one model of the Z-Image family on one device."""

    text_pipeline, image_pipeline = ZImagePipeline, ZImageImg2ImgPipeline

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """Encode a prompt to padded embeddings (1, window, width) and their mask (1, window).

        Raises ValueError for a prompt that does not fit the window.
        """
        window = self.info.family.text_encoders["text_encoder"].window
        pipeline = self._pipeline(
            ZImagePipeline,
            tokenizer=chat_tokenizer(self.info, text, enable_thinking=True),
            text_encoder=self._load("text_encoder"),
        )
        (read,), _ = pipeline.encode_prompt(
            text, device=self.device, do_classifier_free_guidance=False, max_sequence_length=window
        )
        embeds, mask = read.new_zeros(1, window, read.shape[-1]), read.new_zeros(1, window)
        embeds[0, : len(read)], mask[0, : len(read)] = read, 1
        return Encoded(embeds, mask=mask)

    def _prompt_arguments(self, prompts: Prompts, batch: int) -> dict[str, Any]:
        def tokens(prompt: Encoded | None) -> list[torch.Tensor]:
            embeds, _, mask = self._rows(prompt, batch)
            if embeds is None or mask is None:
                return []
            return [row[kept.bool()] for row, kept in zip(embeds, mask, strict=True)]

        return {"prompt_embeds": tokens(prompts.positive), "negative_prompt_embeds": tokens(prompts.negative)}

    def _unpacked(self, pipeline: Any, answer: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Cast latents to the dtype of the transformer: the pipelines step in float32."""
        return answer.to(getattr(torch, self.dtype))
