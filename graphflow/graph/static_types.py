"""Static types: what is known of every value before the run, followed along the edges in topological order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from graphflow.document.inputs import Unbound
from graphflow.document.workflow import INPUT_KINDS
from graphflow.errors import NodeDefinitionError
from graphflow.graph.bound import BoundNode, Constant, type_of_constant
from graphflow.graph.edges import check_edge
from graphflow.graph.faults import Faults, declare_hint
from graphflow.graph.flatten import Edge
from graphflow.registry import Registry
from graphflow.types import PortType, accepts

__all__ = ["StaticTypes"]


class StaticTypes:
    """Follows the types through the nodes of a graph, and asks each node what it can check before the run."""

    def __init__(self, registry: Registry, nodes: Mapping[str, BoundNode], faults: Faults) -> None:
        self.registry, self.nodes, self.faults = registry, nodes, faults

    def check(self, order: Iterable[str]) -> None:
        """Check the nodes in an order in which each comes after those that it takes values of."""
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
        if self.faults.problems:
            # Assume the declared type where the source is at fault (already reported), so that this node's own checks
            # still run.
            for port in signature.inputs:
                if port not in known and (port in signature.required or port in bound.flat):
                    known[port] = wanted[port]
        bound.output_types = node.output_types(known)
        if bound.output_types is not signature.outputs and bound.output_types.keys() != signature.outputs.keys():
            given, declared = ", ".join(bound.output_types), ", ".join(signature.outputs)
            raise NodeDefinitionError(f"{node.type_id}.output_types gives {given or 'nothing'}, expected {declared}")
        if bound.complete:
            for problem in node.check(known):
                self.faults.add(bound.flat, problem)
            if node.checks_values:
                constants = {port: source for port, source in bound.inputs.items() if isinstance(source, Constant)}
                plain = {port: constant.value for port, constant in constants.items() if constant.plain}
                for problem in node.check_values(plain):
                    self.faults.add(bound.flat, problem)

    def _converts(self, bound: BoundNode, port: str, found: PortType, wanted: PortType) -> bool:
        """Check whether a value of another type can get to a port; report what is wrong or surprising about it."""
        source = bound.inputs[port]
        origin, coarse = self._describe(source), bound.node.coarse
        problem = check_edge(wanted, found, self.registry, origin, coarse=coarse)
        if problem is None:
            return True
        if isinstance(source, Constant) and isinstance(source.value, Unbound):
            problem = replace(problem, hint=declare_hint(self._arriving(wanted)) or problem.hint)
        self.faults.add(bound.flat, replace(problem, field=port))
        return problem.severity != "error"

    def _arriving(self, target: PortType) -> Iterator[type]:
        """Yield the kinds of input that can get to a port, as they are or converted."""
        for kind in INPUT_KINDS.values():
            if accepts(target, PortType(kind)) or self.registry.route(PortType(kind), target) is not None:
                yield kind

    def _describe(self, source: Edge | Constant) -> str:
        if isinstance(source, Edge):
            return f"'{source.source}'"
        return f"the input '{source.value.name}'" if isinstance(source.value, Unbound) else "the given value"
