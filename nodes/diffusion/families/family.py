"""The record of a family of pipelines, with all facts about it that need no torch.

A family is one module of this package with a `Family` in it, one adapter that runs it, and, where its models are
published as single files, a folder of configurations. A pack adds its own through the entry point `graphflow.families`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "CONFIGURATIONS",
    "PROMPT_PARAMETERS",
    "Config",
    "Defaults",
    "Family",
    "LoraLayout",
    "Mismatches",
    "Shapes",
    "SingleFileLayout",
    "Task",
    "Tasks",
    "TextEncoder",
    "TokenMemory",
    "begun_steps",
    "cut_steps",
    "heads_times_width",
    "levels_of_blocks",
]

Task = Literal["text-to-image", "image-to-image", "upscale", "super-resolution"]
"""A task of a pipeline: pictures from noise, from other latents, latents of twice the size, pixels of four times."""

Tasks = tuple[Task, ...]
"""Tasks of which a model must be able to do one; empty for any model."""

Config = Mapping[str, Any]
"""The content of a component's JSON file."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of the tensors in a file, by their names."""

Mismatches = Callable[[Shapes, Config], "list[tuple[str, object, object]]"]
"""A function that compares tensors with a configuration and returns (subject, found, expected) per difference."""

CONFIGURATIONS = Path(__file__).parents[1] / "configurations"
"""Configurations for checkpoints that are published as one file, written for GraphFlow."""

PROMPT_PARAMETERS = frozenset({"clip_skip", "prompt_syntax", "long_prompts", "beside"})
"""Parameters and ports of prompts that only families with CLIP as their only kind of text encoder support."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The settings of a model for one task that a workflow does not give."""

    steps: int
    guidance_scale: float
    strength: float = 1.0
    noise_level: int = 0


def cut_steps(steps: int, strength: float) -> int:
    """Count the steps of image-to-image as most pipelines do: ``min(int(steps * strength), steps)``.

    The product is cut, not rounded: 50 steps at 0.58 are 28, because 50 * 0.58 is 28.999… in binary.
    """
    return min(int(steps * strength), steps)


def begun_steps(steps: int, strength: float) -> int:
    """Count the steps of image-to-image as pipelines of flow matching do, rounding up.

    The skipped part of the schedule is cut to whole steps: 28 steps at 0.6 are 28 - int(28 - 16.8) = 17. 100 steps at
    0.55 are 56, because 100 * 0.55 is 55.00…01 in binary.
    """
    return steps - int(max(steps - min(steps * strength, steps), 0))


def levels_of_blocks(autoencoder: Config) -> int:
    """Return the pixels across a latent cell of an autoencoder that halves the size between two blocks."""
    return int(2 ** (len(autoencoder["block_out_channels"]) - 1))


def heads_times_width(denoiser: Config) -> int:
    """Return the numbers in a token of a transformer: its attention heads times their width."""
    return int(denoiser["num_attention_heads"]) * int(denoiser["attention_head_dim"])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextEncoder:
    """A text encoder of a family, with its tokenizer and its window."""

    tokenizer: str
    """Name of the component that is its tokenizer."""
    window: int | None = None
    """Tokens that it reads at once, the markers at the ends included; None for the number in its configuration."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of the names of its tensors in checkpoints of one file."""

    def window_of(self, config: Config) -> int:
        """Return the tokens that it reads at once, with a configuration."""
        return int(config["max_position_embeddings"]) if self.window is None else self.window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenMemory:
    """The memory of a denoiser that keeps its tokens and works on them block by block, as transformers do.

    Its peak is that of one block, counted in tensors of a token's width for each token of the picture and of the text.
    """

    alive: Callable[[Config], tuple[int, int]]
    """Tensors of a token's width alive in a block, per token of the picture and per token of the text: measured (torch
    on the CPU, with torch's attention), and tested."""
    width: Callable[[Config], int] = heads_times_width
    """Numbers in a token."""
    patch: int = 2
    """Latent cells across a token of the picture."""
    encoders: tuple[str, ...]
    """The text encoders whose tokens the denoiser takes, concatenated along the tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingleFileLayout:
    """The layout of a family's checkpoints in one file: how to recognise them and find the tensors of the denoiser."""

    kinds: Mapping[str, Callable[[Shapes], bool]]
    """Functions that recognise a file by its tensors, by the name of its folder in ``configurations``."""
    prefixes: tuple[str, ...]
    """Beginnings of the names of the denoiser's tensors; the empty one where a file may hold the denoiser alone."""
    mark: str
    """A tensor that every denoiser has, where a prefix alone is no proof."""
    mismatches: Mismatches
    """Comparison of the denoiser's tensors with its configuration."""
    configurations: Path = CONFIGURATIONS
    """A folder for each kind, in the layout of diffusers, with JSON files only."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoraLayout:
    """The layout of a family's LoRAs: the pipeline of diffusers that reads them, and signs of other families."""

    pipeline: str
    foreign: str = ""
    """Pattern of names in the denoiser of another family."""
    attention: str = ""
    """Pattern of matrices that take tokens of ``width`` numbers."""
    width: Callable[[Config], int] | None = None
    """Numbers in a token that the matrices of ``attention`` take, from the configuration of the denoiser."""
    options: frozenset[Literal["return_alphas", "unet_config"]] = frozenset()
    """Further arguments of the pipeline's reader."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Family:
    """A family of pipelines that one adapter runs."""

    name: str
    pipelines: tuple[str, ...]
    """Values of ``_class_name`` in ``model_index.json`` that belong to it."""
    classes: Mapping[str, str]
    """Class of each component with weights, as in ``model_index.json``."""
    optional: Mapping[str, str] = field(default_factory=dict)
    """Class of each further component with weights, which a model of the family may lack."""
    denoiser: str = "unet"
    autoencoder: str = "vae"
    text_encoders: Mapping[str, TextEncoder]
    """The text encoders by component name, in the order in which they read a prompt."""
    distinguished_by: Mapping[str, Config] = field(default_factory=dict)
    """Values in the configurations of components, for families with equal pipelines and classes."""
    schedulers: tuple[str, ...] = ("scheduler",)
    scheduler_config: Config = field(default_factory=dict)
    """Values that its pipelines override in the configurations of schedulers."""
    prior: Mapping[str, str] = field(default_factory=dict)
    """Components, tokenizers and schedulers of a prior in a folder of its own, and their names there.

    The prior is a diffusion model that predicts the embedding that guides the denoiser from a prompt.
    """
    spaces: Mapping[tuple[float, int, int], str] | str
    """Latent spaces by (scaling factor, channels, pixels per cell); any other autoencoder has a space of its own.

    One name for pipelines that apply no scaling factor.
    """
    pixels_per_cell: Callable[[Config], int] = levels_of_blocks
    """Pixels across a latent cell, from the configuration of the autoencoder."""
    tasks: Mapping[Task, Defaults]
    size_multiple: int
    """Required divisor of width and height in text-to-image, in pixels, whatever the autoencoder."""
    image_multiple: int = 1
    """Required divisor of width and height in image-to-image, in pixels, whatever the autoencoder."""
    sample_size: int = 64
    """Latent cells across and down that the denoiser was trained at, where its configuration does not say."""
    adapter: str
    """Module and class of its adapter, as ``package.module:Class``; imported when a step runs."""
    encoder_kind: str = "clip"
    """Name of the text encoders, and of their states, that guide it; encoded prompts of equal names are
    interchangeable."""
    text_width: tuple[str, str] = ("text_encoder", "hidden_size")
    """Component, and key of its configuration, with the width of the embeddings that guide the denoiser."""
    denoiser_channels: Callable[[int], int] = field(default=lambda latent_channels: latent_channels)
    """Channels that the denoiser takes, from those of the latents."""
    channels_text: str = "its latents"
    """The contents of those channels, for messages."""
    denoise_steps: Callable[[int, float], int] = cut_steps
    """Steps that image-to-image runs, from the length of the noise schedule and the strength."""
    samples_encoding: bool = True
    """True if its image-to-image pipeline samples the posterior of the autoencoder, from the seed."""
    supports_denoising_end: bool = False
    """True if it can stop before the end of the noise schedule, and continue from noisy latents of another model."""
    controlnet: bool = False
    """True if it works with a ControlNet."""
    guidance: Literal["classifier-free", "distilled", "none"] = "classifier-free"
    """The use of the guidance scale: with "classifier-free" guidance the denoiser runs twice, once for the negative
    prompt; a "distilled" one takes the scale as an input and has no negative prompt."""
    guidance_threshold: float = 1.0
    """The scale up to which classifier-free guidance is off."""
    samplers: frozenset[str] | None = None
    """The samplers that its pipelines support, by method or full name; None for all of them."""
    accepted_parameters: frozenset[str] = frozenset()
    """The parameters and ports of `PROMPT_PARAMETERS` that it supports."""
    skipped_layers: int = 0
    """Last layers of its text encoders that are always skipped: the states before them guide the denoiser."""
    denoiser_memory: TokenMemory | None = None
    """The memory of its denoiser; None for a UNet, whose memory is estimated block by block."""
    single_file: SingleFileLayout | None = None
    """The layout of its checkpoints in one file; None where there are none."""
    lora: LoraLayout | None = None
    """The layout of its LoRAs; None where there are none."""

    def __repr__(self) -> str:
        # The full record would fill pages of every message and test report that shows a model.
        return f"<Family {self.name}>"

    @property
    def ignored(self) -> frozenset[str]:
        """Parameters and ports that its pipelines do not use: giving one is an error."""
        unread = PROMPT_PARAMETERS - self.accepted_parameters
        return unread | (frozenset() if self.samples_encoding else {"after_encoding"})

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """The components that are tokenizers."""
        return tuple(encoder.tokenizer for encoder in self.text_encoders.values())

    def does_any(self, tasks: Tasks) -> bool:
        """Return whether it can do one of some tasks, or ``tasks`` is empty."""
        return not tasks or any(task in self.tasks for task in tasks)

    def uses_negative_prompt(self, guidance_scale: float) -> bool:
        """Return whether a negative prompt is used, so that the denoiser runs twice per step."""
        return self.guidance == "classifier-free" and guidance_scale > self.guidance_threshold
