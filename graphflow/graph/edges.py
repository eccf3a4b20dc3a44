"""Edges: where each one comes from, what may connect, and which files are written twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from graphflow.errors import Problem, nearest
from graphflow.graph.bound import BoundNode
from graphflow.graph.faults import Faults
from graphflow.graph.flatten import Edge, FlatNode
from graphflow.node import Node
from graphflow.registry import Registry, converter_port
from graphflow.types import PLAIN_KINDS, PortType, accepts, type_name

__all__ = ["Connections", "check_claims", "check_edge"]


class Connections:
    """Spells the edges out: from which output of which node to which port. Faults are added to ``faults``."""

    def __init__(self, nodes: Mapping[str, BoundNode], faults: Faults) -> None:
        self.nodes, self.faults = nodes, faults
        self._first: dict[str, Edge] = {}
        """The edge from the first output of each node that one was named of."""

    def connect(self, bound: BoundNode) -> list[str]:
        """Spell the edges out, without those at fault; returns the nodes that they come from."""
        sources = []
        for port, source in [*bound.inputs.items()]:
            if isinstance(source, Edge):
                edge = self.named(source, port, bound.flat)
                if edge is None:
                    del bound.inputs[port]
                else:
                    bound.inputs[port] = edge
                    sources.append(edge.source)
        return sources

    def named(self, edge: Edge, field_name: str, flat: FlatNode | None) -> Edge | None:
        """Return the edge with its output spelt out; None where the source is at fault (and that was reported)."""
        if edge.output is None and edge.source in self._first:
            return self._first[edge.source]
        source = self.nodes.get(edge.source)
        if source is None:
            return None
        outputs = source.node.signature().outputs
        if edge.output is None and outputs:
            first = self._first[edge.source] = Edge(edge.source, next(iter(outputs)))
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
            self.faults.add(flat, problem)
        else:
            path = (*field_name.split("."), "from")
            self.faults.problems.append(problem.at(position=source.flat.document.position(*path)))
        return None

    def report_cycle(self, cycle: Sequence[str]) -> None:
        """Add the fault of nodes that depend on each other in a circle."""
        chain = " -> ".join(f"'{name}'" for name in [*cycle, cycle[0]])
        closing = self.nodes[cycle[0]]
        port = next(p for p, s in closing.inputs.items() if isinstance(s, Edge) and s.source == cycle[-1])
        message, hint = f"the node takes its own output: {chain}", "connect another node"
        if len(cycle) > 1:
            message = f"the nodes form a cycle: {chain}"
            hint = "a workflow runs forward only; cut one of these edges"
        self.faults.add(closing.flat, Problem("graph.cycle", message, port, hint))


def check_edge(
    target: PortType, source: PortType, registry: Registry, origin: str, *, coarse: bool = False
) -> Problem | None:
    """Find an error where ``source`` cannot get to ``target``, or a warning where it can only through pixels.

    A converter is asked about the value that arrives; its parameters come from the types and are not the user's. On a
    port of a ``coarse`` node no converter is put: the node sees to the value itself.
    """
    if accepts(target, source):
        return None
    route = registry.route(source, target)
    if route is None:
        hint = _givers(target, registry)
        if target.kind is source.kind and target.space != source.space:
            hint = "the two latent spaces cannot be converted; decode to an image in between"
        return Problem("type.mismatch", f"found {source} from {origin}, expected {target}", hint=hint)
    arrives = converter_port(route[0])
    for problem in () if coarse else route[0].check({arrives: source}):
        if problem.field == arrives and problem.severity == "error":
            return problem
    if source.kind is target.kind and len(route) > 1:
        steps = " + ".join(node.type_id for node in route)
        return Problem(
            "type.hop",
            f"found {source} from {origin}, expected {target}: converted by {steps}",
            hint="the two latent spaces are different; the picture goes through pixels and changes a little",
            severity="warning",
        )
    return None


def _givers(target: PortType, registry: Registry) -> str:
    """Make a hint that names node types whose output would fit."""
    if target.kind in PLAIN_KINDS:
        return f"write the value itself, or connect a node that gives {target}"
    names = [
        type_id
        for type_id, node_class in registry.items()
        if any(kind.kind is target.kind for kind in node_class.signature().outputs.values())
    ]
    return f"{type_name(target.kind)} is what {', '.join(sorted(names)[:6])} give" if names else ""


def check_claims(nodes: Iterable[tuple[str, Node, FlatNode]]) -> Iterator[Problem]:
    """Find nodes that would write one file."""
    owners: dict[str, str] = {}
    for name, node, flat in nodes:
        for claim in node.claims() if node.effect else ():
            key = claim.casefold()
            if key in owners:
                yield Problem(
                    "file.claimed_twice",
                    f"writes '{claim}', which '{owners[key]}' writes too",
                    hint="give one of them another name",
                ).at(node=name, position=flat.position())
            else:
                owners[key] = name
