"""Upscaling networks in one file of weights (ESRGAN and its kin), described without reading the weights.

A reference is a path, relative to the current folder, or ``owner/name/file`` for a file of a repository of the Hub in
the local cache; ``owner/name@revision/file`` for another revision. spandrel, an optional dependency, detects the
architecture when the file is loaded; some are recognised by the header (`upscaler_header`).
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
"""The packages that load such a file; spandrel needs torchvision."""


@dataclass(frozen=True, slots=True)
class UpscalerFile:
    """An upscaling network; ``known`` is None where the header does not give its architecture."""

    reference: str
    path: Path
    known: Recognised | None

    @property
    def scale(self) -> int | None:
        """The factor of height and width; None where only loading the file gives it."""
        return self.known.scale if self.known else None

    @property
    def identity(self) -> list[str]:
        """The digest of the file, and the version of spandrel."""
        return [file_digest(self.path), importlib.metadata.version("spandrel")]


def is_upscaler_file(reference: str) -> bool:
    """Return whether a reference has the form of an upscaling network in a file, which need not exist.

    An existing checkpoint of a pipeline (of x4 super-resolution, say) is none: its header shows it, or the
    configuration of a pipeline in the folder beside it.
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
    """Describe an upscaler. Raises WorkflowError (MissingError where a file or package is only absent)."""
    found = find_upscaler(reference)
    if isinstance(found, Problem):
        raise WorkflowError.of([found])
    return found


def find_upscaler(reference: str) -> UpscalerFile | Problem:
    """Describe an upscaler, or return the problem that makes it unusable."""
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
    """Describe a file by its header. ``written`` (ns, bytes) is a part of the cache key only."""
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
