"""On the command line a result that is not written is lost: add the nodes that save the outputs nobody saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphflow.build import Workflow
from graphflow.cli.arguments import stem_of
from graphflow.document.workflow import NodeEntry
from graphflow.graph.binder import bind
from graphflow.graph.bound import Graph
from graphflow.graph.flatten import Edge

__all__ = ["bound_with_saved_outputs"]


def bound_with_saved_outputs(
    workflow: Workflow, values: Mapping[str, Any], *, checking: bool = False, offline: bool = False
) -> Graph:
    """Return the graph of a workflow in which every declared picture is saved as ``<workflow>-<output>``.

    What a node of the workflow saves already is left to it. Where the workflow neither declares outputs nor has any
    effect, the pictures of its last nodes are saved. The nodes are added to a copy of the document, so the manifest of
    the run holds what really ran. Raises WorkflowError.
    """
    graph = bind(workflow, values, checking=checking, offline=offline)
    unsaved = _unsaved(graph, workflow)
    if not unsaved:
        return graph
    extended = workflow.model_copy(update={"nodes": dict(workflow.nodes)})
    taken = {claim.casefold() for bound in graph if bound.node.effect for claim in bound.node.claims()}
    for output, (source, edge) in unsaved.items():
        found = graph.bound(edge.source).output_types[edge.output or ""]
        saver = graph.registry.saver(found)
        if saver is None:
            continue
        port = next(port.name for port in saver.signature().inputs.values() if port.required)
        name = _free_name(saver, f"{stem_of(workflow)}-{output}", taken)
        entry = NodeEntry.model_validate({"type": saver.type_id, "name": name, port: {"from": source}})
        extended.nodes[_free_node(extended, f"save-{output}")] = entry
    return bind(extended, values, checking=checking, fetcher=graph.fetcher)


def _unsaved(graph: Graph, workflow: Workflow) -> dict[str, tuple[str, Edge]]:
    """Name of each result that nothing saves, with the reference to it in the document and the edge it stands for."""
    effects = [bound for bound in graph if bound.node.effect]
    saved = {
        source for bound in effects if bound.node.saves for source in bound.inputs.values() if isinstance(source, Edge)
    }
    results: dict[str, tuple[str, Edge]] = {}
    if graph.outputs:
        results = {name: (workflow.outputs[name].source, edge) for name, edge in graph.outputs.items()}
    elif not effects:
        feeding = {value.source for bound in graph for value in bound.inputs.values() if isinstance(value, Edge)}
        for bound in graph:
            # only nodes of the document itself can be referred to, and they have no slash in their name
            if bound.name not in feeding and bound.output_types and "/" not in bound.name:
                results[bound.name] = (bound.name, Edge(bound.name, next(iter(bound.output_types))))
    known = set(graph.order)
    return {name: item for name, item in results.items() if item[1] not in saved and item[1].source in known}


def _free_name(saver: Any, wanted: str, taken: set[str]) -> str:
    number = 1
    while True:
        name = wanted if number == 1 else f"{wanted}-{number}"
        claims = {claim.casefold() for claim in saver(name=name).claims()}
        if not claims & taken:
            taken |= claims
            return name
        number += 1


def _free_node(workflow: Workflow, wanted: str) -> str:
    name, number = wanted[:90], 1
    while name in workflow.nodes:
        number += 1
        name = f"{wanted[:90]}-{number}"
    return name
