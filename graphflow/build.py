"""The Python builder: the same document, the same checks, typed for editors.

>>> import graphflow as gf
>>> w = gf.Workflow(description="an example")
>>> w.input("prompt", "text", default="a red ball")
Input(name='prompt')
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from types import EllipsisType
from typing import Any

from pydantic import ValidationError

from graphflow.document.library import Library
from graphflow.document.validation import problems_from, show
from graphflow.document.workflow import FORMAT_VERSION, From, Input, NodeEntry, WorkflowDocument
from graphflow.errors import GraphFlowError, Problem, WorkflowError, nearest
from graphflow.events import Listener
from graphflow.graph.binder import bind
from graphflow.graph.bound import Graph, largest_weights
from graphflow.graph.flatten import CALL
from graphflow.graph.sweep import Point, bind_points, folders_of, points_of, with_other_faults
from graphflow.machine.compute import resolve_compute
from graphflow.node import Node
from graphflow.planning.budget import refuse_over_budget
from graphflow.planning.planner import Plan, plan_together
from graphflow.record.manifest import Manifest
from graphflow.record.outcome import Outcome
from graphflow.record.record import document_in_record, record_in_png, records_of, with_inputs
from graphflow.registry import Registry
from graphflow.run.ledger import keep_ledger
from graphflow.run.scheduler import execute
from graphflow.store.disk import default_store
from graphflow.store.interface import Store
from graphflow.types import type_name

__all__ = ["NodeHandle", "Run", "SweepPoint", "Workflow", "load", "loads"]

Sweep = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]
"""Lists of values by input for all combinations, or a list of the values of all inputs for each run."""


@dataclass(frozen=True, slots=True)
class NodeHandle:
    """A node that was added to a workflow; stands for its only or first output on the port of another one."""

    name: str

    def __getitem__(self, output: str) -> From:
        """A named output of the node."""
        return From(self.name, output)


class Workflow(WorkflowDocument):
    """A workflow: read from a file with `load`, or built with `input`, `add`, `call` and `output`."""

    def input(
        self,
        name: str,
        type: str,
        *,
        default: str | int | float | bool | EllipsisType | None = ...,
        description: str = "",
    ) -> Input:
        """Declare an input; give what this returns to a port or parameter. Raises WorkflowError on a second one.

        Without a default it must be given. With the default None, what refers to it is left out where it is not given,
        so that the node's own default holds.
        """
        if name in self.inputs:
            raise WorkflowError([Problem("input.twice", f"there is an input '{name}' already")])
        fields: dict[str, Any] = {"type": type}
        if description:
            fields["description"] = description
        if default is not ...:
            fields["default"] = default
        self.inputs |= _checked({"inputs": {name: fields}}).inputs
        return Input(name)

    def add(
        self, name: str, node: Node, /, **fields: NodeHandle | From | Input | str | int | float | bool
    ) -> NodeHandle:
        """Add a node and connect its ports: to another node, to an input, or to a plain value.

        A parameter may be given here too, where it is to come from an input. Raises WorkflowError on a second node of
        that name and on a value that no file can hold.
        """
        given = {key: value for key, value in node.model_dump().items() if key in node.model_fields_set}
        return self._add(name, NodeEntry(type=node.type_id, **given), fields)

    def call(
        self, name: str, uses: str, /, **fields: NodeHandle | From | Input | str | int | float | bool
    ) -> NodeHandle:
        """Add a call of a saved workflow: by name, relative file, or either with a pin ``@sha256:…``."""
        return self._add(name, NodeEntry(type=CALL, uses=uses), fields)

    def output(self, name: str, source: NodeHandle | From) -> None:
        """Declare an output."""
        if name in self.outputs:
            raise WorkflowError([Problem("output.twice", f"there is an output '{name}' already")])
        reference = From(source.name) if isinstance(source, NodeHandle) else source
        self.outputs |= _checked({"outputs": {name: reference.to_json()}}).outputs

    def _add(self, name: str, entry: NodeEntry, fields: Mapping[str, Any]) -> NodeHandle:
        if name in self.nodes:
            raise WorkflowError(
                [Problem("node.twice", f"there is a node '{name}' already", hint="names are unique in a workflow")]
            )
        written = entry.__pydantic_extra__
        assert written is not None  # NodeEntry allows further fields
        for key, value in fields.items():
            written[key] = _written(name, key, value)
        # through the document's own checks, so that a name no file can hold is refused here already
        _checked({"nodes": {name: {"type": entry.type}}})
        self.nodes[name] = entry
        return NodeHandle(name)

    def bind(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        checking: bool = False,
        registry: Registry | None = None,
        offline: bool = False,
    ) -> Graph:
        """The graph of this workflow; raises WorkflowError with every problem."""
        return bind(self, inputs, checking=checking, registry=registry, offline=offline)

    def _swept(
        self, sweep: Sweep | None, inputs: Mapping[str, Any], registry: Registry | None = None
    ) -> Sequence[Point]:
        with with_other_faults(self, inputs, registry):
            return points_of(self, sweep, inputs)

    def _graphs(self, points: Sequence[Point], inputs: Mapping[str, Any], **options: Any) -> dict[str, Graph]:
        return bind_points(points, inputs, lambda values: self.bind(values, **options))

    def validate(self, *, offline: bool = False, **inputs: Any) -> list[Problem]:  # type: ignore[override]
        """Every problem and warning of the workflow; an empty list means that it can run.

        Nothing is downloaded. With ``offline`` what a run would have to download is missing.
        """
        try:
            points = self._swept(None, inputs)
            graphs = self._graphs(points, inputs, checking=True, offline=offline)
            return list(plan_together(graphs, checking=True).warnings)
        except WorkflowError as error:
            return list(error.problems)

    def plan(
        self,
        *,
        keep: Collection[str] = (),
        device: str = "cpu",
        dtype: str = "auto",
        attention: str = "auto",
        offload: str = "none",
        channels_last: bool = False,
        compile: bool = False,
        together: int | None = None,
        registry: Registry | None = None,
        offline: bool = False,
        sweep: Sweep | None = None,
        **inputs: Any,
    ) -> Plan:
        """What a run with these inputs would do, and what memory its steps need (`Plan.memory`).

        As for a run, pictures at URLs are downloaded, unless ``offline``.
        """
        graphs = self._graphs(self._swept(sweep, inputs, registry), inputs, registry=registry, offline=offline)
        compute = resolve_compute(
            device=device,
            dtype=dtype,
            attention=attention,
            offload=offload,
            channels_last=channels_last,
            compile=compile,
            together=together,
            weights=largest_weights(graphs.values()),
        )
        return plan_together(graphs, keep=keep, compute=compute)

    def run(
        self,
        *,
        out: str | PathLike[str] = ".",
        keep: Collection[str] = (),
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        offload: str = "none",
        channels_last: bool = False,
        compile: bool = False,
        memory_budget: int | str | None = None,
        together: int | None = None,
        cache: Store | bool = True,
        metadata: bool = True,
        listeners: Iterable[Listener] = (),
        cancel: threading.Event | None = None,
        registry: Registry | None = None,
        offline: bool = False,
        sweep: Sweep | None = None,
        **inputs: Any,
    ) -> Run:
        """Run the workflow in this process.

        ``inputs`` are values for the declared inputs; ``out`` is the folder that files are saved in; ``keep`` names
        nodes whose values are wanted besides the outputs and what is saved. ``device`` to ``compile`` say where and
        how to compute, as `graphflow.Compute` does. ``memory_budget`` (bytes, or a text like "8GB") is what no step may
        need more of, by default what the device has. Of a sweep's points, ``together`` at most go through a
        denoiser at once: by default 1 on the CPU and 8 on an accelerator, as far as memory allows. Results are looked
        up and kept in ``cache``, by default the user's store on the disk (`DiskStore`); False for none. With
        ``metadata`` PNG files hold the workflow and the inputs that made them. With ``offline`` nothing is asked of
        the network, and what is not on this machine is missing.

        ``sweep`` runs the workflow for several values of its inputs, by default as the document says: lists by input
        for all combinations, or a list of mappings. What the points share is computed once; `Run.points` has what each
        gave. An input with a value in ``inputs`` is not swept.

        Raises WorkflowError (nothing has run), or whatever a node raises.
        """
        points = self._swept(sweep, inputs, registry)
        graphs = self._graphs(points, inputs, registry=registry, offline=offline)
        compute = resolve_compute(
            device=device,
            dtype=dtype,
            attention=attention,
            offload=offload,
            channels_last=channels_last,
            compile=compile,
            memory_budget=memory_budget,
            together=together,
            weights=largest_weights(graphs.values()),
        )
        planned = plan_together(graphs, keep=keep, compute=compute)
        refuse_over_budget(planned)
        store = (default_store() if cache else None) if isinstance(cache, bool) else cache
        try:
            outcome = execute(
                planned,
                output_folder=Path(out),
                cache=store,
                listeners=listeners,
                cancel=cancel,
                provenance=records_of(graphs, points, inputs, planned.environment) if metadata else None,
            )
        finally:
            if store is not None:
                keep_ledger(store, planned, self.name)
        return Run(graphs, planned, outcome, inputs, points, Path(out))


@dataclass(frozen=True, slots=True)
class SweepPoint(Mapping[str, Any]):
    """What a run gave for one point of its sweep: kept values by name, and the files that were saved."""

    inputs: Point
    """The values of the inputs."""
    folder: str
    """Name of the folder below the output folder that its files are in."""
    results: Mapping[str, Any]
    files: tuple[Path, ...]

    def __getitem__(self, name: str) -> Any:
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


class Run(Mapping[str, Any]):
    """A finished run: kept values by the name of the output or node (latents as pictures), and the files it saved."""

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        planned: Plan,
        outcome: Outcome,
        inputs: Mapping[str, Any],
        points: Sequence[Point] = (),
        output_folder: Path = Path(),
    ) -> None:
        self.plan = planned
        self.outcome = outcome
        self._graphs = graphs
        self._graph = next(iter(graphs.values()))
        self._inputs = dict(inputs)
        self._points = points
        self._output_folder = output_folder

    def __getitem__(self, name: str) -> Any:
        try:
            return self.outcome.results[name]
        except KeyError:
            if name in self._graph.order:
                hint = f"its value was dropped after its last use; run(keep=[{name!r}]) keeps it"
            else:
                hint = nearest(name, self.outcome.results) or "this run kept no values"
            raise ResultError(f"the run has no value '{name}': {hint}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.outcome.results)

    def __len__(self) -> int:
        return len(self.outcome.results)

    @property
    def files(self) -> list[Path]:
        """Paths of the files that were saved, in order."""
        return self.outcome.files

    @property
    def points(self) -> list[SweepPoint]:
        """What each point of a sweep gave, in the order of the sweep; empty where nothing was swept.

        Values of the run itself are called FOLDER/NAME.
        """
        made = []
        for point, folder in zip(self._points, folders_of(self._points), strict=True):
            prefix, below = f"{folder}/", (self._output_folder / folder).resolve()
            results = {name.removeprefix(prefix): self[name] for name in self if name.startswith(prefix)}
            files = tuple(path for path in self.files if path.resolve().is_relative_to(below))
            made.append(SweepPoint(point, folder, results, files))
        return made

    def contact_sheets(self) -> list[Path]:
        """Write sheets with the pictures that the points of a sweep saved into the output folder; returns the paths."""
        from graphflow.record.contact_sheet import write_contact_sheets

        stem = Path(self._graph.document.name).stem if self._graph.document.folder else "sweep"
        return write_contact_sheets(self._points, self.files, self._output_folder, stem)

    @property
    def manifest(self) -> Manifest:
        """What ran: workflow, inputs, seeds, models, versions, timings, hashes of the files."""
        return Manifest.of(self._graphs, self.plan, self.outcome, self._inputs, self._points, self._output_folder)


class ResultError(GraphFlowError, KeyError):
    """A run has no value of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


def load(path: str | PathLike[str]) -> Workflow:
    """A workflow from a file, by the name of a saved one, or from a PNG file that GraphFlow saved.

    What made a picture is the default of the inputs of its workflow; paths in that start in the folder of the picture.
    Raises WorkflowError, or MissingError if there is none.
    """
    path = Path(path)
    record = record_in_png(path)
    if record is not None:
        workflow, inputs = workflow_in_record(record, name=str(path), folder=path.resolve().parent)
        with_inputs(workflow, inputs)
        return workflow
    if path.suffix != ".json" and path.name == str(path) and not path.exists():
        found = Library().find(str(path), None)
        if isinstance(found, Problem):
            raise WorkflowError.of([found])
        path = found
    return Workflow.load(path)


def workflow_in_record(record: Any, *, name: str, folder: Path | None) -> tuple[Workflow, dict[str, Any]]:
    """The workflow of a record, and the values of its inputs. Raises WorkflowError for what is no record."""
    return document_in_record(Workflow, record, name=name, folder=folder)


def loads(text: str | bytes) -> Workflow:
    """A workflow from JSON text. Raises WorkflowError with every fault of form."""
    return Workflow.loads(text)


def _checked(part: dict[str, Any]) -> WorkflowDocument:
    """A part of a document as a document; raises WorkflowError for what no file can hold."""
    try:
        return WorkflowDocument.model_validate({"graphflow": FORMAT_VERSION, **part})
    except ValidationError as error:
        raise WorkflowError(
            replace(problem, field=".".join(str(step) for step in path if step != "[key]"))
            for problem, path in problems_from(error)
        ) from None


def _written(node: str, key: str, value: Any) -> Any:
    if isinstance(value, NodeHandle):
        return {"from": value.name}
    if isinstance(value, (From, Input)):
        return value.to_json()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise WorkflowError(
        [
            Problem(
                "value.unwritable",
                f"found {type_name(type(value))} ({show(str(value))}), expected a node, an input or a plain value",
                key,
                "declare an input of that type and give the value to run()",
                node=node,
            )
        ]
    )
