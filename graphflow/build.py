"""The Python builder: the same document, the same checks, typed for editors.

>>> import graphflow as gf
>>> w = gf.Workflow(description="an example")
>>> w.input("prompt", "text", default="a red ball")
Input(name='prompt')
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from graphflow.graph.bound import Graph
from graphflow.graph.flatten import CALL
from graphflow.graph.sweep import Point, folders_of, points_of
from graphflow.machine.compute import Compute
from graphflow.machine.switches import Switches
from graphflow.node import Node
from graphflow.planning.planner import Plan
from graphflow.record.manifest import Manifest
from graphflow.record.outcome import Outcome
from graphflow.record.record import document_in_record, record_in_png, with_inputs
from graphflow.registry import Registry
from graphflow.run.job import Job, prepare
from graphflow.run.keywords import takes_inputs
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
        """Return a named output of the node."""
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
        self.inputs |= _validated({"inputs": {name: fields}}).inputs
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
        self.outputs |= _validated({"outputs": {name: reference.to_json()}}).outputs

    def _add(self, name: str, entry: NodeEntry, fields: Mapping[str, Any]) -> NodeHandle:
        if name in self.nodes:
            raise WorkflowError(
                [Problem("node.twice", f"there is a node '{name}' already", hint="names are unique in a workflow")]
            )
        written = entry.__pydantic_extra__
        assert written is not None  # NodeEntry allows further fields
        for key, value in fields.items():
            written[key] = _to_json(name, key, value)
        # through the document's own checks, so that a name no file can hold is refused here already
        _validated({"nodes": {name: {"type": entry.type}}})
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
        """Make the graph of this workflow; raises WorkflowError with every problem."""
        return bind(self, inputs, checking=checking, registry=registry, offline=offline)

    def _prepared(
        self,
        inputs: Mapping[str, Any],
        sweep: Sweep | None,
        compute: Callable[[int | None], Compute] | None,
        *,
        registry: Registry | None,
        offline: bool,
        keep: Collection[str] = (),
    ) -> Job:
        return prepare(
            self,
            inputs,
            points=lambda: points_of(self, sweep, inputs),
            bind=lambda values: self.bind(values, checking=compute is None, registry=registry, offline=offline),
            compute=compute,
            registry=registry,
            keep=keep,
        )

    @takes_inputs
    def validate(  # type: ignore[override]
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        registry: Registry | None = None,
        offline: bool = False,
        **values: Any,
    ) -> list[Problem]:
        """Find every problem and warning of the workflow; an empty list means that it can run.

        ``inputs``, or further keywords, are values for the declared inputs, as for `run`. Nothing is downloaded. With
        ``offline`` what a run would have to download is missing.
        """
        try:
            job = self._prepared(inputs or {}, None, None, registry=registry, offline=offline)
        except WorkflowError as error:
            return list(error.problems)
        return list(job.plan.warnings)

    @takes_inputs
    def plan(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        keep: Collection[str] = (),
        switches: Switches = Switches(),  # noqa: B008 - it is frozen
        registry: Registry | None = None,
        offline: bool = False,
        sweep: Sweep | None = None,
        **values: Any,
    ) -> Plan:
        """Plan a run with these inputs: its steps, and what memory they need (`Plan.memory`).

        Everything is given as for `run`, with the same defaults. As for a run, pictures at URLs are downloaded, unless
        ``offline``.
        """
        return self._prepared(inputs or {}, sweep, switches.resolve, registry=registry, offline=offline, keep=keep).plan

    @takes_inputs
    def run(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        out: str | PathLike[str] = ".",
        keep: Collection[str] = (),
        switches: Switches = Switches(),  # noqa: B008 - it is frozen
        cache: Store | bool = True,
        metadata: bool = True,
        listeners: Iterable[Listener] = (),
        cancel: threading.Event | None = None,
        registry: Registry | None = None,
        offline: bool = False,
        sweep: Sweep | None = None,
        **values: Any,
    ) -> Run:
        """Run the workflow in this process.

        Values for the declared inputs are given as keywords, or in the mapping ``inputs``, where an input may have the
        name of an option. ``out`` is the folder that files are saved in; ``keep`` names nodes whose values are wanted
        besides the outputs and what is saved.

        Where and how to compute is said by the fields of `graphflow.Switches`, each of which is a keyword too:
        ``device`` ("auto", "cpu", "cuda:0,cuda:1"), ``dtype``, ``attention``, ``offload``, ``channels_last`` and
        ``compile``, as `graphflow.Compute` has them; ``memory_budget`` (bytes, or a text like "8GB"), what no step may
        need more of, by default what the device has; ``max_batch``, how many points of a sweep go through a denoiser
        in one batch at most, by default 1 on the CPU and 8 on an accelerator, as far as memory allows.

        Results are looked up and kept in ``cache``, by default the user's store on the disk (`DiskStore`); False for
        none. With ``metadata`` PNG files hold the workflow and the inputs that made them. With ``offline`` nothing is
        asked of the network, and what is not on this machine is missing.

        ``sweep`` runs the workflow for several values of its inputs, by default as the document says: lists by input
        for all combinations, or a list of mappings. What the points share is computed once; `Run.points` has what each
        gave. An input with a value is not swept.

        Raises WorkflowError (nothing has run), or whatever a node raises.
        """
        job = self._prepared(inputs or {}, sweep, switches.resolve, registry=registry, offline=offline, keep=keep)
        job.refuse_over_budget()
        outcome = job.execute(
            output_folder=Path(out),
            store=(default_store() if cache else None) if isinstance(cache, bool) else cache,
            listeners=listeners,
            cancel=cancel,
            metadata=metadata,
        )
        return Run(job, outcome, Path(out))


@dataclass(frozen=True, slots=True)
class SweepPoint(Mapping[str, Any]):
    """One point of the sweep of a finished run: kept values by name, and the files that were saved."""

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

    def __init__(self, job: Job, outcome: Outcome, output_folder: Path = Path()) -> None:
        self.plan = job.plan
        self.outcome = outcome
        self._job = job
        self._output_folder = output_folder

    def __getitem__(self, name: str) -> Any:
        try:
            return self.outcome.results[name]
        except KeyError:
            if name in self._job.graph.order:
                hint = f"its value was dropped after its last use; run(keep=[{name!r}]) keeps it"
            else:
                known = "list(run) has the names" if self.outcome.results else "this run kept no values"
                hint = nearest(name, self.outcome.results) or known
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
        """The points in the order of the sweep, with what each gave; empty where nothing was swept.

        Values of the run itself are called FOLDER/NAME.
        """
        made = []
        for point, folder in zip(self._job.points, folders_of(self._job.points), strict=True):
            prefix, below = f"{folder}/", (self._output_folder / folder).resolve()
            results = {name.removeprefix(prefix): self[name] for name in self if name.startswith(prefix)}
            files = tuple(path for path in self.files if path.resolve().is_relative_to(below))
            made.append(SweepPoint(point, folder, results, files))
        return made

    def contact_sheets(self) -> list[Path]:
        """Write sheets with the pictures that the points of a sweep saved into the output folder; returns the paths."""
        from graphflow.record.contact_sheet import write_contact_sheets

        document = self._job.document
        stem = Path(document.name).stem if document.folder else "sweep"
        return write_contact_sheets(self._job.points, self.files, self._output_folder, stem)

    @property
    def manifest(self) -> Manifest:
        """The manifest: workflow, inputs, seeds, models, versions, timings, hashes of the files."""
        job = self._job
        return Manifest.of(job.graphs, job.plan, self.outcome, job.inputs, job.points, self._output_folder)


class ResultError(GraphFlowError, KeyError):
    """A run has no value of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


def load(path: str | PathLike[str]) -> Workflow:
    """Read a workflow from a file, by the name of a saved one, or from a PNG file that GraphFlow saved.

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
    """Return the workflow of a record, and the values of its inputs. Raises WorkflowError for what is no record."""
    return document_in_record(Workflow, record, name=name, folder=folder)


def loads(text: str | bytes) -> Workflow:
    """Read a workflow from JSON text. Raises WorkflowError with every fault of form."""
    return Workflow.loads(text)


def _validated(part: dict[str, Any]) -> WorkflowDocument:
    """Make a document of a part of one. Raises WorkflowError for what no file can hold."""
    try:
        return WorkflowDocument.model_validate({"graphflow": FORMAT_VERSION, **part})
    except ValidationError as error:
        raise WorkflowError(
            replace(problem, field=".".join(str(step) for step in path if step != "[key]"))
            for problem, path in problems_from(error)
        ) from None


def _to_json(node: str, key: str, value: Any) -> Any:
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
