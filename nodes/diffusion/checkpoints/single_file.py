"""Checkpoints in one .safetensors file: its configuration and its components.

Such a file holds weights under their original names and nothing else. Its configuration comes from

1. the folder beside it with the same stem (``dreamshaper/`` beside ``dreamshaper.safetensors``), in the layout of
   diffusers; JSON files are enough. A component that the file lacks may have its weights there;
2. else the folder of the family that recognises the tensors (`SingleFileLayout`).

The vocabulary of a tokenizer is not in it either: see `tokenizer_files`. The weights are loaded by
`checkpoint_loading`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow import Problem
from graphflow.nodes.diffusion.checkpoints.kinds import OTHER_FILES, configuration_of, known_kinds, other_kind_of
from graphflow.nodes.diffusion.checkpoints.location import model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import Component, UnusableError, check_whole, component_in
from graphflow.nodes.diffusion.checkpoints.safetensors_header import Header
from graphflow.nodes.diffusion.families import Family
from graphflow.nodes.diffusion.families.shapes import mismatches_of_class

__all__ = ["SingleFile", "open_single_file", "vae_of_file"]

_AUTOENCODER_PREFIXES = ("first_stage_model.", "vae.")
"""Beginnings of the names of an autoencoder's tensors."""


@dataclass(frozen=True, slots=True)
class SingleFile:
    """A checkpoint and the folder of its configuration, in the layout of diffusers."""

    reference: str
    path: Path
    header: Header
    folder: Path
    shipped: bool
    """True if the configuration is that of a family, not of a folder beside the file."""

    def index(self, index: Mapping[str, Any], family: Family) -> dict[str, Any]:
        """Return ``model_index.json`` without the optional components that are neither in the file nor beside it.

        Files of Stable Diffusion 3, for example, come with and without T5.
        """
        absent = [name for name in family.optional if self._prefix(name, family) is None and not self._beside(name)]
        return {**index, **{name: [None, None] for name in absent if name in index}}

    def component(self, name: str, cls: str, family: Family, config: Mapping[str, Any]) -> Component:
        """Return a component of the checkpoint, or of the folder beside it.

        Raises UnusableError for one that is in neither, or whose tensors do not fit its configuration.
        """
        prefix = self._prefix(name, family)
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
        own = family.single_file.mismatches if family.single_file and name == family.denoiser else None
        compare = own or mismatches_of_class(cls)
        for subject, found, expected in compare(self.header.starting(prefix), config) if compare else ():
            raise UnusableError(self._misfit(name, subject, found, expected))
        return Component(self.folder / name, None, (self.folder / name / "config.json", self.path), self.path, prefix)

    def _beside(self, name: str) -> bool:
        return not self.shipped and any((self.folder / name).glob("*.safetensors*"))

    def _prefix(self, name: str, family: Family) -> str | None:
        """Find the prefix of a component's tensors in the file; None where it does not hold them."""
        layout = family.single_file
        mark, prefixes = "", family.text_encoders[name].prefixes if name in family.text_encoders else ()
        if name == family.autoencoder:
            prefixes = _AUTOENCODER_PREFIXES
        elif layout and name == family.denoiser:
            mark, prefixes = layout.mark, layout.prefixes
        for prefix in prefixes:
            shapes = self.header.starting(prefix)
            if shapes and (not mark or mark in shapes):
                return prefix
        return None

    def _misfit(self, name: str, subject: str, found: object, expected: object) -> Problem:
        whose = f"that of {self.folder.name}" if self.shipped else f"{self.folder.name}/{name}/config.json"
        message = (
            f'the {name} in the file of the model "{self.reference}" does not fit its configuration, {whose}: '
            f"found {found} for the {subject}, expected {expected}"
        )
        hint = f"put a folder {self.path.stem}/ beside the file with the JSON files of its own architecture"
        if not self.shipped:
            hint = f"correct the JSON files in {self.folder.name}/, or take that folder away"
        return model_problem("model.shape", message, hint)


def open_single_file(reference: str, path: Path) -> SingleFile:
    """Recognise a checkpoint by its header and a folder beside it. Raises UnusableError."""
    header = check_whole(reference, path)
    other = other_kind_of(header)
    if other:
        found, hint = OTHER_FILES[other]
        message = f'the file of the model "{reference}" is {found}; expected a whole model'
        raise UnusableError(model_problem("model.unsupported", message, hint))
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return SingleFile(reference, path, header, beside, shipped=False)
    folder = configuration_of(header)
    if folder is None:
        first = ", ".join(sorted(header.shapes)[:3]) or "nothing"
        message = (
            f'the file of the model "{reference}" has an architecture that GraphFlow does not know (its tensors: '
            f"{first[:160]}…); expected {', '.join(known_kinds())}"
        )
        hint = f"put a folder {beside.name}/ beside the file with model_index.json and the configurations of its parts"
        raise UnusableError(model_problem("model.unsupported", message, hint))
    return SingleFile(reference, path, header, folder, shipped=True)


def vae_of_file(reference: str, path: Path, config_file: Path) -> Component:
    """Return a VAE in a file of its own, in either layout, with the configuration of the VAE that it replaces.

    No file holds a scaling factor, so that of the model is assumed. Raises UnusableError.
    """
    header = check_whole(reference, path, "VAE")
    prefix = next((prefix for prefix in _AUTOENCODER_PREFIXES if header.holds(prefix)), "")
    shapes = header.starting(prefix)
    if "encoder.conv_in.weight" not in shapes or "decoder.conv_in.weight" not in shapes:
        first = ", ".join(sorted(header.shapes)[:3]) or "nothing"
        message = (
            f'the file of the VAE "{reference}" is no VAE (its tensors: {first[:160]}…); expected an AutoencoderKL'
        )
        raise UnusableError(model_problem("model.vae", message, "choose the file of a VAE"))
    config = json.loads(config_file.read_bytes())
    compare = mismatches_of_class("AutoencoderKL")
    for subject, found, expected in compare(shapes, config) if compare else ():
        message = f'the VAE "{reference}" does not fit the model: found {found} for the {subject}, expected {expected}'
        raise UnusableError(model_problem("model.vae", message, "choose a VAE that was made for this model"))
    return Component(config_file.parent, None, (config_file, path), path, prefix)
