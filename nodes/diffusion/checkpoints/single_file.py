"""Checkpoints of one .safetensors file: configuration, components and tokenizers of one. Imports no torch.

Such a file holds weights under their original names and nothing else. Its configuration comes from

1. the folder beside it with the same stem (``dreamshaper/`` beside ``dreamshaper.safetensors``), in the layout of
   diffusers; JSON files are enough. A component that the file lacks may have its weights there;
2. else the folder in ``configurations`` for what the tensors show the file to be.

A tokenizer's vocabulary is not part of it either: see `tokenizer_files`. diffusers loads the weights, in `models`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow.nodes.diffusion.checkpoints.kinds import CONFIGURATIONS, OTHER_FILES, kind_of, other_kind_of
from graphflow.nodes.diffusion.checkpoints.location import model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import Component, UnusableError, check_whole, component_in
from graphflow.nodes.diffusion.checkpoints.safetensors_header import Header
from graphflow.nodes.diffusion.checkpoints.shapes import mismatches

__all__ = ["SingleFile", "open_single_file", "vae_of_file"]

_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "AutoencoderKL": ("first_stage_model.", "vae."),
    "UNet2DConditionModel": ("model.diffusion_model.",),
    "SD3Transformer2DModel": ("model.diffusion_model.", ""),
    "FluxTransformer2DModel": ("model.diffusion_model.", ""),
    "T5EncoderModel": ("text_encoders.t5xxl.transformer.",),
}
"""Where the tensors of a component stand in a file, by its class."""

_TEXT_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
        "text_encoders.clip_l.transformer.",
    ),
    "text_encoder_2": (
        "conditioner.embedders.1.model.",
        "conditioner.embedders.0.model.",
        "text_encoders.clip_g.transformer.",
    ),
}
"""The same of the CLIP text encoders, by their names in the pipeline."""

_MARKS = {
    "UNet2DConditionModel": "input_blocks.0.0.weight",
    "SD3Transformer2DModel": "joint_blocks.0.x_block.attn.qkv.weight",
    "FluxTransformer2DModel": "double_blocks.0.img_attn.qkv.weight",
}
"""A tensor that a component cannot be without, where its prefix alone proves nothing."""


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A checkpoint and where its configuration lies (``folder``, in the layout of diffusers)."""

    reference: str
    path: Path
    header: Header
    folder: Path

    @property
    def shipped(self) -> bool:
        """Whether the configuration is one of ours, and not of a folder beside the file."""
        return self.folder.parent == CONFIGURATIONS

    def index(self, index: Mapping[str, Any], optional: Mapping[str, str]) -> dict[str, Any]:
        """``model_index.json`` without the optional components that are neither in the file nor beside it.

        Of Stable Diffusion 3 there are files with and without T5.
        """
        absent = [name for name, cls in optional.items() if not self._holds(name, cls)]
        return {**index, **{name: [None, None] for name in absent if name in index}}

    def _holds(self, name: str, cls: str) -> bool:
        return _prefix(self.header, name, cls) is not None or self._beside(name)

    def _beside(self, name: str) -> bool:
        return not self.shipped and any((self.folder / name).glob("*.safetensors*"))

    def component(self, name: str, cls: str, config: Mapping[str, Any]) -> Component:
        """A component of the checkpoint, or of the folder beside it. Raises UnusableError."""
        prefix = _prefix(self.header, name, cls)
        if prefix is None:
            if self._beside(name):
                return component_in(self.reference, self.folder / name)
            message = f'the file of the model "{self.reference}" holds no {name} ({cls})'
            beside = self.path.with_suffix("")
            hint = (
                f"choose a file that holds the whole model, or put a folder {beside.name}/ in the layout of diffusers "
                f"beside it, with the weights in {beside.name}/{name}"
            )
            raise UnusableError(model_problem("missing.model_file", message, hint))
        self._check(name, cls, self.header.starting(prefix), config)
        return Component(self.folder / name, None, (self.folder / name / "config.json", self.path), self.path, prefix)

    def _check(self, name: str, cls: str, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> None:
        for what, found, expected in mismatches(cls, shapes, config):
            whose = f"that of {self.folder.name}" if self.shipped else f"{self.folder.name}/{name}/config.json"
            message = (
                f'the {name} in the file of the model "{self.reference}" does not fit its configuration, {whose}: '
                f"found {found} for the {what}, expected {expected}"
            )
            hint = f"put a folder {self.path.stem}/ beside the file with the JSON files of its own architecture"
            if not self.shipped:
                hint = f"correct the JSON files in {self.folder.name}/, or take that folder away"
            raise UnusableError(model_problem("model.shape", message, hint))


def open_single_file(reference: str, path: Path) -> SingleFile:
    """What a checkpoint is, from its header and a folder beside it. Raises UnusableError."""
    header = check_whole(reference, path)
    other = other_kind_of(header)
    if other:
        found, hint = OTHER_FILES[other]
        message = f'the file of the model "{reference}" is {found}; expected a whole model'
        raise UnusableError(model_problem("model.unsupported", message, hint))
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return SingleFile(reference, path, header, beside)
    kind = kind_of(header)
    if kind is None:
        first = ", ".join(sorted(header.shapes)[:3]) or "nothing"
        kinds = ", ".join(sorted(folder.name for folder in CONFIGURATIONS.iterdir()))
        message = (
            f'the file of the model "{reference}" has an architecture that GraphFlow does not know (its tensors: '
            f"{first[:160]}…); expected {kinds}"
        )
        hint = f"put a folder {beside.name}/ beside the file with model_index.json and the configurations of its parts"
        raise UnusableError(model_problem("model.unsupported", message, hint))
    return SingleFile(reference, path, header, CONFIGURATIONS / kind)


def vae_of_file(reference: str, path: Path, config_file: Path) -> Component:
    """A VAE in a file of its own, in either layout, with the configuration of the VAE that it replaces.

    What scales its latents no file tells: it is taken to be of the model's own kind. Raises UnusableError.
    """
    header = check_whole(reference, path, "VAE")
    prefix = next((prefix for prefix in _PREFIXES["AutoencoderKL"] if header.holds(prefix)), "")
    shapes = header.starting(prefix)
    if "encoder.conv_in.weight" not in shapes or "decoder.conv_in.weight" not in shapes:
        first = ", ".join(sorted(header.shapes)[:3]) or "nothing"
        message = (
            f'the file of the VAE "{reference}" is no VAE (its tensors: {first[:160]}…); expected an AutoencoderKL'
        )
        raise UnusableError(model_problem("model.vae", message, "choose the file of a VAE"))
    config = json.loads(config_file.read_bytes())
    for what, found, expected in mismatches("AutoencoderKL", shapes, config):
        message = f'the VAE "{reference}" does not fit the model: found {found} for the {what}, expected {expected}'
        raise UnusableError(model_problem("model.vae", message, "choose a VAE that was made for this model"))
    return Component(config_file.parent, None, (config_file, path), path, prefix)


def _prefix(header: Header, name: str, cls: str) -> str | None:
    """Where the tensors of a component stand in a file, None where it does not hold them."""
    for prefix in _PREFIXES.get(cls) or _TEXT_PREFIXES.get(name, ()):
        shapes = header.starting(prefix)
        if shapes and _MARKS.get(cls, next(iter(shapes))) in shapes:
            return prefix
    return None
