"""The work shared by all families with a CLIP text encoder: prompts, and control by a ControlNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graphflow.nodes.diffusion.adapters.autoencoder_family import AutoencoderFamily
from graphflow.nodes.diffusion.adapters.prompt_length import reading, too_long
from graphflow.nodes.diffusion.adapters.prompt_reading import WindowEncoder
from graphflow.nodes.diffusion.loading.components import load_network, load_tokenizer, quiet
from graphflow.nodes.diffusion.shared.adapters import Control, Encoded, Warn

with quiet():
    from diffusers import StableDiffusionPipeline
    from diffusers.image_processor import VaeImageProcessor

__all__ = ["ClipFamily"]


class ClipFamily(AutoencoderFamily):
    """An `Adapter` for one model on one device, with a CLIP text encoder."""

    @torch.no_grad()
    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """Encode a prompt to embeddings (1, tokens, width). Raises ValueError for one longer than the window."""
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
        """Return a tokenizer. Raises ValueError for a text longer than the window of the text encoder."""
        found = reading(self.info, text, name, self.info.prompt_window)
        if found.tokens > found.window:
            raise too_long(self.info, text, found)
        return found.tokenizer

    def _window_encoder(self, name: str, states: Callable[[Any], torch.Tensor]) -> WindowEncoder:
        """Return the text encoder ``name`` for whole windows; ``states`` picks the embeddings from its output."""
        tokenizer = load_tokenizer(self.info, self.info.family.text_encoders[name].tokenizer)
        window = min(self.info.prompt_window, tokenizer.model_max_length)
        return WindowEncoder(self._load(name), tokenizer, window, self.device, states)

    def _pipeline_with_control(
        self, plain: Any, controlled: Any, control: Control | None, parts: dict[str, Any]
    ) -> Any:
        """Build a pipeline of class ``plain``, or of class ``controlled`` where there is a ControlNet."""
        if control is None:
            return self._pipeline(plain, **parts)
        network = load_network(control.network.component, control.network.cls, self.compute, denoises=True)
        pipeline = self._pipeline(controlled, controlnet=network, **parts)
        pipeline.control_image_processor = VaeImageProcessor(
            vae_scale_factor=self.info.pixels_per_cell, do_convert_rgb=True, do_normalize=False
        )
        return pipeline

    def _control_arguments(self, control: Control | None, batch: int, name: str) -> dict[str, Any]:
        """Return the arguments of a pipeline for a ControlNet; ``name`` is that of the control pictures.

        Raises ValueError where the number of control pictures is neither 1 nor ``batch``.
        """
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
