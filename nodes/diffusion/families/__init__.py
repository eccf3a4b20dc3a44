"""The families of pipelines that GraphFlow runs, and what is known of each without its code.

A family is one module in this package and one entry in `FAMILIES`. The module imports torch and diffusers and has a
class named by ``adapter``, which satisfies `Adapter` and the protocols of the family's tasks; it is imported when a
step runs, never to validate a workflow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

    from graphflow.nodes.diffusion.model_info import ModelInfo
    from graphflow.nodes.diffusion.network_info import NetworkInfo

__all__ = [
    "FAMILIES",
    "Adapter",
    "Control",
    "Defaults",
    "Draws",
    "Encoded",
    "Family",
    "SuperResolves",
    "Task",
    "Upscales",
    "adapter",
    "pipelines_for",
    "supported_pipelines",
]

Progress = Callable[[int, int], None]
"""Called with (done, total) after each denoise step; what it raises ends the run."""

Task = Literal["text-to-image", "image-to-image", "upscale", "super-resolution"]
"""What a pipeline is for: pictures from noise, from other latents, latents twice as large, pixels four times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a model is run with, for one task, where a workflow says nothing."""

    steps: int
    guidance_scale: float
    strength: float = 1.0
    noise_level: int = 0


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
    tasks: Mapping[Task, Defaults]
    size_multiple: int
    """Widths and heights that its text-to-image pipeline takes are multiples of this, whatever the VAE."""
    adapter: str
    """Module in this package and class in it, as ``module:Class``."""
    schedulers: tuple[str, ...] = ("scheduler",)
    text_states: str = "clip"
    """Which states of the text encoder guide it: two families with the same name take each other's conditioning."""
    unet_channels: Callable[[int], int] = field(default=lambda latent_channels: latent_channels)
    """Channels that the UNet takes, from those of the latents."""
    unet_input: str = "its latents"


class Encoded(NamedTuple):
    """A prompt as the text encoder gives it: embeddings (1, tokens, width), and pooled (1, width) where wanted."""

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """How a ControlNet steers: its control pictures (1 or batch, 3, height, width) in [0, 1], how strongly, and when.

    ``start`` and ``end`` are shares of the denoise steps.
    """

    network: NetworkInfo
    pixels: torch.Tensor
    scale: float
    start: float
    end: float


class Adapter(Protocol):
    """What every family can do. Tensors are (batch, channels, height, width); latents are scaled as diffusers does.

    Item i of a batch draws its noise on the CPU from a fresh generator seeded with ``seed + i``, so that it equals the
    same picture made alone.
    """

    def encode_prompt(self, text: str) -> Encoded:
        """A prompt encoded. Raises ValueError for one that is longer than the window."""

    def encode_image(self, pixels: torch.Tensor, seed: int | None) -> torch.Tensor:
        """Latents of pixels in [0, 1]: a sample of the posterior drawn from the seed, or its mode for None."""

    def decode(self, latents: torch.Tensor, tile: int) -> torch.Tensor:
        """Pixels in [0, 1], float32 on the CPU; in tiles where the picture is larger than ``tile`` pixels."""


class Draws(Adapter, Protocol):
    """The tasks "text-to-image" and "image-to-image", both with a ControlNet if one is given."""

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
        control: Control | None,
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
        control: Control | None,
        progress: Progress,
    ) -> torch.Tensor:
        """Clean latents, from ``latents`` with the noise of the last ``int(steps * strength)`` steps added."""


class Upscales(Adapter, Protocol):
    """The task "upscale"."""

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


class SuperResolves(Adapter, Protocol):
    """The task "super-resolution"."""

    def super_resolve(
        self,
        *,
        pixels: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor | None,
        steps: int,
        guidance_scale: float,
        noise_level: int,
        seed: int,
        sampler: str,
        tile: int,
        overlap: int,
        progress: Progress,
    ) -> torch.Tensor:
        """Latents (batch, channels, height, width) of pictures four times as large as pixels of that size."""


_CLIP_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="stable-diffusion",
        pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
        classes=_CLIP_CLASSES,
        spaces={(0.18215, 4, 8): "sd"},
        tasks={
            "text-to-image": Defaults(steps=50, guidance_scale=7.5),
            "image-to-image": Defaults(steps=50, guidance_scale=7.5, strength=0.8),
        },
        size_multiple=8,
        adapter="stable_diffusion:StableDiffusion",
    ),
    Family(
        name="latent-upscaler",
        pipelines=("StableDiffusionLatentUpscalePipeline",),
        classes=_CLIP_CLASSES,
        spaces={(0.18215, 4, 8): "sd"},
        tasks={"upscale": Defaults(steps=75, guidance_scale=9.0)},
        size_multiple=1,
        adapter="latent_upscaler:LatentUpscaler",
        text_states="clip-before-norm",
        unet_channels=lambda latent_channels: 2 * latent_channels,
        unet_input="noisy and small latents",
    ),
    Family(
        name="upscaler",
        pipelines=("StableDiffusionUpscalePipeline",),
        classes=_CLIP_CLASSES,
        spaces={(0.08333, 4, 4): "sd-x4"},
        tasks={"super-resolution": Defaults(steps=75, guidance_scale=9.0, noise_level=20)},
        size_multiple=1,
        adapter="upscaler:Upscaler",
        schedulers=("scheduler", "low_res_scheduler"),
        unet_channels=lambda latent_channels: latent_channels + 3,
        unet_input="noisy latents and a small picture",
    ),
)


def supported_pipelines() -> dict[str, Family]:
    """The family of each supported pipeline class."""
    return {pipeline: family for family in FAMILIES for pipeline in family.pipelines}


def pipelines_for(task: Task) -> tuple[str, ...]:
    """The pipeline classes that can do a task."""
    return tuple(pipeline for family in FAMILIES if task in family.tasks for pipeline in family.pipelines)


def adapter(info: ModelInfo, device: str, dtype: str) -> Any:
    """The adapter that runs a model on a device ("cpu", "cuda:0") with a dtype ("float32", …). Imports torch."""
    return _adapter_class(info.family.adapter)(info, device, dtype)


@cache
def _adapter_class(name: str) -> Callable[[ModelInfo, str, str], Any]:
    module, _, cls = name.partition(":")
    found: Callable[[ModelInfo, str, str], Any] = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    return found
