"""Models of a node pack, for the command line: what they are, and what has to be downloaded for them.

The engine knows no models. A pack that does names an object in its module, which is imported when somebody asks::

    MODEL_LIBRARY = "my_package.my_models:library"
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from graphflow.errors import Problem
from graphflow.registry import ENTRY_POINT_GROUP, import_packs

__all__ = ["Download", "ModelDescription", "ModelLibrary", "RemoteFile", "model_library"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """A model as far as it is known without its weights. Sizes in pixels and bytes; None for what is not known."""

    reference: str
    family: str | None = None
    space: str | None = None
    width: int | None = None
    height: int | None = None
    nbytes: int | None = None
    problems: tuple[Problem, ...] = ()
    """Problems that keep it from being used on this machine; none where it is there."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository, with its size in bytes; None where the server does not say."""

    name: str
    nbytes: int | None


@dataclass(frozen=True, slots=True)
class Download:
    """Files of one commit of a repository that are not on this machine yet."""

    repository: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]


class ModelLibrary(Protocol):
    """The models of a node pack."""

    def describe(self, reference: str) -> ModelDescription:
        """Describe a model. Raises nothing for one that is missing or broken: its problems say so."""

    def missing(self, reference: str, variant: str | None) -> Sequence[Download]:
        """Ask the servers what has to be downloaded for a model; ``variant`` is the preferred one of weights.

        Files that are found to be needed only once these are there are listed when it is asked again.
        Raises WorkflowError.
        """

    def fetch(self, download: Download, file: RemoteFile) -> None:
        """Download one file. Raises WorkflowError."""


def model_library() -> ModelLibrary | None:
    """Return the library of the first installed pack that offers one."""
    for pack in import_packs(ENTRY_POINT_GROUP, "the node pack"):
        name = getattr(pack, "MODEL_LIBRARY", None)
        if name is not None:
            module, _, attribute = name.partition(":")
            found: ModelLibrary = getattr(importlib.import_module(module), attribute)
            return found
    return None
