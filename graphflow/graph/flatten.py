"""Inline called workflows: one flat list of nodes, every reference resolved to a node or to a value.

The nodes of a called workflow get the name ``caller/inner``. Nothing here knows node types. Calls are worked off a
queue, so nesting costs no recursion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from graphflow.document.inputs import (
    Binding,
    LiteralValue,
    Omitted,
    Provided,
    Unbound,
    declared_inputs,
    default_binding,
    default_problem,
    literal_problem,
)
from graphflow.document.library import Library, parse_uses
from graphflow.document.validation import show, show_typed
from graphflow.document.workflow import (
    INPUT_KINDS,
    From,
    Input,
    InputDeclaration,
    NodeEntry,
    WorkflowDocument,
    parse_reference,
)
from graphflow.errors import Position, Problem, WorkflowError, nearest
from graphflow.types import PortType, accepts, type_name

__all__ = ["CALL", "Edge", "FlatNode", "FlatWorkflow", "flatten"]

CALL = "Workflow"
"""The ``type`` of a node that calls a saved workflow."""


class Edge(NamedTuple):
    """A reference to an output of a node by its flat name; ``output`` None means its only or first one."""

    source: str
    output: str | None


@dataclass(slots=True)
class FlatNode:
    """A node with every field resolved, and the place where it was written."""

    name: str
    entry: NodeEntry
    fields: dict[str, Provided | LiteralValue | Unbound | Edge]
    document: WorkflowDocument
    path: tuple[str, ...]
    omitted: dict[str, str] = field(default_factory=dict)
    """Fields that are as if they were not there, each with the input that nobody gave."""

    def __contains__(self, name: str) -> bool:
        """Check whether the node has a field of that name, at fault or not."""
        return name in self.entry.fields and name not in self.omitted

    def omitted_hint(self, name: str) -> str:
        """Explain why a field that stands in the file is missing all the same; empty where it does not stand there."""
        source = self.omitted.get(name)
        return f"the input '{source}' may not be left out here: give it another default than null" if source else ""

    def position(self, field_name: str | None = None, *, key: bool = False) -> Position:
        """Source position of the node, or of one of its fields (with ``key``: of the field's name)."""
        return self.document.position(*self.path, *((field_name,) if field_name else ()), key=key)


@dataclass(slots=True)
class FlatWorkflow:
    """A workflow with every call inlined."""

    library: Library
    """The library in which the called workflows were found."""
    nodes: dict[str, FlatNode] = field(default_factory=dict)
    outputs: dict[str, Edge] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    called: dict[str, str] = field(default_factory=dict)
    """Flat name of each call and the file it called."""


@dataclass(slots=True)
class _Frame:
    document: WorkflowDocument
    prefix: str
    bindings: Mapping[str, Binding | Edge]
    files: tuple[str, ...]
    """Files being called, outermost first: a file may not call itself."""
    folder: Path | None
    """Folder in which the paths of the document start; None: it was built in Python, they are the caller's own."""
    used: set[str] = field(default_factory=set)
    """Inputs that some field refers to."""
    edges: dict[str, Edge] = field(default_factory=dict)
    """Edges from the first outputs of nodes, by the name of the node in the document."""


def flatten(
    document: WorkflowDocument, given: Mapping[str, Any], *, checking: bool = False, library: Library | None = None
) -> FlatWorkflow:
    """Inline every called workflow of ``document``. Faults are collected, never raised.

    ``given`` are values for the declared inputs; with ``checking`` an input without a value is no fault.
    """
    library = library or document.library or Library()
    flat = FlatWorkflow(library)
    aliases: dict[Edge, Edge] = {}
    calls: dict[str, list[str]] = {}
    bindings = declared_inputs(document, given, checking=checking, problems=flat.problems)
    top = str(Path(document.name).resolve()) if document.folder else document.name
    queue = deque([_Frame(document, "", bindings, (top,), document.base_folder)])
    while queue:
        frame = queue.popleft()
        for name, entry in frame.document.nodes.items():
            node = _resolve_node(frame, name, entry, flat.problems)
            if entry.type != CALL:
                flat.nodes[node.name] = node
                continue
            calls[node.name] = []
            called = _call(frame, node, library, flat)
            if called is not None:
                queue.append(called)
                calls[node.name] = list(called.document.outputs)
                for output, reference in called.document.outputs.items():
                    target = _edge_of(called.document, called.prefix, reference.source)
                    if target is not None:
                        aliases.setdefault(Edge(node.name, None), target)
                        aliases[Edge(node.name, output)] = target
        _check_outputs(frame, flat.problems)
        if frame.document is document:
            _check_inputs(frame, flat.problems)
    for output, reference in document.outputs.items():
        edge = _edge_of(document, "", reference.source)
        if edge is not None:
            flat.outputs[output] = edge
    if calls:
        _follow(flat, aliases, calls, document)
    return flat


def _resolve_node(frame: _Frame, name: str, entry: NodeEntry, problems: list[Problem]) -> FlatNode:
    fields: dict[str, Provided | LiteralValue | Unbound | Edge] = {}
    node = FlatNode(frame.prefix + name, entry, fields, frame.document, ("nodes", name))
    for key, value in entry.fields.items():
        if type(value) is not dict:
            fields[key] = LiteralValue(value, frame.folder)
            continue
        target = value.get("from")
        if type(target) is str and target in frame.document.nodes and len(value) == 1:
            # the usual case: no name of a node has a dot in it
            edge = frame.edges.get(target)
            if edge is None:
                edge = frame.edges[target] = Edge(frame.prefix + target, None)
            fields[key] = edge
            continue
        reference = parse_reference(value)
        if reference is None:
            fields[key] = LiteralValue(value, frame.folder)
        elif isinstance(reference, str):
            problems.append(Problem("reference.form", reference, key).at(node=node.name, position=node.position(key)))
        elif isinstance(reference, Input):
            frame.used.add(reference.name)
            bound = frame.bindings.get(reference.name)
            if isinstance(bound, Omitted):
                node.omitted[key] = reference.name
            elif bound is not None:
                fields[key] = bound
            elif reference.name not in frame.document.inputs:
                hint = nearest(reference.name, frame.document.inputs) or 'declare it under "inputs"'
                problem = Problem("input.unknown", f"the workflow has no input '{reference.name}'", key, hint)
                problems.append(problem.at(node=node.name, position=node.position(key)))
        elif reference.node not in frame.document.nodes:
            hint = nearest(reference.node, frame.document.nodes)
            problem = Problem("reference.node", f"there is no node '{reference.node}'", key, hint)
            problems.append(problem.at(node=node.name, position=node.position(key)))
        else:
            fields[key] = Edge(frame.prefix + reference.node, reference.output)
    return node


def _edge_of(document: WorkflowDocument, prefix: str, text: str) -> Edge | None:
    reference = parse_reference({"from": text})
    if isinstance(reference, From) and reference.node in document.nodes:
        return Edge(prefix + reference.node, reference.output)
    return None


def _check_inputs(frame: _Frame, problems: list[Problem]) -> None:
    if any(problem.code == "input.unknown" for problem in problems):
        return  # the input that seems unused may be the one whose name is misspelt there
    for name in frame.document.inputs:
        if name not in frame.used:
            position = frame.document.position("inputs", name, key=True)
            hint = f'refer to it, {{"input": "{name}"}}, or remove it'
            message = f"the input '{name}' is declared, but nothing uses it"
            problems.append(Problem("input.unused", message, f"inputs.{name}", hint, "warning", position=position))


def _check_outputs(frame: _Frame, problems: list[Problem]) -> None:
    for name, output in frame.document.outputs.items():
        position = None
        reference = parse_reference({"from": output.source})
        if isinstance(reference, str):
            position = frame.document.position("outputs", name, "from")
            problems.append(Problem("reference.form", reference, f"outputs.{name}", position=position))
        elif isinstance(reference, From) and reference.node not in frame.document.nodes:
            position = frame.document.position("outputs", name, "from")
            hint = nearest(reference.node, frame.document.nodes)
            message = f"there is no node '{reference.node}'"
            problems.append(Problem("reference.node", message, f"outputs.{name}", hint, position=position))


def _call(frame: _Frame, node: FlatNode, library: Library, flat: FlatWorkflow) -> _Frame | None:
    """Return the frame of a called workflow with its inputs bound, or None where the call is at fault."""

    def report(code: str, message: str, field_name: str | None = "uses", hint: str = "") -> None:
        place = node.position(field_name, key=code == "field.unknown")
        flat.problems.append(Problem(code, message, field_name, hint).at(node=node.name, position=place))

    if node.entry.uses is None:
        report("field.missing", "the field 'uses' is missing", None, 'name the workflow to call: "uses": "name"')
        return None
    uses = parse_uses(node.entry.uses)
    if uses is None:
        report(
            "uses.form", f'found {show(node.entry.uses)}, expected a name or a relative file, and perhaps "@sha256:…"'
        )
        return None
    found = library.find(uses.target, frame.document.folder, uses.pin)
    if isinstance(found, Problem):
        flat.problems.append(replace(found, field="uses").at(node=node.name, position=node.position("uses")))
        return None
    if str(found) in frame.files:
        chain = [Path(file).name for file in (*frame.files[frame.files.index(str(found)) :], str(found))]
        report(
            "workflow.recursive",
            "the workflow calls itself: " + " -> ".join(chain),
            hint="a called workflow may not lead back to its caller",
        )
        return None
    try:
        document = library.load(found)
        actual = library.hash(document) if uses.pin else ""
    except WorkflowError as error:
        flat.problems += error.problems
        return None
    if uses.pin and not actual.startswith(uses.pin):
        report(
            "workflow.pin",
            f"'{uses.target}' is pinned to sha256:{uses.pin[:16]}, but {found.name} is sha256:{actual[:16]}",
            hint=f'it was changed since; look at the change, then pin "{uses.target}@sha256:{actual[:16]}"',
        )
        return None
    flat.called[node.name] = str(found)
    bindings: dict[str, Binding | Edge] = {}
    for key in node.fields:
        if key not in document.inputs:
            report("field.unknown", f"'{uses.target}' has no input '{key}'", key, nearest(key, document.inputs))
    for name, declaration in document.inputs.items():
        bindings[name] = _argument(node, name, declaration, document, report, flat.problems)
    return _Frame(document, node.name + "/", bindings, (*frame.files, str(found)), document.base_folder)


def _argument(
    node: FlatNode,
    name: str,
    declaration: InputDeclaration,
    document: WorkflowDocument,
    report: Any,
    problems: list[Problem],
) -> Binding | Edge:
    """Bind an input of a called workflow to what the call gives, else to the default."""
    kind = INPUT_KINDS[declaration.type]
    bound = node.fields.get(name)
    if isinstance(bound, LiteralValue):
        fault = literal_problem(bound.value, kind) if kind in (str, int, float, bool) else None
        if kind not in (str, int, float, bool):
            found = show_typed(bound.value)
            report(
                "value.type",
                f"found {found}, expected an edge of type {type_name(kind)}",
                name,
                'connect a node: {"from": …}',
            )
            return Unbound(name, PortType(kind))
        if fault:
            report(fault[0], fault[1], name)
            return Unbound(name, PortType(kind))
        return bound._replace(via=bound.via or name, origin=bound.origin or node.position(name))
    if (
        isinstance(bound, Unbound)
        and not accepts(PortType(kind), bound.type)
        and {kind, bound.type.kind} & {str, int, float, bool}
    ):
        report("type.mismatch", f"found an input of type {bound.type}, expected {declaration.type}", name)
    if isinstance(bound, (Edge, Provided, Unbound)):
        return bound
    fault_in_default = default_problem(name, declaration, document)
    if fault_in_default:
        problems.append(fault_in_default)
    elif not declaration.required:
        return default_binding(name, declaration, document)
    elif name not in node:
        report(
            "port.missing",
            f"the input '{name}' ({declaration.type}) is not given",
            None,
            node.omitted_hint(name) or f'add "{name}": a value or {{"from": node}}',
        )
    return Unbound(name, PortType(kind))


def _follow(
    flat: FlatWorkflow, aliases: Mapping[Edge, Edge], calls: Mapping[str, list[str]], document: WorkflowDocument
) -> None:
    """Replace references to outputs of calls by references to the nodes inside."""

    def target(edge: Edge) -> Edge:
        while edge in aliases:  # an alias always leads one call deeper, so this ends
            edge = aliases[edge]
        return edge

    for node in flat.nodes.values():
        for key, bound in list(node.fields.items()):
            if isinstance(bound, Edge):
                end = target(bound)
                if end.source in calls:
                    problem = _no_output(end, calls[end.source], key)
                    if flat.called.get(end.source):
                        flat.problems.append(problem.at(node=node.name, position=node.position(key)))
                    del node.fields[key]
                    node.fields[key] = Unbound(key, PortType(object))
                else:
                    node.fields[key] = end
    for name, edge in list(flat.outputs.items()):
        end = target(edge)
        if end.source in calls:
            if flat.called.get(end.source):
                problem = _no_output(end, calls[end.source], f"outputs.{name}")
                flat.problems.append(problem.at(position=document.position("outputs", name, "from")))
            del flat.outputs[name]
        else:
            flat.outputs[name] = end


def _no_output(edge: Edge, outputs: list[str], field_name: str) -> Problem:
    if edge.output is None:
        return Problem("reference.output", f"the workflow called by '{edge.source}' declares no outputs", field_name)
    message = f"the workflow called by '{edge.source}' has no output '{edge.output}'"
    return Problem("reference.output", message, field_name, nearest(edge.output, outputs))
