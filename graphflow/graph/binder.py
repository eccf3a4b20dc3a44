"""bind: document + registry -> a directed acyclic graph of bound nodes, or every problem there is.

`bind` looks node types up, builds the node instances (which checks every parameter), connects the ports, follows the
static types along the edges in topological order, and asks each node what it can tell before the run. Everything that
can be known without weights is known here.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from graphflow.collector import paused_collection
from graphflow.document.inputs import LiteralValue, Provided, Unbound, literal_problem, resolve_file
from graphflow.document.library import Library
from graphflow.document.validation import problems_from, show_typed
from graphflow.document.workflow import INPUT_KINDS, Input, WorkflowDocument, parse_reference
from graphflow.errors import NodeDefinitionError, Problem, WorkflowError, nearest
from graphflow.fetching import Fetcher
from graphflow.file_answers import cached_answers
from graphflow.graph import edges as checks
from graphflow.graph.bound import BoundNode, Constant, Graph, Loaded, type_of_constant
from graphflow.graph.flatten import CALL, Edge, FlatNode, FlatWorkflow, flatten
from graphflow.graph.topology import cycles, topological_order
from graphflow.node import Node, Port
from graphflow.registry import Registry, default_registry
from graphflow.types import PLAIN_KINDS, PortType, accepts, type_name

__all__ = ["bind", "models_named"]


@cached_answers()
@paused_collection()
def bind(
    document: WorkflowDocument,
    inputs: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
    checking: bool = False,
    library: Library | None = None,
    offline: bool = False,
    fetcher: Fetcher | None = None,
) -> Graph:
    """Turn a document into a graph. Raises WorkflowError with all its faults and warnings.

    ``inputs`` are values for the declared inputs. With ``checking``, an input without a value is no fault: the graph
    can be looked at, not run, and nothing is downloaded. With ``offline`` nothing is asked of the network, and what is
    not on this machine is a fault, also while checking. With the ``fetcher`` of an earlier graph, what that got is used
    again.
    """
    registry = default_registry() if registry is None else registry
    flat = flatten(document, inputs or {}, checking=checking, library=library)
    binder = _Binder(flat, registry, fetcher or Fetcher(offline=offline, checking=checking))
    graph = binder.bind(document)
    if binder.faulty:
        raise WorkflowError.of(binder.problems)
    return graph


def models_named(
    document: WorkflowDocument,
    inputs: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
    library: Library | None = None,
) -> dict[str, list[str]]:
    """The models that a workflow names, each with the nodes that name it. They need not be on this machine.

    Nothing else that is wrong with the workflow is reported: nodes that cannot be built are left out.
    """
    flat = flatten(document, inputs or {}, checking=True, library=library)
    binder = _Binder(flat, default_registry() if registry is None else registry, Fetcher(offline=True, checking=True))
    named: dict[str, list[str]] = {}
    for flat_node in flat.nodes.values():
        bound = binder._instance(flat_node)
        models = bound.node.named_models() if bound is not None else ()
        for reference in models:
            named.setdefault(reference, []).append(flat_node.name)
    return named


class _Binder:
    def __init__(self, flat: FlatWorkflow, registry: Registry, fetcher: Fetcher) -> None:
        self.flat = flat
        self.registry = registry
        self.fetcher = fetcher
        self.problems: list[Problem] = list(flat.problems)
        self.nodes: dict[str, BoundNode] = {}
        self.first: dict[str, Edge] = {}
        """The edge from the first output of each node that one was named of."""
        self.loading: set[str] = set()
        """Nodes that are given a file, which another node loads."""
        self.fetching = False
        """True if any node may read from elsewhere."""

    def bind(self, document: WorkflowDocument) -> Graph:
        for flat_node in self.flat.nodes.values():
            bound = self._instance(flat_node)
            if bound is not None:
                self.nodes[bound.name] = bound
        sources = {name: self._connect(bound) for name, bound in self.nodes.items()}
        for name, edge in self.flat.outputs.items():
            self.flat.outputs[name] = self._named(edge, f"outputs.{name}", None) or edge
        order = topological_order(sources)
        for cycle in cycles(sources) if len(order) < len(sources) else ():  # left out, with everything behind it
            self._report_cycle(cycle)
        self._check_files(order)
        if self.fetcher.offline:
            self._fetch(order)  # nobody is asked, so what is missing is told together with everything else
            self._check_nodes(order)
        else:
            before = list(self.problems)
            self._check_nodes(order)
            # the network is asked for nothing by a workflow that is at fault anyway
            if not self.faulty and self.fetcher.active and self.fetching:
                self.problems = before
                self._fetch(order)
                self._check_nodes(order)
        writing = (bound for bound in self.nodes.values() if bound.node.effect)
        self.problems += checks.check_claims((bound.name, bound.node, bound.flat) for bound in writing)
        if not self.flat.nodes and not self.problems:
            self.problems.append(Problem("workflow.empty", "the workflow has no nodes", position=document.position()))
        warnings = [problem for problem in self.problems if problem.severity == "warning"]
        return Graph(
            document,
            self.registry,
            self.nodes,
            order,
            self.flat.outputs,
            warnings,
            self.flat.called,
            self.flat.library,
            self.fetcher,
        )

    @property
    def faulty(self) -> bool:
        """True if a problem that was found so far is an error."""
        return any(problem.severity == "error" for problem in self.problems)

    def _report(self, flat: FlatNode, problem: Problem) -> None:
        bound = flat.fields.get(problem.field or "")
        position = None
        if isinstance(bound, LiteralValue):
            position = bound.origin
            if bound.via:
                problem = replace(problem, message=f"{problem.message} (from the input '{bound.via}')")
        if position is None:
            position = flat.position(problem.field, key=problem.code == "field.unknown")
        self.problems.append(problem.at(node=flat.name, position=position))

    # Instances -----------------------------------------------------------------------------------------------------

    def _instance(self, flat: FlatNode) -> BoundNode | None:
        cls = self.registry.get(flat.entry.type)
        if cls is None:
            hint = nearest(flat.entry.type, [*self.registry, CALL]) or "`graphflow nodes` lists the node types"
            problem = Problem("node.unknown", f"unknown node type '{flat.entry.type}'", hint=hint)
            self.problems.append(problem.at(node=flat.name, position=flat.position("type")))
            return None
        if flat.entry.uses is not None:
            hint = f'only a node of type "{CALL}" calls a saved workflow'
            self._report(flat, Problem("field.unknown", f"{cls.type_id} has no field 'uses'", "uses", hint))
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
                    self._report(flat, Problem("parameter.edge", message, key, hint))
                    waiting = True
            elif key in ports:
                if isinstance(bound, Edge):
                    inputs[key] = bound
                else:
                    self._port(flat, ports[key], bound, inputs)
            else:
                hint = nearest(key, [*signature.parameters, *ports])
                self._report(flat, Problem("field.unknown", f"{cls.type_id} has no field '{key}'", key, hint))
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
        self._report(flat, Problem("port.missing", message, None, flat.omitted_hint(port.name) or hint))

    def _open_parameter(self, flat: FlatNode, cls: type[Node], key: str, bound: Unbound) -> None:
        """Hold the declared type of an input that has no value yet against the parameter it is for."""
        kinds, found = _kinds_of_parameter(cls, key), bound.type.kind
        if found is object or (
            found in PLAIN_KINDS and (not kinds or found in kinds or (found is int and float in kinds))
        ):
            return
        expected = " or ".join(type_name(kind) for kind in kinds) or "a value"
        message = f"found {bound.type} from the input '{bound.name}', expected {expected} for the parameter '{key}'"
        self._report(flat, Problem("type.mismatch", message, key, _declare_hint(kinds or tuple(PLAIN_KINDS))))

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
                self._report(flat, Problem(fault[0], fault[1], port.name))
            else:
                value = float(bound.value) if port.type.kind is float else bound.value
                inputs[port.name] = Constant(value)
        else:
            hint = self._connection_hint(port, bound.value)
            self._report(
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
        """A given path becomes the output of a node that loads it, added once for each input value."""
        if not isinstance(given.value, str):
            return given.value
        loader = self.registry.loader(given.kind)
        if loader is None:
            message = f"no installed node reads {type_name(given.kind)} from a file"
            self._report(flat, Problem("input.loader", message, port.name, "give the value itself, from Python"))
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
                    self._report(flat, replace(path, field=key))
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
                    told = cls.model_fields[key].description
                    hint = flat.omitted_hint(key) or f'add "{key}"' + (f": {told}" if told else "")
                    message = f"the parameter '{key}' of {cls.type_id} is missing"
                    self._report(flat, Problem("parameter.missing", message, None, hint))
                else:
                    told = cls.model_fields[key].description if key in cls.model_fields else None
                    hint = problem.hint or (f"{key}: {told}" if told and problem.code not in _PLAIN_FAULTS else "")
                    self._report(flat, replace(problem, field=key, hint=hint))
        return None

    # Edges ---------------------------------------------------------------------------------------------------------

    def _named(self, edge: Edge, field_name: str, flat: FlatNode | None) -> Edge | None:
        """The edge with its output spelt out; None where the source is at fault (and that was reported)."""
        if edge.output is None and edge.source in self.first:
            return self.first[edge.source]
        source = self.nodes.get(edge.source)
        if source is None:
            return None
        outputs = source.node.signature().outputs
        if edge.output is None and outputs:
            first = self.first[edge.source] = Edge(edge.source, next(iter(outputs)))
            return first
        if edge.output in outputs:
            return edge
        if outputs:
            message = f"{source.node.type_id} '{edge.source}' has no output '{edge.output}'"
            problem = Problem("reference.output", message, field_name, nearest(edge.output or "", outputs))
        else:
            message = f"{source.node.type_id} '{edge.source}' gives no value"
            problem = Problem("reference.output", message, field_name, "connect the node before it")
        if flat is not None:
            self._report(flat, problem)
        else:
            path = (*field_name.split("."), "from")
            self.problems.append(problem.at(position=source.flat.document.position(*path)))
        return None

    def _connect(self, bound: BoundNode) -> list[str]:
        """Spell the edges out, without those at fault; returns the nodes that they come from."""
        sources = []
        for port, source in [*bound.inputs.items()]:
            if isinstance(source, Edge):
                edge = self._named(source, port, bound.flat)
                if edge is None:
                    del bound.inputs[port]
                else:
                    bound.inputs[port] = edge
                    sources.append(edge.source)
        return sources

    def _report_cycle(self, cycle: list[str]) -> None:
        chain = " -> ".join(f"'{name}'" for name in [*cycle, cycle[0]])
        closing = self.nodes[cycle[0]]
        port = next(p for p, s in closing.inputs.items() if isinstance(s, Edge) and s.source == cycle[-1])
        message, hint = f"the node takes its own output: {chain}", "connect another node"
        if len(cycle) > 1:
            message = f"the nodes form a cycle: {chain}"
            hint = "a workflow runs forward only; cut one of these edges"
        self._report(closing.flat, Problem("graph.cycle", message, port, hint))

    # Files that are fetched ----------------------------------------------------------------------------------------

    def _fetch(self, order: Iterable[str]) -> None:
        """Have every node that reads from elsewhere get what it needs."""
        for name in order:
            bound = self.nodes[name]
            if bound.complete:
                bound.node, problems = self.fetcher.fetch(bound.node)
                for problem in problems:
                    self._report(bound.flat, problem)
            for port, loaded in self._loaded(bound):
                if loaded.node is not None:
                    loaded.node, problems = self.fetcher.fetch(loaded.node)
                    for problem in problems:
                        self._report(bound.flat, replace(problem, field=port))

    @staticmethod
    def _loaded(bound: BoundNode) -> Iterator[tuple[str, Loaded]]:
        """The ports of a node whose value is loaded from a file that was given."""
        for port, source in bound.inputs.items():
            if isinstance(source, Constant) and isinstance(source.value, Loaded):
                yield port, source.value

    # Types ---------------------------------------------------------------------------------------------------------

    def _check_nodes(self, order: Iterable[str]) -> None:
        for name in order:
            try:
                self._follow_types(self.nodes[name])
            except Exception as error:  # a hook of a node raised: a fault of its pack, which has to be found
                error.add_note(f"while node '{name}' ({self.nodes[name].node.type_id}) was checked")
                raise

    def _follow_types(self, bound: BoundNode) -> None:
        node, known = bound.node, bound.input_types
        wanted = node.input_types()
        nodes = self.nodes
        for port, source in bound.inputs.items():
            if isinstance(source, Edge):
                found = nodes[source.source].output_types.get(source.output or "")
                if found is None:
                    continue
            else:
                found = type_of_constant(source.value)
            if accepts(wanted[port], found) or self._converts(bound, port, found, wanted[port]):
                known[port] = found
        signature = node.signature()
        if self.problems:
            # Assume the declared type where the source is at fault (already reported), so that this node's own checks
            # still run.
            for port in signature.inputs:
                if port not in known and (port in signature.required or port in bound.flat):
                    known[port] = wanted[port]
        bound.output_types = node.output_types(known)
        if bound.output_types is not signature.outputs and bound.output_types.keys() != signature.outputs.keys():
            told, declared = ", ".join(bound.output_types), ", ".join(signature.outputs)
            raise NodeDefinitionError(f"{node.type_id}.output_types gives {told or 'nothing'}, expected {declared}")
        if bound.complete:
            for problem in node.check(known):
                self._report(bound.flat, problem)
            if node.checks_values:
                constants = {port: source for port, source in bound.inputs.items() if isinstance(source, Constant)}
                plain = {port: constant.value for port, constant in constants.items() if constant.plain}
                for problem in node.check_values(plain):
                    self._report(bound.flat, problem)

    def _converts(self, bound: BoundNode, port: str, found: PortType, wanted: PortType) -> bool:
        """Check whether a value of another type can get to a port; report what is wrong or surprising about it."""
        source = bound.inputs[port]
        origin, coarse = self._describe(source), bound.node.coarse
        problem = checks.check_edge(wanted, found, self.registry, origin, coarse=coarse)
        if problem is None:
            return True
        if isinstance(source, Constant) and isinstance(source.value, Unbound):
            problem = replace(problem, hint=_declare_hint(self._arriving(wanted)) or problem.hint)
        self._report(bound.flat, replace(problem, field=port))
        return problem.severity != "error"

    def _arriving(self, target: PortType) -> Iterator[type]:
        """The kinds of input that can get to a port, as they are or converted."""
        for kind in INPUT_KINDS.values():
            if accepts(target, PortType(kind)) or self.registry.route(PortType(kind), target) is not None:
                yield kind

    def _describe(self, source: Edge | Constant) -> str:
        if isinstance(source, Edge):
            return f"'{source.source}'"
        return f"the input '{source.value.name}'" if isinstance(source.value, Unbound) else "the given value"

    def _check_files(self, order: Iterable[str]) -> None:
        """Give every path that stands for an input value its loading node."""
        for name in order:
            if name not in self.loading:
                continue
            bound = self.nodes[name]
            for port, loaded in self._loaded(bound):
                path = resolve_file(LiteralValue(loaded.path, loaded.folder), urls=loaded.loader.fetches)
                if isinstance(path, Problem):
                    self._report(bound.flat, replace(path, field=port))
                    continue
                loaded.node = loaded.loader(**{loaded.loader.signature().file_fields[0]: path})
                for problem in loaded.node.check({}):
                    self._report(bound.flat, replace(problem, field=port))


@functools.cache
def _kinds_of_parameter(cls: type[Node], key: str) -> tuple[type, ...]:
    """The plain kinds that a parameter may be; empty where it takes anything else too."""
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


def _declare_hint(kinds: Iterable[type]) -> str:
    """Suggest the type of an input for values of some kinds."""
    fitting = set(kinds)
    names = [name for name, kind in INPUT_KINDS.items() if kind in fitting]
    return f"declare the input as {', '.join(names[:-1])}{' or ' if names[1:] else ''}{names[-1]}" if names else ""


_PLAIN_FAULTS = ("value.type", "value.range", "value.choice")
"""Faults that say all there is to say; for others the description of the parameter helps."""


def _faulty_references(flat: FlatNode) -> set[str]:
    """Fields that stand in the file but were dropped because their reference is at fault."""
    return set(flat.entry.fields) - set(flat.fields) - set(flat.omitted)


def _port_hint(cls: type[Node]) -> str:
    ports = ", ".join(cls.signature().inputs)
    return f" ({ports})" if ports else ""
