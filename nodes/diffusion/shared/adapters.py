"""The protocols of adapters, which run the models of a family."""

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
"""A function called with (done, total) after each denoise step; an exception from it ends the run."""

Warn = Callable[[str], None]
"""A function called with a warning for the user: something is legal but surprising."""


class Encoded(NamedTuple):
    """An encoded prompt: embeddings (1 or batch, tokens, width) and pooled ones (1 or batch, width).

    ``mask`` (1 or batch, tokens) is 1 for tokens of the prompt and 0 for padding; None where the denoiser attends to
    all of them. Kandinsky has only the embeddings of a picture from its prior, (1 or batch, width).
    """

    embeds: torch.Tensor
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None


class Prompts(NamedTuple):
    """A positive and a negative prompt; the negative one is None without classifier-free guidance."""

    positive: Encoded
    negative: Encoded | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The settings of a denoising: its schedule, guidance and seeds."""

    steps: int
    """Length of the noise schedule."""
    guidance_scale: float
    seeds: tuple[int, ...]
    """Item i of a batch draws its noise on the CPU from a fresh generator seeded with ``seeds[i]``."""
    sampler: str
    strength: float = 1.0
    """The share of the schedule that image-to-image runs, in (0, 1]."""
    denoising_start: float | None = None
    """The share of the schedule that another model has run already: latents are noisy, and no noise is added."""
    denoising_end: float | None = None
    """The share of the schedule after which to stop."""
    after_encoding: bool = False
    """True if the latents were sampled with the same seeds: the noise is the draw after that one."""


@dataclass(frozen=True, slots=True)
class Control:
    """A ControlNet, its control pictures (1 or batch, 3, height, width) in [0, 1], and its scale.

    It runs from ``start`` to ``end``, which are shares of the denoise steps in [0, 1].
    """

    network: NetworkInfo
    pixels: torch.Tensor
    scale: float
    start: float
    end: float


class Adapter(Protocol):
    """The interface of every family. Tensors are (batch, channels, height, width); latents are scaled as in diffusers.

    Item i of a batch equals the same picture made alone with its seed.
    """

    def encode_prompt(self, text: str, *, negative: bool, warn: Warn) -> Encoded:
        """Encode a prompt. Raises ValueError for one that no text encoder reads to its end.

        One that only some of them read to its end is reported to ``warn``. ``negative`` marks a negative prompt: some
        models take zeros for an empty one.
        """

    def encode_image(self, pixels: torch.Tensor, seed: int | None, tile: int) -> torch.Tensor:
        """Encode pixels in [0, 1] to latents: a sample of the posterior drawn from the seed, or its mode for None.

        Item i is drawn from ``seed + i``. A picture larger than ``tile`` pixels is encoded in tiles.
        """

    def decode(self, latents: torch.Tensor, tile: int) -> torch.Tensor:
        """Decode latents to pixels in [0, 1], float32 on the CPU; a picture larger than ``tile`` pixels in tiles."""


class PromptAdapter(Adapter, Protocol):
    """The interface of a family whose prompts can be read in several ways (`Family.accepted_parameters`)."""

    def read_prompt(self, text: str, reading: PromptReading, *, beside: str | None, negative: bool) -> Encoded:
        """Encode a prompt in at least as many windows as ``beside`` fills. Raises ValueError as `encode_prompt`."""


class TextToImageAdapter(Adapter, Protocol):
    """The interface for "text-to-image" and "image-to-image", with a ControlNet if one is given and supported."""

    def text_to_image(
        self, shape: Sequence[int], prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return latents of ``shape`` (batch, channels, height, width), denoised from pure noise."""

    def image_to_image(
        self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, control: Control | None, progress: Progress
    ) -> torch.Tensor:
        """Return latents, denoised from ``latents`` with the noise of the last steps added or in them already."""


class PriorAdapter(Adapter, Protocol):
    """The interface of a family with a prior, which predicts the embedding of a picture from a prompt."""

    def imagine(self, text: str, negative_text: str, sampling: Sampling, progress: Progress) -> tuple[Encoded, Encoded]:
        """Return the embeddings (seeds, width) of a picture of ``text`` for each seed, and negative ones."""


class UpscaleAdapter(Adapter, Protocol):
    """The interface for "upscale"."""

    def upscale(self, latents: torch.Tensor, prompts: Prompts, sampling: Sampling, progress: Progress) -> torch.Tensor:
        """Return latents of the same pictures at twice the height and width."""


class SuperResolutionAdapter(Adapter, Protocol):
    """The interface for "super-resolution"."""

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
        """Return latents (batch, channels, height, width) of pictures four times as large as the given pixels.

        The denoiser works in tiles of at most ``tile`` pixels that overlap by ``overlap``.
        """
