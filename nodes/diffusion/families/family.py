"""The record of a family of pipelines: everything that is known of it without its code. Imports no torch.

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
"""The use of a pipeline: pictures from noise, from other latents, latents twice as large, pixels four times."""

Tasks = tuple[Task, ...]
"""Tasks of which a model must be able to do one; none: any model will do."""

Config = Mapping[str, Any]
"""The JSON file of a component."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of the tensors in a file, by their names."""

Mismatches = Callable[[Shapes, Config], "list[tuple[str, object, object]]"]
"""Where tensors differ from a configuration: (subject, found, expected); found is None where nothing was found."""

CONFIGURATIONS = Path(__file__).parents[1] / "configurations"
"""Configurations of the checkpoints that are published as one file: facts, written by us."""

PROMPT_PARAMETERS = frozenset({"clip_skip", "prompt_syntax", "long_prompts", "beside"})
"""Parameters and ports that only families take whose prompts are read by CLIP alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The settings of a model for one task where a workflow says nothing."""

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
    """Count the steps of image-to-image as pipelines of flow matching do: a step that is begun counts.

    The part of the schedule that is left out is cut to whole steps: 28 steps at 0.6 are 28 - int(28 - 16.8) = 17. 100
    steps at 0.55 are 56, because 100 * 0.55 is 55.00…01 in binary.
    """
    return steps - int(max(steps - min(steps * strength, steps), 0))


def levels_of_blocks(autoencoder: Config) -> int:
    """Return the pixels across a latent cell of an autoencoder that halves its picture between two blocks."""
    return int(2 ** (len(autoencoder["block_out_channels"]) - 1))


def heads_times_width(denoiser: Config) -> int:
    """Return the width of a token of a transformer that is configured by its heads and their width."""
    return int(denoiser["num_attention_heads"]) * int(denoiser["attention_head_dim"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoder:
    """A text encoder of a family: the tokenizer beside it, and how many tokens it reads."""

    tokenizer: str
    """Name of the component that is its tokenizer."""
    window: int | None = None
    """Tokens that it is given at once, the markers at the ends included; None: as many as its configuration says."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of the names of its tensors in checkpoints of one file."""

    def window_of(self, config: Config) -> int:
        """Return the tokens that it is given at once under a configuration."""
        return int(config["max_position_embeddings"]) if self.window is None else self.window


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMemory:
    """The memory of a denoiser that keeps its tokens and works on them block by block, as transformers do.

    Its peak is that of one block: so many tensors of a token's width, for each token of the picture and of the text.
    The numbers are measured (torch on the CPU, attention of torch's own), and tests hold them.
    """

    alive: Callable[[Config], tuple[int, int]]
    """Tensors of a token's width alive in a block, for a token of the picture and for one of the text."""
    width: Callable[[Config], int] = heads_times_width
    """Numbers in a token."""
    patch: int = 2
    """Latent cells across a token of the picture."""
    encoders: tuple[str, ...]
    """The text encoders whose tokens the denoiser is given, one behind the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleFileLayout:
    """Checkpoints of one file: how one of the family is recognised, and where the tensors of its denoiser stand."""

    kinds: Mapping[str, Callable[[Shapes], bool]]
    """By the name of a folder in ``configurations``: whether a file with such tensors is described by it."""
    prefixes: tuple[str, ...]
    """Beginnings of the names of the denoiser's tensors; the empty one where a file may hold the denoiser alone."""
    mark: str
    """A tensor that the denoiser cannot be without, where a prefix alone proves nothing."""
    mismatches: Mismatches
    """Compares the denoiser's tensors with its configuration."""
    configurations: Path = CONFIGURATIONS
    """A folder for each kind, in the layout of diffusers, with JSON files only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraLayout:
    """LoRAs of a family: the pipeline of diffusers that reads them, and what tells that one is not made for it."""

    pipeline: str
    foreign: str = ""
    """Pattern of names that the denoiser of another family has."""
    attention: str = ""
    """Pattern of matrices that take tokens of ``width`` numbers."""
    width: Callable[[Config], int] | None = None
    """Numbers in a token that the matrices of ``attention`` take, by the configuration of the denoiser."""
    options: frozenset[Literal["return_alphas", "unet_config"]] = frozenset()
    """Further arguments that the reader of the pipeline takes."""


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
    text_encoders: Mapping[str, TextEncoder]
    """The text encoders by the name of their component, in the order in which they read a prompt."""
    distinguished_by: Mapping[str, Config] = field(default_factory=dict)
    """Values in the configurations of components, in families that are alike in everything else."""
    schedulers: tuple[str, ...] = ("scheduler",)
    scheduler_config: Config = field(default_factory=dict)
    """Values that its pipelines put right in configurations of schedulers that say another one."""
    prior: Mapping[str, str] = field(default_factory=dict)
    """Components, tokenizers and schedulers of a prior in a folder of its own, and their names there.

    The prior makes of a prompt what guides the denoiser, a denoising of its own.
    """
    spaces: Mapping[tuple[float, int, int], str] | str
    """Latent spaces by (scaling factor, channels, pixels a cell); another autoencoder makes a space of its own.

    One name where the pipelines look at no scaling factor.
    """
    pixels_per_cell: Callable[[Config], int] = levels_of_blocks
    """Pixels across a latent cell, by the configuration of the autoencoder."""
    tasks: Mapping[Task, Defaults]
    size_multiple: int
    """Widths and heights that its text-to-image pipeline takes are multiples of this, whatever the autoencoder."""
    image_multiple: int = 1
    """The same of pictures that are redrawn."""
    sample_size: int = 64
    """Latent cells across and down that the denoiser was trained at, where its configuration does not tell."""
    adapter: str
    """Module and class that run it, as ``package.module:Class``; imported when a step runs."""
    encoder_kind: str = "clip"
    """Which states of which text encoders guide it: with the same name they may stand for one another."""
    text_width: tuple[str, str] = ("text_encoder", "hidden_size")
    """Component and key of its configuration that tell the width of the embeddings that guide the denoiser."""
    denoiser_channels: Callable[[int], int] = field(default=lambda latent_channels: latent_channels)
    """Channels that the denoiser takes, by those of the latents."""
    channels_text: str = "its latents"
    """The contents of those channels, for messages."""
    denoise_steps: Callable[[int, float], int] = cut_steps
    """How many steps image-to-image runs, by the length of the noise schedule and the strength."""
    samples_encoding: bool = True
    """Its image-to-image pipeline draws a sample of what the autoencoder says of a picture, from the seed."""
    supports_denoising_end: bool = False
    """It can stop before the end of the noise schedule, and go on with latents that another model left there."""
    controlnet: bool = False
    """It can be steered by a ControlNet."""
    guidance: Literal["classifier-free", "distilled", "none"] = "classifier-free"
    """The use of the guidance scale: with "classifier-free" guidance the denoiser runs twice, and is led away from what
    a negative prompt says; a "distilled" one takes the scale as an input and knows no negative prompt."""
    guidance_threshold: float = 1.0
    """The scale up to which classifier-free guidance is off."""
    samplers: frozenset[str] | None = None
    """The samplers that its pipelines can work with, by method or whole name; None is all of them."""
    accepted_parameters: frozenset[str] = frozenset()
    """Which parameters and ports it takes of those that only some families take (`PROMPT_PARAMETERS`)."""
    skipped_layers: int = 0
    """Layers of its text encoders that are left out always: the states before them guide the denoiser."""
    denoiser_memory: TokenMemory | None = None
    """The memory of its denoiser; None for a UNet, which is walked through block by block."""
    single_file: SingleFileLayout | None = None
    """Its checkpoints of one file; None where there are none."""
    lora: LoraLayout | None = None
    """Its LoRAs; None where there are none."""

    @property
    def ignored(self) -> frozenset[str]:
        """Parameters and ports that its pipelines would not look at: to give one is an error."""
        unread = PROMPT_PARAMETERS - self.accepted_parameters
        return unread | (frozenset() if self.samples_encoding else {"after_encoding"})

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """The components that are tokenizers."""
        return tuple(encoder.tokenizer for encoder in self.text_encoders.values())

    def does_any(self, tasks: Tasks) -> bool:
        """Tell whether it can do one of some tasks, or none is asked for."""
        return not tasks or any(task in self.tasks for task in tasks)

    def uses_negative_prompt(self, guidance_scale: float) -> bool:
        """Tell whether a negative prompt is looked at, and the denoiser runs twice a step."""
        return self.guidance == "classifier-free" and guidance_scale > self.guidance_threshold
