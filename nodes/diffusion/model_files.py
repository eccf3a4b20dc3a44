"""The files of a model: configurations as JSON, weights as safetensors. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow import Problem
from graphflow.nodes.diffusion.model_reference import model_problem
from graphflow.nodes.file_digest import file_digest

__all__ = ["Component", "UnusableError", "changed", "component_dtype", "component_in", "read_json"]


class UnusableError(Exception):
    """A model that cannot be used, and why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a model that has weights. ``variant`` is the infix of its files (``fp16``), None for plain names."""

    folder: Path
    variant: str | None
    files: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names and contents of its files: equal parts of two models have an equal digest."""
        record = [[file.name, file_digest(file)] for file in self.files]
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def component_dtype(config: Mapping[str, Any], dtype: str) -> str:
    """In what a component computes in a run with ``dtype``.

    A VAE whose configuration says ``force_upcast`` (that of SDXL) has activations larger than float16 can tell.
    """
    return "float32" if dtype == "float16" and config.get("force_upcast") is True else dtype


def changed(path: Path) -> int:
    """When a file was written (ns), 0 where there is none: what was read from it is remembered as long."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def read_json(reference: str, path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UnusableError."""
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
    """The weights in a folder: plain files before variants, safetensors only. Raises UnusableError."""
    config = folder / "config.json"
    for stem in ("diffusion_pytorch_model", "model"):
        for variant in (None, "fp16"):
            single = folder / (f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors")
            if single.exists():
                return Component(folder, variant, (config, single))
            shards = folder / (
                f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
            )
            if shards.exists():
                names = sorted(set(read_json(reference, shards)["weight_map"].values()))
                for name in names:
                    if Path(name).name != name or not (folder / name).exists():
                        raise UnusableError(_incomplete(reference, folder / Path(name).name))
                return Component(folder, variant, (config, shards, *(folder / name for name in names)))
    pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.ckpt"), *folder.glob("*.pt")])
    if pickled:
        raise UnusableError(
            model_problem(
                "model.pickle_only",
                f'the weights {folder.name}/{pickled[0].name} of the model "{reference}" are a pickle, which can run '
                "code when it is read; expected .safetensors",
                "choose a revision or a copy of the model with .safetensors files",
            )
        )
    raise UnusableError(_incomplete(reference, folder / "*.safetensors"))
