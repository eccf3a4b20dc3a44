"""The manifest of a run: what ran, with what, and what came out, as one JSON object.

It is written when a run begins, again while it goes, and when it ends, however it ends: a run that was killed leaves
one that says which steps were done. From it the run can be replayed (`graphflow.replay`).
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from graphflow import events
from graphflow.errors import Problem, WorkflowError
from graphflow.files import file_record, write_atomically
from graphflow.graph.bound import Constant, Graph
from graphflow.planning.key_parts import key_parts
from graphflow.planning.planner import Plan, Step, library_versions
from graphflow.record.outcome import Outcome
from graphflow.record.record import records_of
from graphflow.version import __version__

__all__ = ["MANIFEST_VERSION", "Manifest", "ManifestWriter"]

MANIFEST_VERSION = 2


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as JSON data, ready to be written."""

    data: dict[str, Any]

    @classmethod
    def of(
        cls,
        graphs: Mapping[str, Graph],
        plan: Plan,
        outcome: Outcome,
        inputs: Mapping[str, Any],
        points: Sequence[Mapping[str, Any]] = (),
        output_folder: Path = Path(),
    ) -> Manifest:
        """Describe a finished run: of each folder one graph, of a sweep also the points."""
        made = ManifestWriter(Path(), graphs, plan, inputs, points, output_folder)
        made.states = {index: (record.state, record.seconds) for index, record in enumerate(outcome.records)}
        made.files, made.warnings, made.seconds = list(outcome.files), list(outcome.warnings), outcome.seconds
        made.begun = outcome.begun
        return made.manifest("done")

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest from a file. Raises WorkflowError for what is none, or of another version."""
        try:
            data = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise WorkflowError([Problem("manifest.damaged", f"{path}: cannot be read: {error}")]) from None
        found = data.get("graphflow_manifest") if isinstance(data, dict) else None
        if found != MANIFEST_VERSION:
            newer = isinstance(found, int) and found > MANIFEST_VERSION
            hint = "install a newer GraphFlow to read it" if newer else "a run writes one into DIR/manifests"
            message = f"{path}: found {f'a manifest of version {found}' if found else 'no manifest'}, expected version "
            raise WorkflowError([Problem("manifest.version", f"{message}{MANIFEST_VERSION}", hint=hint)])
        return cls(data)

    def dumps(self) -> str:
        """Return the manifest as indented JSON."""
        return orjson.dumps(self.data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()

    def save(self, path: str | Path) -> Path:
        """Write the manifest, whole or not at all."""
        return write_atomically(Path(path), self.dumps().encode())


@dataclass
class ManifestWriter:
    """A listener that keeps the manifest of a run up to date in a file.

    It writes at most once a second, and seldom enough that writing takes a small share of the run. What happened since
    is written by a timer, so that a step that takes long hides nothing of those before it.
    """

    path: Path
    graphs: Mapping[str, Graph]
    plan: Plan
    inputs: Mapping[str, Any]
    points: Sequence[Mapping[str, Any]]
    output_folder: Path
    states: dict[int, tuple[str, float]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    failure: str | None = None
    unwritten: str | None = None
    """Reason why the manifest could not be written, if it could not."""

    def __post_init__(self) -> None:
        self.begun = datetime.now(UTC)
        self._clock = time.monotonic()
        self._next = 0.0
        self._timer: threading.Timer | None = None
        self._writing = threading.Lock()
        self._over = False
        self._steps = [_step_data(step, self.plan) for step in self.plan.steps]
        self._saved: dict[Path, dict[str, Any]] = {}
        self._models: dict[str, list[Any]] = {model: [] for model in self.plan.models()}
        for step, data in zip(self.plan.steps, self._steps, strict=True):
            for model in step.node.models():
                if data["identity"] not in self._models[model]:
                    self._models[model].append(data["identity"])
        self._working_folder = Path.cwd()
        first = next(iter(self.graphs.values()))
        # once: of a run that goes on for hours the files of what it calls may be others at its end
        (self._record,) = records_of({"": first}, (), self.inputs, self.plan.environment).values()

    def __call__(self, event: events.Event) -> None:
        """Take an event."""
        match event:
            case events.StepStarted():
                self.states[event.index] = ("running", 0.0)
            case events.StepFinished():
                self.states[event.index] = ("ran", event.seconds)
            case events.StepCached():
                self.states[event.index] = ("cached", 0.0)
            case events.StepFailed():
                self.states[event.index], self.failure = ("failed", 0.0), event.error
                return
            case events.FileSaved():
                self.files.append(Path(event.path))
            case events.Warned():
                self.warnings.append(event.message)
            case events.RunFinished():
                self.seconds = event.seconds
                self.write(event.outcome)
                return
            case events.RunStarted():
                pass
            case _:
                return
        wait = self._next - time.monotonic()
        if wait <= 0:
            self.write("running")
        elif self._timer is None:
            self._timer = threading.Timer(wait, self.write, ["running"])
            self._timer.daemon = True
            self._timer.start()

    def write(self, state: str) -> None:
        """Write what is known so far. A failure is only noted: the run is worth more than its record."""
        with self._writing:
            if self._over:
                return  # the timer was late
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            begun = time.monotonic()
            try:
                self.manifest(state).save(self.path)
            except OSError as error:
                self.unwritten = str(error)
            ended = time.monotonic()
            self._next = ended + self._pause(ended - begun)
            self._over = state != "running"

    def _pause(self, cost: float) -> float:
        """Seconds until it is written again, when writing took ``cost``."""
        return max(1.0, 20 * cost)

    def manifest(self, state: str) -> Manifest:
        """Return the manifest of what happened so far; ``state`` is "running", "done", "failed" or "interrupted"."""
        first = next(iter(self.graphs.values()))
        document = first.document
        rest = "unneeded" if state == "done" else "not reached"
        steps = []
        for index, step in enumerate(self._steps):
            reached, seconds = self.states.get(index, (rest, 0.0))
            if reached == "running" and state != "running":
                reached = "not reached"
            steps.append({**step, "state": reached, "seconds": round(seconds, 4)})
        return Manifest(
            {
                "graphflow_manifest": MANIFEST_VERSION,
                "state": state,
                "error": self.failure,
                "begun": self.begun.isoformat(timespec="seconds"),
                "written": datetime.now(UTC).isoformat(timespec="seconds"),
                "graphflow": __version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "libraries": dict(library_versions()),
                "environment": dict(self.plan.environment),
                "compute": asdict(self.plan.compute),
                "workflow_file": document.name,
                "folder": None if document.base_folder is None else str(document.base_folder.resolve()),
                "working_folder": str(self._working_folder),
                "output_folder": str(self.output_folder.resolve()),
                "workflow": document.to_dict(),
                "called": first.called,
                "inputs": self._record["inputs"],
                "sweep": [dict(point) for point in _plain(self.points)],
                "record": self._record,
                "models": self._models,
                "seconds": round(self.seconds or time.monotonic() - self._clock, 4),
                "warnings": self.warnings,
                "steps": steps,
                "files": [self._file(path) for path in self.files if path.is_file()],
            }
        )

    def _file(self, path: Path) -> dict[str, Any]:
        if path not in self._saved:
            self._saved[path] = file_record(path, self.output_folder)
        return self._saved[path]


def _step_data(step: Step, plan: Plan) -> dict[str, Any]:
    constants = {
        port: source.value for port, source in step.inputs.items() if isinstance(source, Constant) and source.plain
    }
    parts = key_parts(step, plan)
    return {
        "name": step.name,
        "type": parts["type"],
        "version": parts["version"],
        "parameters": parts["parameters"],
        "constants": constants,
        "identity": parts["identity"],
        "key": step.key,
    }


def _plain(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
            for name, value in point.items()
        }
        for point in points
    ]
