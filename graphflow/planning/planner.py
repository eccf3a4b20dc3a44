"""plan: Graph -> Plan, the static list of steps that will run.

Coarse nodes are expanded, conversions put on edges, equal steps merged, steps that no wanted output needs dropped, the
rest ordered; for every value it is known after which step nobody needs it any more. A plan is plain data. Several
graphs (the items of a sweep) make one plan, in which what is equal in them is merged too.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from graphflow.collector import paused_collection
from graphflow.errors import Problem, WorkflowError, nearest
from graphflow.file_answers import cached_answers
from graphflow.graph.bound import BoundNode, Graph
from graphflow.graph.flatten import Edge
from graphflow.machine.compute import Compute
from graphflow.machine.memory import Memory
from graphflow.node import Ref
from graphflow.planning.expand import StepBuilder
from graphflow.planning.order import grouped
from graphflow.planning.step import Batches, Step, find_batches
from graphflow.types import PLAIN_KINDS, Image, Latent, PortType

__all__ = ["Plan", "Step", "plan", "plan_graphs"]

NUMERIC_LIBRARIES = ("torch", "diffusers", "transformers", "pillow", "numpy")
"""Libraries whose version may change a result; their versions are part of every cache key."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a run in order.

    ``wanted`` are the outputs by name, ``results`` those whose values are kept for the caller.
    """

    steps: tuple[Step, ...]
    results: Mapping[str, Ref]
    wanted: Mapping[str, Ref]
    warnings: tuple[Problem, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    compute: Compute = field(default_factory=Compute)
    """Settings with which the steps will be computed."""

    def memory(self, step: Step) -> Memory | None:
        """Estimate what a step needs on the device at its peak, None where it is unknown."""
        return step.node.memory(step.input_types, self.compute)

    def freed(self) -> list[list[Ref]]:
        """For each step the values that nobody needs after it."""
        last = {ref: step.index for step in self.steps for ref in step.outputs.values()}
        last |= {ref: step.index for step in self.steps for ref in step.refs}
        kept = set(self.results.values())
        freed: list[list[Ref]] = [[] for _ in self.steps]
        for ref, index in last.items():
            if ref not in kept:
                freed[index].append(ref)
        return freed

    def models(self) -> tuple[str, ...]:
        """Model references in the order in which they are first needed."""
        return tuple(dict.fromkeys(model for step in self.steps for model in step.node.models()))


@cache
def library_versions() -> Mapping[str, str]:
    """Installed versions of the numeric libraries, read without importing them.

    The line is looked for by hand: parsing the whole of five metadata files as mail headers, as
    ``importlib.metadata.version`` does, was a tenth of the time of `graphflow validate`.
    """
    versions = {}
    for name in NUMERIC_LIBRARIES:
        try:
            text = importlib.metadata.distribution(name).read_text("METADATA") or ""
        except importlib.metadata.PackageNotFoundError:
            continue
        found = re.search(r"^Version: *(\S+)", text, re.MULTILINE)
        versions[name] = found[1] if found else importlib.metadata.version(name)
    return versions


def plan(
    graph: Graph,
    *,
    keep: Collection[str] = (),
    results: bool = True,
    compute: Compute = Compute(),  # noqa: B008 - it is frozen
) -> Plan:
    """Plan a graph.

    Wanted are the declared outputs and every node with an effect; where a workflow has neither, its last nodes. With
    ``results`` the outputs and what the effects were given are kept for the caller, as pictures where they are latents;
    without, only outputs that are plain values.
    ``keep`` names further nodes whose values are kept as they are. Raises WorkflowError if one does not exist, or if a
    node that a coarse node stands for cannot fetch what it reads.

    Of a graph that was bound for checking, what waits for a parameter that is not given yet is left out.
    """
    return plan_graphs({"": graph}, keep=keep, results=results, compute=compute)


@cached_answers()
@paused_collection()
def plan_graphs(
    graphs: Mapping[str, Graph],
    *,
    keep: Collection[str] = (),
    results: bool = True,
    compute: Compute = Compute(),  # noqa: B008 - it is frozen
    checking: bool = False,
) -> Plan:
    """Plan several graphs as one, so that what is equal in them is computed once.

    Each has the folder below the output folder that its files go to; the names of its steps and results begin with it.
    A plan that is made for ``checking`` does not ask nodes for what they read, which may be gigabytes to hash: its keys
    are good for nothing else. Everything else is as in `plan`.
    """
    environment = {**compute.environment(), **library_versions()}
    first = next(iter(graphs.values()))
    builder = StepBuilder(first.registry, environment, first.fetcher, identities=not checking)
    effects: list[int] = []
    wanted: dict[str, Ref] = {}
    kept: set[str] = set()
    for folder, graph in graphs.items():
        part = _Part(builder, graph, folder, results=results)
        effects += part.effects
        prefix = f"{folder}/" if folder else ""
        for name, ref in part.wanted(keep).items():
            wanted[prefix + name] = ref
            if results or name in keep or builder.type_of(ref).kind in PLAIN_KINDS:
                kept.add(prefix + name)
    # effects first, so that a result is saved as soon as it is there
    roots = [*effects, *sorted({ref.step for ref in wanted.values()})]
    steps = builder.steps
    order = _order(steps, roots, {})
    batches = find_batches(steps, order, compute.max_batch)
    if batches:
        order = _order(steps, roots, batches)
    order = grouped(steps, order, batches)
    if batches or order != list(range(len(steps))):
        places = {index: place for place, index in enumerate(order)}
        steps = [_moved(steps[index], places, batches) for index in order]
        wanted = {name: Ref(places[ref.step], ref.output) for name, ref in wanted.items()}
    shown = {name: ref for name, ref in wanted.items() if name in kept}
    warnings = tuple(dict.fromkeys(warning for graph in graphs.values() for warning in graph.warnings))
    return Plan(tuple(steps), shown, wanted, warnings, environment, compute)


class _Part:
    """The steps of one graph in a plan."""

    def __init__(self, builder: StepBuilder, graph: Graph, folder: str, *, results: bool) -> None:
        self._builder, self._graph, self._results = builder, graph, results
        self._refs: dict[str, Mapping[str, Ref]] = {}
        """The outputs of each node that was added."""
        self.effects: list[int] = []
        self._used: set[str] = set()
        """Nodes that some other node takes a value of."""
        self._shown: dict[str, Any] = {}
        builder.begin(folder, graph.fetcher)
        for bound in graph:
            self._add(bound)

    def _add(self, bound: BoundNode) -> None:
        builder = self._builder
        inputs: dict[str, Any] = {}
        whole = bound.complete
        for port, source in bound.inputs.items():
            found: Any = source
            if isinstance(source, Edge):
                self._used.add(source.source)
                outputs = self._refs.get(source.source)
                found = outputs.get(source.output or "") if outputs else None
            inputs[port] = found
            whole = whole and found is not None
        if not whole:
            return
        before = len(builder.steps)
        self._refs[bound.name] = builder.add(builder.prefix + bound.name, bound.node, inputs)
        if not bound.node.effect:
            return
        added = [index for index in range(before, len(builder.steps)) if builder.steps[index].node.effect]
        self.effects += added
        if self._results:
            for port, source in bound.inputs.items():
                if isinstance(source, Edge):
                    # what the effect received is what people see of the node behind it
                    received = builder.steps[added[-1]].inputs[port] if added else inputs[port]
                    self._shown.setdefault(source.source, received if isinstance(received, Ref) else inputs[port])

    def _ref(self, edge: Edge) -> Ref | None:
        """Return the output of the step that stands for an edge, None where its node was left out."""
        outputs = self._refs.get(edge.source)
        return outputs.get(edge.output or "") if outputs else None

    def wanted(self, keep: Collection[str]) -> dict[str, Ref]:
        """Return the values that are wanted by name, besides what the effects need."""
        graph = self._graph
        wanted: dict[str, Ref] = {}
        for name, edge in graph.outputs.items():
            ref = self._ref(edge)
            if ref is not None:
                wanted[name] = self._presented(name, ref)
        if not self.effects and not graph.outputs:
            for name, outputs in self._refs.items():
                if name not in self._used and outputs:
                    wanted[name] = self._presented(name, next(iter(outputs.values())))
        if self._results:
            for name, edge in graph.outputs.items():
                if name in wanted:
                    self._shown.setdefault(edge.source, wanted[name])
            wanted |= {name: ref for name, ref in self._shown.items() if isinstance(ref, Ref) and name not in wanted}
        for name in keep:
            node, _, output = name.partition(".")
            outputs = self._refs.get(node, {})
            kept = outputs.get(output) if output else next(iter(outputs.values()), None)
            if kept is None:
                hint = nearest(node, graph.order)
                raise WorkflowError([Problem("keep.unknown", f"there is no value '{name}' to keep", hint=hint)])
            wanted[name] = kept
        return wanted

    def _presented(self, name: str, ref: Ref) -> Ref:
        """Turn a latent that leaves the engine as a result into a picture; any other value stays what it is."""
        builder = self._builder
        found = builder.type_of(ref)
        if self._results and found.kind is Latent and builder.registry.route(found, PortType(Image)):
            return builder.convert(builder.prefix + name, ref, found, PortType(Image))
        return ref


def _order(steps: Sequence[Step], roots: Iterable[int], batches: Batches) -> list[int]:
    """Depth first from the wanted steps, so that few values live at once; what is not reached is dropped.

    The steps of a batch follow each other, after all that any of them needs.
    """
    reached: set[int] = set()
    order: list[int] = []
    for root in roots:
        stack = [root]
        while stack:
            index = stack[-1]
            if index in reached:
                stack.pop()
                continue
            batch = batches.get(index) or (index,)
            waiting = [ref.step for each in batch for ref in steps[each].refs if ref.step not in reached]
            if waiting:
                stack.extend(reversed(waiting))
            else:
                stack.pop()
                reached.update(batch)
                order.extend(batch)
    return order


def _moved(step: Step, places: Mapping[int, int], batches: Batches) -> Step:
    """Return a step at its place in the plan, with references to steps at theirs."""

    def moved(ref: Ref) -> Ref:
        return Ref(places[ref.step], ref.output)

    return replace(
        step,
        index=places[step.index],
        inputs={port: moved(value) if isinstance(value, Ref) else value for port, value in step.inputs.items()},
        refs=tuple(map(moved, step.refs)),
        outputs={output: moved(ref) for output, ref in step.outputs.items()},
        batch=tuple(places[each] for each in batches.get(step.index, ())),
    )
