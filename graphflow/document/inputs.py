"""Values for the inputs of a workflow: declared types, defaults, and what a caller gives.

A value that stands in a file belongs to the folder of that file: a path in it starts there and may not leave it. A
value that a person gives (on the command line, in Python) is trusted: its paths start in the current folder. An https
URL is no path: it may stand in either, for nodes that can fetch it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

from graphflow.document.validation import KIND_NAMES, show, show_typed
from graphflow.document.workflow import INPUT_KINDS, InputDeclaration, WorkflowDocument
from graphflow.errors import Position, Problem, nearest
from graphflow.files import real_path
from graphflow.types import PortType, type_name

__all__ = [
    "OMITTED",
    "LiteralValue",
    "Omitted",
    "Provided",
    "Unbound",
    "declared_inputs",
    "default_binding",
    "literal_problem",
    "resolve_file",
]


class LiteralValue(NamedTuple):
    """A value with the place it comes from. ``folder`` None: trusted, paths start in the current folder."""

    value: Any
    folder: Path | None = None
    via: str | None = None
    """The workflow input it came through, for messages."""
    origin: Position | None = None
    """Place where it was written, if not in the field that it stands for."""


@dataclass(frozen=True, slots=True)
class Provided:
    """A ready value of a kind that has no literal (an Image, a Latent), or the path from which one is loaded."""

    value: Any
    kind: type
    folder: Path | None = None
    """Folder in which a path starts and stays; None: it is trusted, and starts in the current folder."""


@dataclass(frozen=True, slots=True)
class Unbound:
    """An input without a value, while a workflow is only being checked."""

    name: str
    type: PortType


class Omitted(Enum):
    """The kind of `OMITTED`."""

    OMITTED = "left out"


OMITTED: Final = Omitted.OMITTED
"""An input whose default is null and that nobody gave: the fields that refer to it are as if they were not there."""

Binding = LiteralValue | Provided | Unbound | Omitted


def literal_problem(value: Any, kind: type) -> tuple[str, str] | None:
    """Find the code and text of the fault in a literal for a plain kind; None if it is right. Nothing is converted."""
    found = type(value)
    if found is kind or (kind is float and found is int):
        if found is float and not (-float("inf") < value < float("inf")):
            return "value.type", f"found {value}, expected a finite number"
        if found is int and not -(2**63) <= value < 2**64:
            return "value.range", f"found {str(value)[:40]}, expected an integer of at most 64 bits"
        return None
    return "value.type", f"found {show_typed(value)}, expected {KIND_NAMES.get(kind, type_name(kind))}"


def declared_inputs(
    document: WorkflowDocument, given: Mapping[str, Any], *, checking: bool, problems: list[Problem]
) -> dict[str, Binding]:
    """Bind each declared input of the outermost workflow; faults are added to ``problems``."""
    for name in given:
        if name not in document.inputs:
            known = "`graphflow workflows FILE` lists its inputs" if document.inputs else "this workflow has no inputs"
            hint = nearest(name, document.inputs) or known
            problems.append(
                Problem(
                    "input.unknown", f"the workflow has no input '{name}'", hint=hint, position=Position(document.name)
                )
            )
    bindings: dict[str, Binding] = {}
    for name, declaration in document.inputs.items():
        kind = INPUT_KINDS[declaration.type]
        if name in given:
            bindings[name] = _given(name, declaration, kind, given[name], document, problems)
            continue
        if name in document.files:
            bindings[name] = Provided(document.files[name], kind, document.base_folder)
            continue
        fault = default_problem(name, declaration, document)
        if fault:
            problems.append(fault)
            bindings[name] = Unbound(name, PortType(kind))
        elif not declaration.required:
            bindings[name] = default_binding(name, declaration, document)
        else:
            bindings[name] = Unbound(name, PortType(kind))
            if not checking:
                hint = f"give one: --set {name}=…, or run({name}=…)"
                message = f"the input '{name}' ({declaration.type}) has no value and no default"
                problems.append(
                    Problem("input.missing", message, hint=hint, position=document.position("inputs", name))
                )
    return bindings


def default_binding(name: str, declaration: InputDeclaration, document: WorkflowDocument) -> Binding:
    """Bind an input to the default of its declaration."""
    if declaration.default is None:
        return OMITTED
    return LiteralValue(declaration.default, document.base_folder, name)


def default_problem(name: str, declaration: InputDeclaration, document: WorkflowDocument) -> Problem | None:
    """Find the fault in the default of a declaration, if there is one."""
    kind = INPUT_KINDS[declaration.type]
    if declaration.default is None:
        return None
    fault: tuple[str, str] | None
    if kind in (str, int, float, bool):
        fault, hint = literal_problem(declaration.default, kind), ""
    else:
        fault = "input.default", f"found a default, but an input of type {declaration.type} has no literal"
        hint = f"leave the default out, or write null if it need not be given; a run gives a file: --set {name}=…"
    if fault is None:
        return None
    position = document.position("inputs", name, "default")
    return Problem(fault[0], fault[1], f"inputs.{name}.default", hint, position=position)


def _given(
    name: str,
    declaration: InputDeclaration,
    kind: type,
    value: Any,
    document: WorkflowDocument,
    problems: list[Problem],
) -> Binding:
    if kind in (str, int, float, bool):
        fault = literal_problem(value, kind)
        if fault:
            problems.append(Problem(fault[0], f"input '{name}': {fault[1]}", position=Position(document.name)))
            return Unbound(name, PortType(kind))
        return LiteralValue(value, via=name)
    if isinstance(value, (kind, str, Path)):
        return Provided(str(value) if isinstance(value, Path) else value, kind)
    message = f"input '{name}': found {type(value).__name__}, expected {type_name(kind)} or the path of a file"
    problems.append(Problem("value.type", message, position=Position(document.name)))
    return Unbound(name, PortType(kind))


_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://|(https?|ftp|file|data):", re.IGNORECASE)
"""The beginning of a URL. A scheme has two letters at least: one letter is a drive of Windows."""


def resolve_file(literal: LiteralValue, *, urls: bool = False) -> str | Problem:
    """Find the absolute path that a file parameter means, or the reason why it may not be read.

    With ``urls`` an https URL is returned as it is; the node that fetches it says what is wrong with it.
    """
    text = literal.value
    if not text or "\0" in text:
        return Problem("path.empty", f"found {show(text)}, expected the path of a file")
    scheme = _SCHEME.match(text)
    if scheme is not None:
        return _url(text, (scheme[1] or scheme[2]).lower(), urls)
    if literal.folder is None:
        return str(real_path(Path(os.path.expanduser(text))))  # noqa: PTH111 - Path raises for an unknown user
    root = real_path(literal.folder)
    path = real_path(root / text)
    if not path.is_relative_to(root):
        return Problem(
            "path.outside",
            f"{show(text)} is outside of the workflow's folder",
            hint="a workflow file may read only below its own folder; make it an input and give the path with --set",
        )
    return str(path)


def _url(text: str, scheme: str, urls: bool) -> str | Problem:
    if not urls:
        hint = "download it, and give the path of the file"
        return Problem("path.url", f"found a URL ({scheme}), expected the path of a file", hint=hint)
    if scheme != "https":
        hint = "of URLs only https is read; a file is given by its path"
        return Problem("url.scheme", f"found {scheme}:, expected an https:// URL or the path of a file", hint=hint)
    return text
