"""Signatures: the ports and outputs of a node class, read off the annotations of its ``run`` or ``expand``."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from graphflow.errors import NodeDefinitionError
from graphflow.types import INPUT_FILE, PLAIN_KINDS, PortType

__all__ = ["REQUIRED", "Port", "Signature", "marked", "output_name", "read_signature"]

REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Port:
    """One input of a node class: its name, static type, and default (`REQUIRED` where there is none)."""

    name: str
    type: PortType
    default: Any = REQUIRED

    @property
    def required(self) -> bool:
        """True if a value must be given."""
        return self.default is REQUIRED


@dataclass(frozen=True, slots=True)
class Signature:
    """The ports and outputs read off a node class."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, PortType]
    takes_context: bool
    multiple: bool
    """The return annotation is a NamedTuple: its fields are the outputs."""
    input_types: Mapping[str, PortType]
    required: tuple[str, ...]
    parameters: frozenset[str]
    file_fields: tuple[str, ...]
    """Parameters that are paths of files to read."""


def read_signature(cls: type[BaseModel], method: Callable[..., Any], *, coarse: bool) -> Signature:
    """Read the ports and outputs of a node class off its ``run``, or off the ``expand`` of a ``coarse`` one.

    Raises NodeDefinitionError for what is no signature of a node.
    """
    where = f"node class {cls.__name__} in {cls.__module__}"
    try:
        hints = typing.get_type_hints(method)
    except NameError as error:
        raise NodeDefinitionError(
            f"{where}: the annotation {error.name!r} of {method.__name__} is not importable; "
            "import it outside TYPE_CHECKING"
        ) from error
    inputs, takes_context = _ports(method, hints, coarse=coarse, where=where)
    outputs, multiple = _outputs(hints.get("return"), where)
    return Signature(
        inputs,
        outputs,
        takes_context,
        multiple,
        {name: port.type for name, port in inputs.items()},
        tuple(name for name, port in inputs.items() if port.required),
        frozenset(cls.model_fields),
        marked(cls, INPUT_FILE),
    )


def marked(cls: type[BaseModel], marker: str) -> tuple[str, ...]:
    """Names of the parameters whose annotation carries a marker."""
    return tuple(name for name, field in cls.model_fields.items() if any(item is marker for item in field.metadata))


def _ports(
    method: Callable[..., Any], hints: Mapping[str, Any], *, coarse: bool, where: str
) -> tuple[dict[str, Port], bool]:
    """Read the ports, and whether the context is an argument too."""
    inputs: dict[str, Port] = {}
    takes_context = False
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            if coarse and not inputs and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
                continue  # the Expansion
            raise NodeDefinitionError(f"{where}: write ports after a *, as keyword-only arguments ({parameter.name})")
        if parameter.name == "context":
            takes_context = True
            continue
        if parameter.name not in hints:
            raise NodeDefinitionError(f"{where}: port '{parameter.name}' has no type annotation")
        kind = _port_kind(hints[parameter.name], f"{where}: port '{parameter.name}'")
        inputs[parameter.name] = Port(parameter.name, PortType(kind), parameter.default)
    return inputs, takes_context


def _outputs(returned: Any, where: str) -> tuple[dict[str, PortType], bool]:
    """Read the outputs, and whether they are the fields of a NamedTuple."""
    if returned is None or returned is type(None):
        return {}, False
    if isinstance(returned, type) and issubclass(returned, tuple) and hasattr(returned, "_fields"):
        fields = typing.get_type_hints(returned)
        return {name: PortType(_port_kind(kind, f"{where}: output '{name}'")) for name, kind in fields.items()}, True
    kind = _port_kind(returned, f"{where}: the return value")
    return {output_name(kind): PortType(kind)}, False


def _port_kind(annotation: Any, where: str) -> type:
    """Find the class that an annotation stands for; ``X | None`` is an optional X."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            annotation = members[0]
    if not isinstance(annotation, type):
        raise NodeDefinitionError(f"{where}: {annotation!r} is not a class; a port has one type")
    return annotation


def output_name(kind: type) -> str:
    """Name of an only output: ``value`` for plain types, else the class name in snake case."""
    if kind in PLAIN_KINDS:
        return "value"
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
