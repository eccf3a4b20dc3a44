"""The record of what made a result: a workflow with all that it calls and the values of its inputs, as JSON data.

A record stands in every manifest and in the pictures that a run saves. It is whole: called workflows are in it, each
under its content hash, and every call in it is pinned to that hash, so a record means the same when files have changed.
It holds no times and no paths but those that a person gave, so the same run has the same record.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from graphflow.document.library import Library, parse_uses
from graphflow.document.workflow import INPUT_KINDS, InputDeclaration, WorkflowDocument
from graphflow.errors import Problem, WorkflowError
from graphflow.files import is_file
from graphflow.graph.bound import Graph
from graphflow.record.png_text import SIGNATURE, text_of, with_text
from graphflow.version import __version__

__all__ = [
    "KEYWORD",
    "RECORD_VERSION",
    "RecordedLibrary",
    "document_in_record",
    "holds_record",
    "make_record",
    "record_in_png",
    "records_of",
    "with_inputs",
    "with_record",
]

Document = TypeVar("Document", bound=WorkflowDocument)

RECORD_VERSION = 1

KEYWORD = "graphflow"
"""Under which a PNG file holds a record."""

_OTHERS = {b"\xff\xd8\xff": "JPEG", b"RIFF": "WebP", b"GIF8": "GIF"}
"""First bytes of pictures that hold no record."""


def make_record(
    document: WorkflowDocument,
    inputs: Mapping[str, Any],
    environment: Mapping[str, str],
    library: Library | None = None,
) -> dict[str, Any]:
    """Return the record of a run of ``document`` with values for its inputs. Raises WorkflowError."""
    library = library or document.library or Library()
    called: dict[str, Any] = {}
    waiting: list[WorkflowDocument] = []
    data = _pinned(document, library, waiting)
    while waiting:
        callee = waiting.pop()
        digest = library.hash(callee)
        if digest not in called:
            called[digest] = _pinned(callee, library, waiting)
    data.pop("sweep", None)
    return {
        "record": RECORD_VERSION,
        "graphflow": __version__,
        "environment": dict(environment),
        "workflow": data,
        "called": called,
        "inputs": {name: _to_json(value) for name, value in inputs.items()},
    }


def records_of(
    graphs: Mapping[str, Graph],
    points: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Any],
    environment: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Return the record of each graph of a run, by its folder: every point of a sweep has its own inputs."""
    own = points or [{}]
    first: dict[str, Any] | None = None
    records = {}
    for (folder, graph), point in zip(graphs.items(), own, strict=True):
        if first is None:
            first = make_record(graph.document, {}, environment, graph.library)
        given = {**graph.document.files, **inputs, **point}
        written = {name: _to_json(value) for name, value in given.items()}
        records[folder] = {**first, "inputs": written}
    return records


class RecordedLibrary(Library):
    """The called workflows of a record, found by the hash that each call is pinned to."""

    def __init__(self, called: Mapping[str, Any], folder: Path | None) -> None:
        super().__init__()
        self._called_data = called
        self._folder = folder
        self._recorded: dict[Path, WorkflowDocument] = {}

    def find(self, target: str, caller: Path | None, pin: str | None = None) -> Path | Problem:
        """Return a name for the document that the pin stands for."""
        if pin is not None and pin in self._called_data:
            return Path(pin, Path(target).name or "workflow")
        hint = "a record has every workflow that it calls: it is damaged, or was changed by hand"
        return Problem("workflow.unknown", f"the record does not hold the workflow '{target}'", hint=hint)

    def load(self, path: Path) -> WorkflowDocument:
        """Read the document. Raises WorkflowError for faults of form."""
        if path not in self._recorded:
            text = orjson.dumps(self._called_data[path.parent.name])
            self._recorded[path] = WorkflowDocument.loads(
                text, name=f"<{path.name}>", folder=self._folder, placed=False
            )
        return self._recorded[path]


def document_in_record(
    cls: type[Document], record: Any, *, name: str, folder: Path | None
) -> tuple[Document, dict[str, Any]]:
    """Return the workflow of a record, of class ``cls``, and the values of its inputs.

    Paths in the workflow start in ``folder``. Raises WorkflowError for what is no record.
    """
    found = record.get("record") if isinstance(record, Mapping) else None
    if found != RECORD_VERSION:
        newer = isinstance(found, int) and found > RECORD_VERSION
        message = f"{name}: found a record of version {found}, expected {RECORD_VERSION}"
        hint = "install a newer GraphFlow to read it" if newer else "it was not written by GraphFlow"
        raise WorkflowError([Problem("record.version", message, hint=hint)])
    workflow, called, inputs = record.get("workflow"), record.get("called"), record.get("inputs")
    if not (isinstance(workflow, Mapping) and isinstance(called, Mapping) and isinstance(inputs, Mapping)):
        raise WorkflowError([Problem("record.damaged", f"{name}: found a record without workflow, called or inputs")])
    document = cls.loads(orjson.dumps(workflow), name=name, folder=folder, placed=False)
    document.library = RecordedLibrary(called, folder)
    return document, dict(inputs)


def record_in_png(path: Path) -> dict[str, Any] | None:
    """Read the record in a PNG file; None for a file that is no PNG. Raises WorkflowError for one without a record."""
    if not is_file(path):
        return None  # what is read from a pipe cannot be read a second time, as the workflow that it is
    try:
        with path.open("rb") as file:
            start = file.read(len(SIGNATURE))
            for beginning, kind in _OTHERS.items():
                if start.startswith(beginning):
                    message = f"{path}: found a {kind} picture, expected a workflow, or a PNG picture that holds one"
                    raise WorkflowError([Problem("record.missing", message, hint="give the workflow itself")])
            if start != SIGNATURE:
                return None
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                text = text_of(data, KEYWORD)
        record = None if text is None else orjson.loads(text)
    except OSError:
        return None
    except ValueError as error:
        raise WorkflowError(
            [Problem("record.damaged", f"{path}: the workflow in it cannot be read: {error}")]
        ) from None
    if not isinstance(record, dict):
        hint = "give the workflow itself; PNG files that GraphFlow saved have it, unless it was left out or stripped"
        raise WorkflowError([Problem("record.missing", f"{path}: found a picture without a workflow in it", hint=hint)])
    return record


def with_record(png: bytes, record: Mapping[str, Any]) -> bytes:
    """Put a record into a PNG file, in place of one that it has."""
    return with_text(png, KEYWORD, json.dumps(record, ensure_ascii=False, sort_keys=True))


def holds_record(path: Path) -> bool:
    """Check whether a file is a PNG file with a record in it."""
    try:
        return record_in_png(path) is not None
    except WorkflowError:
        return False


def with_inputs(document: WorkflowDocument, inputs: Mapping[str, Any]) -> None:
    """Make recorded values what a document takes where none are given. What is not recorded has to be given."""
    for name, value in inputs.items():
        declaration = document.inputs.get(name)
        if declaration is None:
            continue
        if INPUT_KINDS[declaration.type] in (str, int, float, bool):
            document.inputs[name] = declaration.model_copy(update={"default": value})
        elif isinstance(value, str):
            document.files[name] = value
        elif not declaration.required:  # its own default is not what it had
            fields = declaration.model_dump(exclude_unset=True, exclude={"default"})
            document.inputs[name] = InputDeclaration.model_validate(fields)


def _pinned(document: WorkflowDocument, library: Library, waiting: list[WorkflowDocument]) -> dict[str, Any]:
    """Return a document as data with every call pinned; what it calls is added to ``waiting``."""
    data = document.to_dict()
    for name, callee in library.called(document).items():
        uses = parse_uses(data["nodes"][name]["uses"])
        assert uses is not None  # it was found by that
        data["nodes"][name]["uses"] = f"{uses.target}@sha256:{library.hash(callee)}"
        waiting.append(callee)
    return data


def _to_json(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value) if isinstance(value, Path) else {"unrecorded": type(value).__name__}
