"""A job: one run of a workflow from beginning to end.

This is the only place where the stages follow each other::

    points ──▶ bind ──▶ compute ──▶ plan ──▶ budget ──▶ records ──▶ execute ──▶ ledger
    └───────────── prepare ────────────┘   └─ refuse ┘  └────────── Job.execute ──────┘

``Workflow.run`` and ``graphflow run`` go all the way, ``plan`` and ``validate`` stop where it is planned; a replay
brings its own points, settings and records. Callers differ in what they bind, and in what they do with the result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow.document.workflow import WorkflowDocument
from graphflow.errors import Problem
from graphflow.events import Listener
from graphflow.graph.bound import Graph, largest_weights
from graphflow.graph.sweep import Point, bind_points, with_other_faults
from graphflow.machine.compute import Compute
from graphflow.planning.budget import over_budget, refuse_over_budget
from graphflow.planning.planner import Plan, plan_graphs
from graphflow.record.outcome import Outcome
from graphflow.record.record import records_of
from graphflow.registry import Registry
from graphflow.run.ledger import keep_ledger
from graphflow.run.scheduler import execute
from graphflow.store.interface import Store

__all__ = ["Job", "prepare"]

Provenance = Mapping[str, Mapping[str, Any]]
"""Records for saved files, by the folder of their step."""


@dataclass(frozen=True, slots=True)
class Job:
    """A workflow that is bound and planned, with what it was given: all that a run needs."""

    document: WorkflowDocument
    inputs: Mapping[str, Any]
    points: Sequence[Point]
    graphs: Mapping[str, Graph]
    """The graph of each point by its folder; one without a folder where nothing is swept."""
    plan: Plan

    @property
    def graph(self) -> Graph:
        """The first graph, which stands for all: those of a sweep differ in values only."""
        return next(iter(self.graphs.values()))

    def over_budget(self) -> list[Problem]:
        """Return the problems of the steps that need more memory than there is."""
        return over_budget(self.plan)

    def refuse_over_budget(self) -> None:
        """Raise WorkflowError where a step needs more memory than there is."""
        refuse_over_budget(self.plan)

    def execute(
        self,
        *,
        output_folder: Path,
        store: Store | None = None,
        listeners: Iterable[Listener] = (),
        cancel: threading.Event | None = None,
        metadata: bool = True,
        provenance: Provenance | None = None,
    ) -> Outcome:
        """Run the plan, and keep in the store what its steps were made of, however the run ends.

        With ``metadata`` saved files hold their record: ``provenance``, by default that of this job.
        """
        if metadata and provenance is None:
            provenance = records_of(self.graphs, self.points, self.inputs, self.plan.environment)
        try:
            return execute(
                self.plan,
                output_folder=output_folder,
                cache=store,
                listeners=listeners,
                cancel=cancel,
                provenance=provenance if metadata else None,
            )
        finally:
            if store is not None:
                keep_ledger(store, self.plan, self.document.name)


def prepare(
    document: WorkflowDocument,
    inputs: Mapping[str, Any],
    *,
    points: Callable[[], Sequence[Point]],
    bind: Callable[[Mapping[str, Any]], Graph],
    compute: Callable[[int | None], Compute] | None,
    registry: Registry | None = None,
    keep: Collection[str] = (),
    results: bool = True,
) -> Job:
    """Bind and plan a workflow. Raises WorkflowError with every problem.

    ``points`` finds the points of the sweep, and ``bind`` makes a graph of values for the inputs. ``compute`` makes the
    settings, given the bytes of the largest file of weights (`Switches.resolve`); None where the workflow is only
    checked: then no device is looked for, and nothing that steps would read is hashed.
    """
    with with_other_faults(document, inputs, registry):
        found = points()
    graphs = bind_points(found, inputs, bind)
    if compute is None:
        plan = plan_graphs(graphs, keep=keep, results=results, checking=True)
    else:
        settings = compute(largest_weights(graphs.values()))
        plan = plan_graphs(graphs, keep=keep, results=results, compute=settings)
    return Job(document, inputs, found, graphs, plan)
