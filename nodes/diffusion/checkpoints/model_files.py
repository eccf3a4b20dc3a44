"""The files of a model: configurations as JSON, weights as safetensors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow import Problem
from graphflow.nodes.diffusion.checkpoints.location import model_problem, pickle_problem, pull_command
from graphflow.nodes.diffusion.checkpoints.safetensors_header import DamagedError, Header, read_header
from graphflow.nodes.diffusion.families import LoraLayout
from graphflow.nodes.files.file_digest import file_digest

__all__ = [
    "AppliedLora",
    "Component",
    "UnusableError",
    "check_whole",
    "component_dtype",
    "component_in",
    "mtime_ns",
    "read_json",
    "variant_warning",
]


class UnusableError(Exception):
    """An error for a model that cannot be used, with the `Problem` that says why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(frozen=True, slots=True)
class AppliedLora:
    """A LoRA that changes a component, its weight, and the layout in which the family's LoRAs are read."""

    path: Path
    weight: float
    layout: LoraLayout


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a model that has weights. ``variant`` is the infix of its files (``fp16``), None for plain names."""

    folder: Path
    variant: str | None
    files: tuple[Path, ...]
    checkpoint: Path | None = None
    """A file, among ``files``, that holds this and perhaps other components under their original names. ``folder`` then
    holds the configuration only, and has the name of the component."""
    prefix: str = ""
    """Beginning of the names of its tensors in the checkpoint."""
    loras: tuple[AppliedLora, ...] = ()
    """The LoRAs that are added to its weights, in this order."""

    @property
    def weight_files(self) -> list[Path]:
        """The files of its weights and of its LoRAs."""
        return [*(file for file in self.files if file.suffix == ".safetensors"), *(lora.path for lora in self.loras)]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names and contents of its files: equal components of two models have equal digests."""
        record: list[Any] = [[file.name, file_digest(file)] for file in self.files if file != self.checkpoint]
        if self.checkpoint:
            record.append(["checkpoint", self.folder.name, file_digest(self.checkpoint)])
        record += [["lora", file_digest(lora.path), lora.weight] for lora in self.loras]
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def component_dtype(config: Mapping[str, Any], dtype: str) -> str:
    """Return the dtype of a component in a run with ``dtype``: float32 for float16 with ``force_upcast``.

    The activations of a VAE with that entry in its configuration (SDXL) are beyond the range of float16.
    """
    return "float32" if dtype == "float16" and config.get("force_upcast") is True else dtype


def mtime_ns(path: Path | os.DirEntry[str]) -> int:
    """Return the modification time of a file in ns, 0 where there is none. Caches of its content are keyed by it."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def read_json(reference: str, path: Path) -> dict[str, Any]:
    """Read the object in a JSON file. Raises UnusableError for a file that is missing, damaged or no object."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UnusableError(_incomplete(reference, path)) from None
    except (OSError, ValueError) as error:
        name = f"{path.parent.name}/{path.name}"
        raise UnusableError(
            model_problem("model.not_diffusers", f'{name} of the model "{reference}" cannot be read: {error}')
        ) from error
    if not isinstance(value, dict):
        raise UnusableError(model_problem("model.not_diffusers", f'{path} of the model "{reference}" holds no object'))
    return value


def _incomplete(reference: str, path: Path) -> Problem:
    return model_problem(
        "missing.model_file",
        f'the model "{reference}" is incomplete: there is no {path.parent.name}/{path.name} in {path.parent.parent}',
        "download or save the model again, whole",
    )


def component_in(reference: str, folder: Path) -> Component:
    """Find the safetensors weights in a folder, the fp16 variant before plain files. Raises UnusableError."""
    for variant in ("fp16", None):
        found = _weights_in(reference, folder, variant)
        if found is not None:
            return found
    pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.ckpt"), *folder.glob("*.pt")])
    if pickled:
        what = f'the file {folder.name}/{pickled[0].name} of the model "{reference}"'
        raise UnusableError(pickle_problem(what, str(pickled[0])))
    raise UnusableError(_incomplete(reference, folder / "*.safetensors"))


def _weights_in(reference: str, folder: Path, variant: str | None) -> Component | None:
    config, infix = folder / "config.json", f".{variant}" if variant else ""
    for stem in ("diffusion_pytorch_model", "model"):
        single = folder / f"{stem}{infix}.safetensors"
        if single.exists():
            check_whole(reference, single)
            return Component(folder, variant, (config, single))
        shards = folder / f"{stem}.safetensors.index{infix}.json"
        if shards.exists():
            names = sorted(set(read_json(reference, shards)["weight_map"].values()))
            for name in names:
                if Path(name).name != name or not (folder / name).exists():
                    raise UnusableError(_incomplete(reference, folder / Path(name).name))
                check_whole(reference, folder / name)
            return Component(folder, variant, (config, shards, *(folder / name for name in names)))
    return None


def check_whole(reference: str, path: Path, noun: str = "model") -> Header:
    """Read the header of a file of weights. Raises UnusableError for one that is truncated or not safetensors."""
    try:
        return read_header(path)
    except DamagedError as damaged:
        name = f"{path.parent.name}/{path.name}"
        message = f'the file {name} of the {noun} "{reference}" {damaged}'
        raise UnusableError(model_problem("model.damaged", message, "download or copy it again")) from None
    except OSError as error:
        message = f'the file {path} of the {noun} "{reference}" cannot be read: {error.strerror or error}'
        raise UnusableError(model_problem("model.damaged", message)) from None


def variant_warning(reference: str, components: Mapping[str, Component]) -> Problem | None:
    """Return a warning where only some components have an fp16 variant, so that precisions are mixed; else None."""
    plain = sorted(name for name, component in components.items() if component.variant is None)
    if not plain or len(plain) == len(components) or any(part.checkpoint for part in components.values()):
        return None
    lesser = sorted(set(components) - set(plain))
    message = (
        f'the model "{reference}" has an fp16 variant of {", ".join(lesser)}, but none of {", ".join(plain)}; '
        "those are read from their plain files"
    )
    hint = f"nothing is wrong with that; fetch the model again to have both whole: {pull_command(reference)}"
    return Problem("model.variant", message, "model", hint, "warning")
