"""The workflow document: what a JSON file holds and what Python code builds.

A `WorkflowDocument` is data. It knows its own form (names, keys, kinds of reference) and nothing of node types;
`graphflow.graph.bound` brings the two together. The format is flat and named: a field of a node is a literal,
``{"input": name}`` or ``{"from": "node"}`` / ``{"from": "node.output"}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, ValidationError

from graphflow.collector import paused_collection
from graphflow.document import json_text
from graphflow.document.json_text import Source
from graphflow.document.validation import KIND_NAMES, problems_from, show
from graphflow.errors import Position, Problem, WorkflowError, nearest
from graphflow.types import DepthMap, Image, Latent, Mask

__all__ = [
    "FILE_INPUTS",
    "FORMAT_VERSION",
    "From",
    "Input",
    "InputDeclaration",
    "NodeEntry",
    "WorkflowDocument",
    "parse_reference",
]

FORMAT_VERSION: Final = 1

NAME = r"[A-Za-z_][A-Za-z0-9_-]*"
Name = Annotated[str, StringConstraints(pattern=rf"^{NAME}$", max_length=100)]
_is_name = re.compile(NAME).fullmatch

BEGINNING: Final = f'begin the file with {{"graphflow": {FORMAT_VERSION}, "nodes": {{…}}}}'

INPUT_KINDS: dict[str, type] = {
    "text": str,
    "int": int,
    "float": float,
    "bool": bool,
    "seed": int,
    "model": str,
    "file": str,
    "image": Image,
    "latent": Latent,
    "mask": Mask,
    "depth_map": DepthMap,
}
"""Kinds of value by the ``type`` of an input. The last four have no literal: a file, a value or an edge gives one."""

FILE_INPUTS = frozenset({"file", "image", "mask", "depth_map"})
"""Types of inputs for which a person may give a path."""


class From(NamedTuple):
    """A reference to an output of another node; ``output`` None means its only or first one."""

    node: str
    output: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return the form in a file."""
        return {"from": self.node if self.output is None else f"{self.node}.{self.output}"}


class Input(NamedTuple):
    """A reference to an input of the workflow."""

    name: str

    def to_json(self) -> dict[str, str]:
        """Return the form in a file."""
        return {"input": self.name}


def parse_reference(value: Any) -> From | Input | str | None:
    """Return the reference that a JSON object stands for; a text says what is wrong with it; None: it is a literal."""
    if type(value) is not dict:
        return None
    if len(value) == 1:
        key, target = next(iter(value.items()))
        if key == "from" and type(target) is str:
            node, dot, output = target.partition(".")
            if _is_name(node) and (not dot or _is_name(output)):
                return From(node, output or None)
            return f'found {target!r} after "from", expected "node" or "node.output"'
        if key == "input" and type(target) is str:
            return Input(target)
    return 'found an object, expected a literal, {"input": name} or {"from": "node.output"}'


class _Document(BaseModel):
    # validators are built when first used: importing must stay quick
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class InputDeclaration(_Document):
    """A named, typed input of a workflow; without a default it must be given.

    With the default null the fields that refer to it are left out where it is not given, so that each node's own
    default holds.
    """

    type: Literal["text", "int", "float", "bool", "seed", "model", "file", "image", "latent", "mask", "depth_map"] = (
        Field(description="kind of value; image, latent, mask and depth_map have no default but null")
    )
    description: str = Field("", description="one line for people")
    default: str | int | float | bool | None = Field(
        None, description="value when none is given; null leaves out what refers to it, so the node's own default holds"
    )

    @property
    def required(self) -> bool:
        """True if a run must give it a value."""
        return "default" not in self.model_fields_set


class NodeEntry(BaseModel):
    """One node of a workflow: its type, and its parameters and ports as further fields."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)

    type: str = Field(description='a node type, or "Workflow" to call a saved workflow')
    uses: str | None = Field(None, description='for "Workflow": name, relative file, or either with "@sha256:…"')

    @property
    def fields(self) -> dict[str, Any]:
        """Everything besides ``type`` and ``uses``, as it stands in the file."""
        return self.__pydantic_extra__ or {}


class OutputReference(BaseModel):
    """A named output of the workflow."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True, defer_build=True)

    source: str = Field(alias="from", description="node or node.output")


class WorkflowDocument(_Document):
    """A workflow document, read from JSON or built in Python; the two are the same thing."""

    schema_uri: str | None = Field(None, alias="$schema", description="for editors: where the JSON Schema is")
    graphflow: Literal[1] = Field(FORMAT_VERSION, description="version of the file format")
    description: str = Field("", description="what the workflow does, for people")
    inputs: dict[Name, InputDeclaration] = Field(default_factory=dict, description="named, typed inputs")
    nodes: dict[Name, NodeEntry] = Field(default_factory=dict, description="nodes by name")
    outputs: dict[Name, OutputReference] = Field(default_factory=dict, description="named outputs")
    sweep: Any = Field(
        None,
        description="values that the workflow is run for: lists by input for all combinations, or a list of objects "
        "with a value for each input; a call of the workflow does not look at it",
    )

    _source: Source | None = PrivateAttr(default=None)
    _folder: Path | None = PrivateAttr(default=None)
    _library: Any = PrivateAttr(default=None)
    _files: dict[str, str] = PrivateAttr(default_factory=dict)

    # Reading and writing -----------------------------------------------------------------------------------------

    @classmethod
    @paused_collection()
    def loads(cls, text: str | bytes, *, name: str = "<text>", folder: Path | None = None, placed: bool = True) -> Self:
        """Read a document from JSON text.

        ``folder`` is where its relative paths start; None means it has none and may name no file. Without ``placed``
        problems have no lines and columns, for nobody has the text. Raises WorkflowError with every fault of form.
        """
        if isinstance(text, bytes):
            try:
                text = text.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                before = error.object[: error.start]
                message = f"found the byte {error.object[error.start]:#04x}, expected UTF-8 text"
                place = Position(name, before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
                hint = "save the file as UTF-8"
                raise WorkflowError([Problem("json.encoding", message, hint=hint, position=place)]) from None
        source = Source(name, text.removeprefix("\ufeff"))
        value, problems = json_text.parse(source)
        if problems:
            raise WorkflowError(problems)
        problems = _check_form(value, source)
        if problems:
            raise WorkflowError(problems)
        try:
            document = cls.model_validate(value)
        except ValidationError as error:
            raise WorkflowError(_form_problems(error, source)) from None
        document._source, document._folder = source if placed else Source(name, ""), folder
        return document

    @classmethod
    def load(cls, path: str | Path, *, name: str | None = None) -> Self:
        """Read a document from a file, which messages call ``name``, by default its path as it was given.

        Raises MissingError if there is none, WorkflowError for every fault of form.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = (
                "there is no such file"
                if isinstance(error, FileNotFoundError)
                else str(error.strerror or error).lower()
            )
            raise WorkflowError.of([Problem("missing.file", f"cannot read the workflow {path}: {reason}")]) from None
        return cls.loads(data, name=name or str(path), folder=path.resolve().parent)

    def to_dict(self) -> dict[str, Any]:
        """Return the document as plain JSON data, as it was written: what was left out stays out."""
        data: dict[str, Any] = {} if self.schema_uri is None else {"$schema": self.schema_uri}
        data["graphflow"] = self.graphflow
        if self.description:
            data["description"] = self.description
        if self.inputs:
            data["inputs"] = {name: item.model_dump(exclude_unset=True) for name, item in self.inputs.items()}
        data["nodes"] = {
            name: {"type": node.type} | ({"uses": node.uses} if node.uses is not None else {}) | node.fields
            for name, node in self.nodes.items()
        }
        if self.outputs:
            data["outputs"] = {name: {"from": output.source} for name, output in self.outputs.items()}
        if self.sweep is not None:
            data["sweep"] = self.sweep
        return data

    def dumps(self) -> str:
        """Return the document as JSON text, indented by two spaces, with a newline at the end."""
        return orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()

    def save(self, path: str | Path) -> Path:
        """Write the document to a file, whole or not at all; returns the path."""
        from graphflow.files import write_atomically

        return write_atomically(Path(path), self.dumps().encode())

    # Places --------------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name in messages: the file, or "<python>" for one that was built in Python."""
        return self._source.name if self._source else "<python>"

    @property
    def folder(self) -> Path | None:
        """Folder in which its relative paths start."""
        return self._folder

    @property
    def library(self) -> Any:
        """The `Library` that holds what it calls, for one that came with its own; else None."""
        return self._library

    @library.setter
    def library(self, library: Any) -> None:
        self._library = library

    @property
    def files(self) -> dict[str, str]:
        """Paths that stand for inputs without a literal where no value is given, as a picture carries them.

        Like every path in a document they start in its folder, and may not leave it.
        """
        return self._files

    @property
    def base_folder(self) -> Path | None:
        """Folder in which its paths start and stay; None for one built in Python, whose paths are the caller's own."""
        return self._folder or (Path.cwd() if self._source else None)

    def position(self, *path: str | int, key: bool = False) -> Position:
        """Source position of the value at ``path``; with ``key``, of the name before it."""
        return self._source.position(path, key=key) if self._source else Position(self.name)


def _check_form(value: Any, source: Source) -> list[Problem]:
    """Check what a validator says badly: what the file is at all, and its format version."""
    if not isinstance(value, Mapping):
        found = KIND_NAMES.get(type(value), "something else")
        message, hint = f"found {found}, expected a workflow object", BEGINNING
        return [Problem("format.kind", message, hint=hint, position=source.position())]
    if "graphflow" in value:
        version = value["graphflow"]
        if version == FORMAT_VERSION and type(version) is int:
            return []
        newer = type(version) is int and version > FORMAT_VERSION
        return [
            Problem(
                "format.version",
                f"found format version {show(version)}, expected {FORMAT_VERSION}",
                field="graphflow",
                hint="install a newer GraphFlow to read it" if newer else f'write "graphflow": {FORMAT_VERSION}',
                position=source.position(("graphflow",)),
            )
        ]
    hint = "its node types are others than those here; write the workflow anew, `graphflow nodes` lists what there is"
    if isinstance(value.get("nodes"), list) and "links" in value:
        found = "a ComfyUI editor file"
    elif value and all(isinstance(node, Mapping) and "class_type" in node for node in value.values()):
        found = "a ComfyUI API file"
    else:
        found, hint = "no format version", BEGINNING
    return [
        Problem(
            "format.version", f"found {found}, expected a GraphFlow workflow", hint=hint, position=source.position()
        )
    ]


def _form_problems(error: ValidationError, source: Source) -> list[Problem]:
    known = {
        (): tuple(field.alias or name for name, field in WorkflowDocument.model_fields.items()),
        ("inputs",): tuple(InputDeclaration.model_fields),
        ("outputs",): ("from",),
    }
    problems = []
    for problem, path in problems_from(error):
        node = str(path[1]) if len(path) > 1 and path[0] == "nodes" else None
        hint, about_key = problem.hint, problem.code == "field.unknown"
        if len(path) == 4 and path[0] == "inputs" and path[2] == "default":
            if path[3] != "str":
                continue  # one fault, reported once for each kind that a default may be
            found = problem.message.partition(", expected ")[0]
            problem = replace(problem, message=f"{found}, expected a text, a number, or true or false")
            path = path[:3]
        if path and path[-1] == "[key]":
            path, about_key, node = path[:-1], True, None
        field = ".".join(str(part) for part in (path[2:] if node else path)) or None
        if problem.code == "field.unknown":
            around = tuple(part for part in path[:-1] if part in ("inputs", "outputs"))
            hint = nearest(str(path[-1]), known.get(around, ()))
        elif problem.code == "field.missing":
            hint, field = f"add {_FORMS[str(path[-1])]}", None if node else ".".join(str(part) for part in path[:-1])
        elif problem.message.endswith("an object"):
            hint = f"write {_FORMS[str(path[0])] if len(path) == 1 else _ENTRIES[str(path[0])]}"
        place = source.position(path, key=about_key)
        problems.append(replace(problem, field=field, hint=hint, node=node, position=place))
    return problems


_ENTRIES = {"nodes": '{"type": "…"}', "inputs": '{"type": "text"}', "outputs": '{"from": "a node"}'}
"""Forms of the entries of a document, for hints."""

_FORMS = {
    "type": '"type": "…"',
    "from": '"from": "a node"',
    "nodes": f'the nodes by name: {{"name": {_ENTRIES["nodes"]}}}',
    "inputs": f'the inputs by name: {{"name": {_ENTRIES["inputs"]}}}',
    "outputs": f'the outputs by name: {{"name": {_ENTRIES["outputs"]}}}',
}
"""Forms of the parts of a document, for hints."""
