"""What runs a model: the protocols that the adapters of all families satisfy. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from graphflow.nodes.diffusion.sampling.prompts import PromptReading

if TYPE_CHECKING:
    import torch

    from graphflow.nodes.diffusion.models.network_info import NetworkInfo

__all__ = [
    "Adapter",
    "Control",
    "Encoded",
    "PriorAdapter",
    "Progress",
    "PromptAdapter",
    "Prompts",
    "Sampling",
    "SuperResolutionAdapter",
    "TextToImageAdapter",
    "UpscaleAdapter",
    "Warn",
]

Progress = Callable[[int, int], None]
"""Called with (done, total) after each denoise step; what it raises ends the run."""

Warn = Callable[[str], None]
"""Called with something legal but surprising, for the user to read."""


class Encoded(NamedTuple):
    """A prompt as the text encoders give it: embeddings (1 or batch, tokens, width), pooled (1 or batch, width).

    ``mask`` (1 or batch, tokens) is 1 for tokens of the prompt and 0 for those that only fill it up; None where the
    denoiser attends to all of them. Kandinsky's are embeddings of an imagined picture, (1 or batch, width), and nothing
    else.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None


class Prompts(NamedTuple):
    """What a picture should show, and what it is guided away from: None without classifier-free guidance."""

    positive: Encoded
    negative: Encoded | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How noise is drawn and taken away."""

    steps: int
    """Length of the noise schedule."""
    guidance_scale: float
    seeds: tuple[int, ...]
    """Item i of a batch draws its noise on the CPU from a fresh generator seeded with ``seeds[i]``."""
    sampler: str
    strength: float = 1.0
    """Of image-to-image: the share of the schedule that is run again."""
    denoising_start: float | None = None
    """The share of the schedule that another model has run already: latents are noisy, and none is added."""
    denoising_end: float | None = None
    """The share of the schedule after which to stop."""
    after_encoding: bool = False
    """The latents were sampled with the same seeds: take the noise that follows that draw."""


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

    Item i of a batch equals the same picture made alone with its seed.
    """

    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """A prompt encoded. Raises ValueError for one that no text encoder reads to its end.

        One that only some of them read to its end is told to ``warn``. ``negative`` marks one that tells what a picture
        should not show: of an empty one some models want zeros.
        """

    def encode_image(self, pixels: torch.Tensor, seed: int | None, tile: int) -> torch.Tensor:
        """Latents of pixels in [0, 1]: a sample of the posterior drawn from the seed, or its mode for None.

        Item i is drawn from ``seed + i``. In tiles where the picture is larger than ``tile`` pixels.
        """

    def decode(self, latents: torch.Tensor, tile: int) -> torch.Tensor:
        """Pixels in [0, 1], float32 on the CPU; in tiles where the picture is larger than ``tile`` pixels."""


class PromptAdapter(Adapter, Protocol):
    """What a family can do besides whose prompts may be read in several ways (`Family.accepted_parameters`)."""

    def read_prompt(self, text: str, reading: PromptReading, *, beside: str | None, negative: bool) -> Encoded:
        """A prompt encoded, in as many windows as ``beside`` fills or more. Raises ValueError as `encode_prompt`."""


class TextToImageAdapter(Adapter, Protocol):
    """The tasks "text-to-image" and "image-to-image", with a ControlNet if one is given and the family has any."""

    def text_to_image(
        self, shape: Sequence[int], prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Latents of ``shape`` (batch, channels, height, width), from pure noise."""

    def image_to_image(
        self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Latents, from ``latents`` with the noise of the last steps added, or in them already."""


class PriorAdapter(Adapter, Protocol):
    """What a family with a prior can do besides: make of a prompt the embedding of a picture that shows it."""

    def imagine(self, text: str, negative_text: str, sampling: Sampling, progress: Progress) -> tuple[Encoded, Encoded]:
        """For each seed the embedding of a picture that shows ``text``, and one of what to be guided away from."""


class UpscaleAdapter(Adapter, Protocol):
    """The task "upscale"."""

    def upscale(self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, progress: Progress) -> torch.Tensor:
        """Latents of the same pictures with twice the height and width."""


class SuperResolutionAdapter(Adapter, Protocol):
    """The task "super-resolution"."""

    def super_resolve(
        self,
        pixels: torch.Tensor,
        prompts: Prompts,
        sampling: Sampling,
        *,
        noise_level: int,
        tile: int,
        overlap: int,
        progress: Progress,
    ) -> torch.Tensor:
        """Latents (batch, channels, height, width) of pictures four times as large as pixels of that size."""
