"""The families of pipelines that GraphFlow runs, and what is known of each without its code.

A family is one module in this package and one entry in `FAMILIES`. The module imports torch and diffusers and has a
class named by ``adapter`` that satisfies `Adapter`; it is imported when a step runs, never to validate a workflow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from graphflow.nodes.diffusion.model_info import ModelInfo

__all__ = ["FAMILIES", "Adapter", "Defaults", "Family", "adapter", "supported_pipelines"]

Progress = Callable[[int, int], None]
"""Called with (done, total) after each denoise step; what it raises ends the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a model is run with where a workflow says nothing."""

    steps: int
    guidance_scale: float
    image_to_image_steps: int
    image_to_image_guidance_scale: float
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A pipeline family as its model folders show it."""

    name: str
    pipelines: tuple[str, ...]
    """Values of ``_class_name`` in ``model_index.json`` that belong to it."""
    classes: Mapping[str, str]
    """Class of each component that has weights, as ``model_index.json`` must name it."""
    spaces: Mapping[tuple[float, int, int], str]
    """Latent spaces by (scaling factor, channels, pixels a cell); another VAE makes a space of its own."""
    defaults: Defaults
    size_multiple: int
    """Widths and heights that its text-to-image pipeline takes are multiples of this, whatever the VAE."""
    adapter: str
    """Module in this package and class in it, as ``module:Class``."""


class Adapter(Protocol):
    """What every family can do. Tensors are (batch, channels, height, width); latents are scaled as diffusers does.

    Item i of a batch draws its noise on the CPU from a fresh generator seeded with ``seed + i``, so that it equals the
    same picture made alone.
    """

    def encode_prompt(self, text: str) -> torch.Tensor:
        """Embeddings (1, tokens, width) of a prompt. Raises ValueError for one that is longer than the window."""

    def encode_image(self, pixels: torch.Tensor, seed: int | None) -> torch.Tensor:
        """Latents of pixels in [0, 1]: a sample of the posterior drawn from the seed, or its mode for None."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1], float32 on the CPU."""

    def text_to_image(
        self,
        *,
        shape: Sequence[int],
        positive: torch.Tensor,
        negative: torch.Tensor | None,
        steps: int,
        guidance_scale: float,
        seed: int,
        sampler: str,
        progress: Progress,
    ) -> torch.Tensor:
        """Clean latents of ``shape`` (batch, channels, height, width), from pure noise."""

    def image_to_image(
        self,
        *,
        latents: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor | None,
        steps: int,
        guidance_scale: float,
        strength: float,
        seed: int,
        sampler: str,
        after_encoding: bool,
        progress: Progress,
    ) -> torch.Tensor:
        """Clean latents, from ``latents`` with the noise of the last ``int(steps * strength)`` steps added."""


FAMILIES: tuple[Family, ...] = (
    Family(
        name="stable-diffusion",
        pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
        classes={"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"},
        spaces={(0.18215, 4, 8): "sd"},
        defaults=Defaults(
            steps=50, guidance_scale=7.5, image_to_image_steps=50, image_to_image_guidance_scale=7.5, strength=0.8
        ),
        size_multiple=8,
        adapter="stable_diffusion:StableDiffusion",
    ),
)


def supported_pipelines() -> dict[str, Family]:
    """The family of each supported pipeline class."""
    return {pipeline: family for family in FAMILIES for pipeline in family.pipelines}


def adapter(info: ModelInfo, device: str, dtype: str) -> Adapter:
    """The adapter that runs a model on a device ("cpu", "cuda:0") with a dtype ("float32", …). Imports torch."""
    made: Adapter = _adapter_class(info.family.adapter)(info, device, dtype)
    return made


@cache
def _adapter_class(name: str) -> Callable[[ModelInfo, str, str], Adapter]:
    module, _, cls = name.partition(":")
    found: Callable[[ModelInfo, str, str], Adapter] = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    return found
