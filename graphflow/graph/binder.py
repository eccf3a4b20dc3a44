"""bind: document + registry -> a directed acyclic graph of bound nodes, or every problem there is.

The stages, each a module of its own: node instances are made, which checks every parameter (`instances`); the ports are
connected (`edges`); the static types are followed along the edges in topological order, and each node is asked what it
can tell before the run (`static_types`). Everything that can be known without weights is known here. No stage stops at
a fault: it is added to `faults`, and what depends on it is left out or assumed to be right.

State while a graph is bound (``_Binder``):

===================  ===============================================================================
``flat``             the nodes of the document and of all that it calls, with references resolved
``faults``           every problem so far
``nodes``            name -> instance with its ports: first as written, then connected, then typed
``instances``        also: the nodes that are given a file to load, and whether any node fetches
``fetcher``          asked for what lies elsewhere, once nothing else is at fault
===================  ===============================================================================

For example ``{"draft": {"type": "Text2Image", "prompt": "a ball", "steps": 0}, "save": {"type": "SaveImage", "image":
{"from": "draft"}}}``:

1. instances: ``draft`` is left out, for ``steps`` is out of range (a fault); ``save`` is made, with the edge
   ``draft`` (no output named yet) on its port ``image``.
2. edges: the source is missing, which was reported, so the edge is dropped; the order is ``save``.
3. types: there is a fault, so ``save`` is given the declared type of its port, Image, and its own checks still run.
4. claims: ``save`` alone writes its file. The one fault is raised, with the place of ``steps`` in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphflow.collector import paused_collection
from graphflow.document.inputs import LiteralValue, resolve_file
from graphflow.document.library import Library
from graphflow.document.workflow import WorkflowDocument
from graphflow.errors import Problem, WorkflowError
from graphflow.fetching import Fetcher
from graphflow.file_answers import cached_answers
from graphflow.graph.bound import BoundNode, Constant, Graph, Loaded
from graphflow.graph.edges import Connections, check_claims
from graphflow.graph.faults import Faults
from graphflow.graph.flatten import FlatWorkflow, flatten
from graphflow.graph.instances import Instances
from graphflow.graph.static_types import StaticTypes
from graphflow.graph.topology import cycles, topological_order
from graphflow.registry import Registry, default_registry

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
    if binder.faults.fatal:
        raise WorkflowError.of(binder.faults.problems)
    return graph


def models_named(
    document: WorkflowDocument,
    inputs: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
    library: Library | None = None,
) -> dict[str, list[str]]:
    """Return the models that a workflow names, each with the nodes that name it. They need not be on this machine.

    Nothing else that is wrong with the workflow is reported: nodes that cannot be built are left out.
    """
    flat = flatten(document, inputs or {}, checking=True, library=library)
    instances = Instances(default_registry() if registry is None else registry, Faults())
    named: dict[str, list[str]] = {}
    for flat_node in flat.nodes.values():
        bound = instances.make(flat_node)
        models = bound.node.named_models() if bound is not None else ()
        for reference in models:
            named.setdefault(reference, []).append(flat_node.name)
    return named


class _Binder:
    def __init__(self, flat: FlatWorkflow, registry: Registry, fetcher: Fetcher) -> None:
        self.flat, self.registry, self.fetcher = flat, registry, fetcher
        self.faults = Faults(flat.problems)
        self.nodes: dict[str, BoundNode] = {}
        self.instances = Instances(registry, self.faults)
        self.edges = Connections(self.nodes, self.faults)
        self.types = StaticTypes(registry, self.nodes, self.faults)

    def bind(self, document: WorkflowDocument) -> Graph:
        for flat_node in self.flat.nodes.values():
            bound = self.instances.make(flat_node)
            if bound is not None:
                self.nodes[bound.name] = bound
        order = self._connect()
        self._check_files(order)
        self._check_nodes(order)
        problems = self.faults.problems
        writing = (bound for bound in self.nodes.values() if bound.node.effect)
        problems += check_claims((bound.name, bound.node, bound.flat) for bound in writing)
        if not self.flat.nodes and not problems:
            problems.append(Problem("workflow.empty", "the workflow has no nodes", position=document.position()))
        warnings = [problem for problem in problems if problem.severity == "warning"]
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

    def _connect(self) -> list[str]:
        """Connect the nodes and the outputs; returns the nodes in topological order, without those of a cycle."""
        sources = {name: self.edges.connect(bound) for name, bound in self.nodes.items()}
        for name, edge in self.flat.outputs.items():
            self.flat.outputs[name] = self.edges.named(edge, f"outputs.{name}", None) or edge
        order = topological_order(sources)
        for cycle in cycles(sources) if len(order) < len(sources) else ():  # left out, with everything behind it
            self.edges.report_cycle(cycle)
        return order

    def _check_nodes(self, order: Sequence[str]) -> None:
        """Follow the types, and have nodes fetch what they read from elsewhere."""
        if self.fetcher.offline:
            self._fetch(order)  # nobody is asked, so what is missing is reported with everything else
            self.types.check(order)
            return
        before = list(self.faults.problems)
        self.types.check(order)
        # the network is asked for nothing by a workflow that is at fault anyway
        if not self.faults.fatal and self.fetcher.active and self.instances.fetching:
            self.faults.problems = before
            self._fetch(order)
            self.types.check(order)

    def _check_files(self, order: Iterable[str]) -> None:
        """Give every path that stands for an input value its loading node."""
        for name in order:
            if name not in self.instances.loading:
                continue
            bound = self.nodes[name]
            for port, loaded in self._loaded(bound):
                path = resolve_file(LiteralValue(loaded.path, loaded.folder), urls=loaded.loader.fetches)
                if isinstance(path, Problem):
                    self.faults.add(bound.flat, replace(path, field=port))
                    continue
                loaded.node = loaded.loader(**{loaded.loader.signature().file_fields[0]: path})
                for problem in loaded.node.check({}):
                    self.faults.add(bound.flat, replace(problem, field=port))

    def _fetch(self, order: Iterable[str]) -> None:
        """Have every node that reads from elsewhere get what it needs."""
        for name in order:
            bound = self.nodes[name]
            if bound.complete:
                bound.node, problems = self.fetcher.fetch(bound.node)
                for problem in problems:
                    self.faults.add(bound.flat, problem)
            for port, loaded in self._loaded(bound):
                if loaded.node is not None:
                    loaded.node, problems = self.fetcher.fetch(loaded.node)
                    for problem in problems:
                        self.faults.add(bound.flat, replace(problem, field=port))

    @staticmethod
    def _loaded(bound: BoundNode) -> Iterator[tuple[str, Loaded]]:
        """Yield the ports of a node whose value is loaded from a file that was given."""
        for port, source in bound.inputs.items():
            if isinstance(source, Constant) and isinstance(source.value, Loaded):
                yield port, source.value
