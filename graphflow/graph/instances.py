"""Instances: a node of the document becomes an instance of its class, which checks every parameter."""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from graphflow.document.inputs import LiteralValue, Provided, Unbound, literal_problem, resolve_file
from graphflow.document.validation import problems_from, show_typed
from graphflow.document.workflow import Input, parse_reference
from graphflow.errors import Problem, nearest
from graphflow.graph.bound import BoundNode, Constant, Loaded
from graphflow.graph.faults import Faults, declare_hint
from graphflow.graph.flatten import CALL, Edge, FlatNode
from graphflow.node import Node, Port
from graphflow.registry import Registry
from graphflow.types import PLAIN_KINDS, PortType, type_name

__all__ = ["Instances"]


class Instances:
    """Makes the instances of a graph. Faults are added to ``faults``."""

    def __init__(self, registry: Registry, faults: Faults) -> None:
        self.registry, self.faults = registry, faults
        self.loading: set[str] = set()
        """Nodes that are given a file, which another node loads."""
        self.fetching = False
        """True if any node may read from elsewhere."""

    def make(self, flat: FlatNode) -> BoundNode | None:
        """Make the instance of a node, with what stands on its ports; None where it is at fault."""
        cls = self.registry.get(flat.entry.type)
        if cls is None:
            hint = nearest(flat.entry.type, [*self.registry, CALL]) or "`graphflow nodes` lists the node types"
            problem = Problem("node.unknown", f"unknown node type '{flat.entry.type}'", hint=hint)
            self.faults.problems.append(problem.at(node=flat.name, position=flat.position("type")))
            return None
        if flat.entry.uses is not None:
            hint = f'only a node of type "{CALL}" calls a saved workflow'
            self.faults.add(flat, Problem("field.unknown", f"{cls.type_id} has no field 'uses'", "uses", hint))
        signature = cls.signature()
        ports = signature.inputs
        parameters: dict[str, Any] = {}
        inputs: dict[str, Edge | Constant] = {}
        waiting = False
        for key, bound in flat.fields.items():
            if key in signature.parameters:
                if isinstance(bound, LiteralValue):
                    parameters[key] = bound.value
                elif isinstance(bound, Unbound):
                    waiting = True
                    self._open_parameter(flat, cls, key, bound)
                else:
                    hint = "parameters are known before the run; only ports take edges" + _port_hint(cls)
                    through = parse_reference(flat.entry.fields[key])
                    found = f"an edge from the input '{through.name}'" if isinstance(through, Input) else "an edge"
                    message = f"found {found}, expected a value for the parameter '{key}'"
                    self.faults.add(flat, Problem("parameter.edge", message, key, hint))
                    waiting = True
            elif key in ports:
                if isinstance(bound, Edge):
                    inputs[key] = bound
                else:
                    self._port(flat, ports[key], bound, inputs)
            else:
                hint = nearest(key, [*signature.parameters, *ports])
                self.faults.add(flat, Problem("field.unknown", f"{cls.type_id} has no field '{key}'", key, hint))
                waiting = True
        for key in signature.required:
            if key not in flat.fields and key not in flat:
                self._missing_port(flat, cls, ports[key])
        self.fetching |= cls.fetches
        whole = not signature.file_fields or self._resolve_files(cls, flat, parameters)
        node = self._build(cls, flat, parameters)
        return BoundNode(flat.name, node, inputs, flat, complete=not waiting) if whole and node is not None else None

    def _missing_port(self, flat: FlatNode, cls: type[Node], port: Port) -> None:
        hint = f'add "{port.name}": ' + ('"…"' if port.type.kind is str else '{"from": "a node"}')
        message = f"the port '{port.name}' ({port.type}) of {cls.type_id} is not connected"
        self.faults.add(flat, Problem("port.missing", message, None, flat.omitted_hint(port.name) or hint))

    def _open_parameter(self, flat: FlatNode, cls: type[Node], key: str, bound: Unbound) -> None:
        """Hold the declared type of an input that has no value yet against the parameter it is for."""
        kinds, found = _kinds_of_parameter(cls, key), bound.type.kind
        if found is object or (
            found in PLAIN_KINDS and (not kinds or found in kinds or (found is int and float in kinds))
        ):
            return
        expected = " or ".join(type_name(kind) for kind in kinds) or "a value"
        message = f"found {bound.type} from the input '{bound.name}', expected {expected} for the parameter '{key}'"
        self.faults.add(flat, Problem("type.mismatch", message, key, declare_hint(kinds or tuple(PLAIN_KINDS))))

    def _port(
        self, flat: FlatNode, port: Port, bound: Provided | LiteralValue | Unbound, inputs: dict[str, Edge | Constant]
    ) -> None:
        if isinstance(bound, Unbound):
            if bound.type.kind is not object:
                inputs[port.name] = Constant(bound)
        elif isinstance(bound, Provided):
            inputs[port.name] = Constant(self._load(flat, port, bound))
        elif port.type.kind in PLAIN_KINDS:
            fault = literal_problem(bound.value, port.type.kind)
            if fault:
                self.faults.add(flat, Problem(fault[0], fault[1], port.name))
            else:
                value = float(bound.value) if port.type.kind is float else bound.value
                inputs[port.name] = Constant(value)
        else:
            hint = self._connection_hint(port, bound.value)
            self.faults.add(
                flat,
                Problem(
                    "value.type",
                    f"found {show_typed(bound.value)}, expected an edge of type {port.type}",
                    port.name,
                    hint,
                ),
            )

    def _connection_hint(self, port: Port, value: Any) -> str:
        """Suggest what to write instead of a literal on a port that takes edges only."""
        if isinstance(value, str):
            loader = self.registry.loader(port.type.kind) or self.registry.convertible_loader()
            if loader is not None:
                return f'a file is read by a node, for example {loader.type_id}; connect it: {{"from": "its name"}}'
        named = value[0] if isinstance(value, list) and value and isinstance(value[0], str) else "a node"
        return f'connect a node: {{"from": "{named}"}}'

    def _load(self, flat: FlatNode, port: Port, given: Provided) -> Any:
        """Turn a given path into the output of a node that loads it, added once for each input value."""
        if not isinstance(given.value, str):
            return given.value
        loader = self.registry.loader(given.kind)
        if loader is None:
            message = f"no installed node reads {type_name(given.kind)} from a file"
            self.faults.add(flat, Problem("input.loader", message, port.name, "give the value itself, from Python"))
            return Unbound(port.name, PortType(given.kind))
        self.loading.add(flat.name)
        self.fetching = True
        return Loaded(loader, given.value, given.folder)

    def _resolve_files(self, cls: type[Node], flat: FlatNode, parameters: dict[str, Any]) -> bool:
        """Put absolute paths in the place of those that were written; whether none was at fault."""
        whole = True
        for key in cls.signature().file_fields:
            bound = flat.fields.get(key)
            if isinstance(bound, LiteralValue) and isinstance(bound.value, str):
                path = resolve_file(bound, urls=cls.fetches)
                if isinstance(path, Problem):
                    self.faults.add(flat, replace(path, field=key))
                    whole = False
                else:
                    parameters[key] = path
        return whole

    def _build(self, cls: type[Node], flat: FlatNode, parameters: dict[str, Any]) -> Node | None:
        try:
            # what model_validate asks, without what it does around it, which takes as long
            return cls.__pydantic_validator__.validate_python(parameters)  # type: ignore[no-any-return]
        except ValidationError as error:
            for problem, place in problems_from(error):
                key = str(place[0]) if place else ""
                if problem.code == "field.missing" and (key in flat.fields or key in _faulty_references(flat)):
                    continue
                if problem.code == "field.missing":
                    description = cls.model_fields[key].description
                    hint = flat.omitted_hint(key) or f'add "{key}"' + (f": {description}" if description else "")
                    message = f"the parameter '{key}' of {cls.type_id} is missing"
                    self.faults.add(flat, Problem("parameter.missing", message, None, hint))
                else:
                    description = cls.model_fields[key].description if key in cls.model_fields else None
                    hint = problem.hint or (
                        f"{key}: {description}" if description and problem.code not in _PLAIN_FAULTS else ""
                    )
                    self.faults.add(flat, replace(problem, field=key, hint=hint))
        return None


@functools.cache
def _kinds_of_parameter(cls: type[Node], key: str) -> tuple[type, ...]:
    """Return the plain kinds that a parameter may be; empty where it takes anything else too."""
    kinds: list[type] = []
    pending = [cls.model_fields[key].annotation]
    while pending:
        annotation = pending.pop(0)
        if typing.get_origin(annotation) is typing.Literal:
            kinds += [type(value) for value in typing.get_args(annotation)]
        elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
            pending += typing.get_args(annotation)
        elif typing.get_origin(annotation) is typing.Annotated:
            pending.append(typing.get_args(annotation)[0])
        elif annotation in PLAIN_KINDS:
            kinds.append(annotation)
        elif annotation is not type(None):
            return ()
    return tuple(dict.fromkeys(kind for kind in kinds if kind in PLAIN_KINDS))


_PLAIN_FAULTS = ("value.type", "value.range", "value.choice")
"""Faults that say all there is to say; for others the description of the parameter helps."""


def _faulty_references(flat: FlatNode) -> set[str]:
    """Fields that stand in the file but were dropped because their reference is at fault."""
    return set(flat.entry.fields) - set(flat.fields) - set(flat.omitted)


def _port_hint(cls: type[Node]) -> str:
    ports = ", ".join(cls.signature().inputs)
    return f" ({ports})" if ports else ""
