"""What is known of a family of pipelines without its code. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["READING", "Defaults", "Family", "Task", "begun_steps", "cut_steps"]

Task = Literal["text-to-image", "image-to-image", "upscale", "super-resolution"]
"""What a pipeline is for: pictures from noise, from other latents, latents twice as large, pixels four times."""


READING = frozenset({"clip_skip", "prompt_syntax", "long_prompts", "beside"})
"""Parameters and ports that only families take whose prompts are read by CLIP alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a model is run with, for one task, where a workflow says nothing."""

    steps: int
    guidance_scale: float
    strength: float = 1.0
    noise_level: int = 0


def cut_steps(steps: int, strength: float) -> int:
    """How many steps image-to-image runs: ``min(int(steps * strength), steps)``, as most pipelines compute it.

    The product is cut, not rounded: 50 steps at 0.58 are 28, because 50 * 0.58 is 28.999… in binary.
    """
    return min(int(steps * strength), steps)


def begun_steps(steps: int, strength: float) -> int:
    """How many steps image-to-image of Stable Diffusion 3 and FLUX runs: a step that is begun counts.

    What is left out of the schedule is cut to whole steps: 28 steps at 0.6 are 28 - int(28 - 16.8) = 17. 100 steps at
    0.55 are 56, because 100 * 0.55 is 55.00…01 in binary.
    """
    return steps - int(max(steps - min(steps * strength, steps), 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A pipeline family as its model folders show it."""

    name: str
    pipelines: tuple[str, ...]
    """Values of ``_class_name`` in ``model_index.json`` that belong to it."""
    classes: Mapping[str, str]
    """Class of each component that has weights, as ``model_index.json`` must name it."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """The same of components that a model of the family may lack."""
    denoiser: str = "unet"
    autoencoder: str = "vae"
    tokenizers: Mapping[str, str] = field(default_factory=lambda: {"text_encoder": "tokenizer"})
    """The tokenizer of each text encoder."""
    t5_window: int = 0
    """Tokens that a T5 text encoder is given at once, the marker at the end included: it has no limit of its own."""
    denoiser_says: Mapping[str, Any] = field(default_factory=dict)
    """What the configuration of the denoiser says, in families that are alike in everything else."""
    schedulers: tuple[str, ...] = ("scheduler",)
    prior: Mapping[str, str] = field(default_factory=dict)
    """Components, tokenizers and schedulers of a prior in a folder of its own, and their names there.

    The prior makes of a prompt what guides the denoiser, a denoising of its own.
    """
    spaces: Mapping[tuple[float, int, int], str] | str
    """Latent spaces by (scaling factor, channels, pixels a cell); another autoencoder makes a space of its own.

    One name where the pipelines look at no scaling factor.
    """
    tasks: Mapping[Task, Defaults]
    size_multiple: int
    """Widths and heights that its text-to-image pipeline takes are multiples of this, whatever the autoencoder."""
    image_multiple: int = 1
    """The same of pictures that are redrawn."""
    sample_size: int = 64
    """Latent cells across and down that the denoiser was trained at, where its configuration does not tell."""
    adapter: str
    """Module in this package and class in it, as ``module:Class``."""
    text_states: str = "clip"
    """Which states of which text encoders guide it: with the same name they may stand for one another."""
    text_width: tuple[str, str] = ("text_encoder", "hidden_size")
    """Component and key of its configuration that tell the width of the embeddings that guide the denoiser."""
    channels: Callable[[int], int] = field(default=lambda latent_channels: latent_channels)
    """Channels that the denoiser takes, from those of the latents."""
    channels_are: str = "its latents"
    denoise_steps: Callable[[int, float], int] = cut_steps
    """How many steps image-to-image runs, from the length of the noise schedule and the strength."""
    samples_encoding: bool = True
    """Its image-to-image pipeline draws a sample of what the autoencoder says of a picture, from the seed."""
    hands_over: bool = False
    """It can stop before the end of the noise schedule, and go on with latents that another model left there."""
    controlnet: bool = False
    """It can be steered by a ControlNet."""
    guidance: Literal["classifier-free", "distilled", "none"] = "classifier-free"
    """What the guidance scale does: with "classifier-free" guidance the denoiser runs twice, and is led away from what
    a negative prompt says; a "distilled" one takes the scale as an input and knows no negative prompt."""
    samplers: frozenset[str] | None = None
    """The samplers that its pipelines can work with, by method or whole name; None is all of them."""
    takes: frozenset[str] = frozenset()
    """Which parameters and ports it takes of those that only some families take."""
    layers_above: int = 0
    """Layers of its text encoders that are left out always: the states before them guide the denoiser."""

    @property
    def ignored(self) -> frozenset[str]:
        """Parameters and ports that its pipelines would not look at: to give one is an error."""
        return (READING - self.takes) | (frozenset() if self.samples_encoding else {"after_encoding"})

    def guides_away(self, guidance_scale: float) -> bool:
        """Whether a negative prompt is looked at, and the denoiser runs twice a step."""
        return self.guidance == "classifier-free" and guidance_scale > 1
