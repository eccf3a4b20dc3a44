"""Upscaling networks that are one file of weights (ESRGAN and its kin), known without reading the weights. No torch.

A reference is a path, relative to the current folder, or ``owner/name/file`` for a file of a repository of the Hub that
lies in the local cache; ``owner/name@revision/file`` for another revision. Which architecture a file holds is found out
by spandrel, an optional dependency, when it is loaded; of some it is told from the header (`upscaler_header`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from graphflow import Problem, WorkflowError
from graphflow.nodes.diffusion.checkpoints.kinds import configuration_of
from graphflow.nodes.diffusion.checkpoints.location import HubReference, in_hub_cache, model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import mtime_ns
from graphflow.nodes.diffusion.checkpoints.safetensors_header import DamagedError, read_header
from graphflow.nodes.diffusion.checkpoints.upscaler_header import Recognised, recognise
from graphflow.nodes.files.file_digest import file_digest

__all__ = ["UpscalerFile", "find_upscaler", "is_upscaler_file", "require_upscaler"]

SUFFIXES = (".safetensors", ".pth")

PACKAGES = ("spandrel", "torchvision")
"""What such a file is loaded with; spandrel needs the other one."""


@dataclass(frozen=True, slots=True)
class UpscalerFile:
    """An upscaling network. ``known`` is None where only loading it tells what it is."""

    reference: str
    path: Path
    known: Recognised | None

    @property
    def scale(self) -> int | None:
        """How many times as high and wide its pictures are."""
        return self.known.scale if self.known else None

    @property
    def identity(self) -> list[str]:
        """The content of the file, and the version of the library that knows the architectures."""
        return [file_digest(self.path), importlib.metadata.version("spandrel")]


def is_upscaler_file(reference: str) -> bool:
    """Whether a reference is meant as an upscaling network in a file, whether or not there is one.

    A file that is there and holds a checkpoint of a pipeline (of x4 super-resolution, say) is none: its header says so,
    or the configuration of a pipeline lies in the folder beside it.
    """
    if not reference.endswith(SUFFIXES) or " + " in reference:
        return False
    path = _locate(reference) if reference.endswith(".safetensors") else None
    if not isinstance(path, Path):
        return True
    configured = (path.with_suffix("") / "model_index.json").is_file()
    return not (configured or _is_checkpoint(path, mtime_ns(path)))


@lru_cache(maxsize=256)
def _is_checkpoint(path: Path, written: int) -> bool:
    try:
        return configuration_of(read_header(path)) is not None
    except (OSError, DamagedError):
        return False


def require_upscaler(reference: str) -> UpscalerFile:
    """What is known of an upscaler. Raises WorkflowError (MissingError where something is only absent)."""
    found = find_upscaler(reference)
    if isinstance(found, Problem):
        raise WorkflowError.of([found])
    return found


def find_upscaler(reference: str) -> UpscalerFile | Problem:
    """What is known of an upscaler, or why it cannot be used."""
    path = _locate(reference)
    if isinstance(path, Problem):
        return path
    found = _read(reference, path, (mtime_ns(path), path.stat().st_size))
    if isinstance(found, UpscalerFile):
        for package in PACKAGES:
            if importlib.util.find_spec(package) is None:
                return model_problem(
                    "missing.package",
                    f'the upscaler "{reference}" is loaded with the package {package}, which is not installed',
                    'install it: pip install "graphflow-diffusion[spandrel]"',
                )
    return found


def _locate(reference: str) -> Path | Problem:
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 - Path raises for an unknown user
    if len(reference) <= 1000 and os.path.isfile(path):  # noqa: PTH113 - Path raises for a name that is too long
        return path.absolute()
    match = re.fullmatch(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>[\w./ -]+)", reference)
    if match is None or ".." in reference or reference.startswith((".", "~")):
        message = f'there is no upscaler in the file "{reference[:200]}"'
        return model_problem("missing.model", message, f"it was looked for in {str(path.absolute())[:400]}")
    found = in_hub_cache(HubReference(match["name"], match["revision"] or "main", match["file"]), "upscaler", reference)
    if isinstance(found, Problem):
        # `graphflow models pull` fetches no .pth
        revision = f" --revision {match['revision']}" if match["revision"] else ""
        hint = f'download it once: hf download {match["name"]}{revision} --include "{match["file"]}"'
        return replace(found, message=f'there is no file "{reference}", and {found.message}', hint=hint)
    return found


@lru_cache(maxsize=256)
def _read(reference: str, path: Path, written: tuple[int, int]) -> UpscalerFile | Problem:
    """``written`` is not read: it makes the memory forget a file that was written again."""
    if path.suffix != ".safetensors":
        return UpscalerFile(reference, path, None)
    try:
        known = recognise(read_header(path).shapes)
    except (OSError, DamagedError) as error:
        reason = f"it {error}" if isinstance(error, DamagedError) else str(error)
        message = f'the file "{reference}" cannot be read as safetensors: {reason}'
        return model_problem("model.unsupported", message, "download it again, whole")
    if known and (known.channels_in, known.channels_out) != (3, 3):
        message = (
            f'the upscaler "{reference}" ({known.architecture}) takes {known.channels_in} and gives '
            f"{known.channels_out} channels, expected 3 and 3"
        )
        return model_problem("model.unsupported", message, "choose one for colour pictures")
    return UpscalerFile(reference, path, known)
