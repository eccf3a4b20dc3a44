"""execute: run a plan.

The loop is short because the plan holds every decision. Going backward from the wanted values it first finds out what
the cache already has, so that a step whose results are known does not run, nor anything that only it needs. Going
forward it runs the rest, drops each value after its last use and emits an event for each change of state.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphflow import events
from graphflow.cache import Store
from graphflow.errors import Cancelled, Problem
from graphflow.events import Event, Listener
from graphflow.graph import Constant
from graphflow.node import Context, Ref
from graphflow.plan import Plan, Step
from graphflow.types import type_name

__all__ = ["Outcome", "StepRecord", "execute"]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What became of one step: "ran", "cached" or "unneeded"."""

    name: str
    state: str
    seconds: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What a run left: the kept values by name, the files it saved, and what became of each step."""

    results: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


class RunContext(Context):
    """The context of one running step."""

    def __init__(self, runner: _Runner, step: Step) -> None:
        self._runner, self._step = runner, step
        self.compute, self.output_folder = runner.plan.compute, runner.output_folder
        self.memory = runner.plan.memory(step)

    def step(self, done: int, total: int) -> None:
        """Tell progress; raises Cancelled when the run was asked to stop."""
        self._runner.emit(events.StepProgress(self._step.index, self._step.name, done, total))
        self._runner.stop_if_cancelled()

    def saved(self, path: Path) -> None:
        """Tell that a file was written."""
        self._runner.outcome.files.append(path)
        self._runner.emit(events.FileSaved(self._step.name, str(path)))

    def warn(self, message: str) -> None:
        """Tell the user something legal but surprising."""
        self._runner.outcome.warnings.append(message)
        self._runner.emit(events.Warned(self._step.name, message))


def execute(
    plan: Plan,
    *,
    output_folder: Path = Path(),
    cache: Store | None = None,
    listeners: Iterable[Listener] = (),
    cancel: threading.Event | None = None,
) -> Outcome:
    """Run the steps of a plan in order, computing as it was planned, and return what they left.

    What a node raises passes through with a note that names the node and the shapes of its inputs. Raises Cancelled
    after ``cancel`` was set, at the latest when the running node tells its next step.
    """
    return _Runner(plan, output_folder, cache, tuple(listeners), cancel).run()


class _Runner:
    def __init__(
        self,
        plan: Plan,
        output_folder: Path,
        cache: Store | None,
        listeners: tuple[Listener, ...],
        cancel: threading.Event | None,
    ) -> None:
        self.plan, self.cache, self.listeners, self.cancel = plan, cache, listeners, cancel
        self.output_folder = output_folder
        self.outcome = Outcome()
        self.values: dict[Ref, Any] = {}

    def emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def stop_if_cancelled(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("the run was cancelled")

    def run(self) -> Outcome:
        plan, outcome = self.plan, self.outcome
        begun = time.perf_counter()
        ran = cached = 0
        ending = "failed"
        if self.listeners:
            self.emit(events.RunStarted(len(plan.steps), sum(step.progress_steps or 1 for step in plan.steps)))
        for problem in plan.warnings:
            self._warn(problem)
        try:
            found = self._look_up()
            for step in plan.steps:
                outputs = found.get(step.index, _RUN)
                if outputs is _UNNEEDED:
                    outcome.records.append(StepRecord(step.name, "unneeded"))
                    continue
                self.stop_if_cancelled()
                if outputs is _RUN:
                    self._run_step(step)
                    ran += 1
                else:
                    self._keep(step, outputs)
                    cached += 1
                    outcome.records.append(StepRecord(step.name, "cached"))
                    self.emit(events.StepCached(step.index, step.name, step.node.type_id))
                for ref in step.frees:
                    self.values.pop(ref, None)
            outcome.results = {name: self.values[ref] for name, ref in plan.results.items()}
            ending = "done"
        except (KeyboardInterrupt, Cancelled):
            ending = "interrupted"
            raise
        finally:
            self.values.clear()
            outcome.seconds = time.perf_counter() - begun
            self.emit(events.RunFinished(ending, outcome.seconds, ran, cached))
        return outcome

    def _warn(self, problem: Problem) -> None:
        self.outcome.warnings.append(str(problem))
        self.emit(events.Warned(problem.node, str(problem)))

    def _look_up(self) -> dict[int, Any]:
        """For each step: its cached outputs, or that nobody needs it. A step that is not mentioned has to run."""
        if self.cache is None:
            return {}
        needed = {ref.step for ref in self.plan.results.values()}
        found: dict[int, Any] = {}
        for step in reversed(self.plan.steps):
            if step.index not in needed and not step.node.effect:
                found[step.index] = _UNNEEDED
                continue
            outputs = None if step.node.effect else self.cache.get(step.key)
            if outputs is not None:
                found[step.index] = outputs
            else:
                needed |= {value.step for value in step.inputs.values() if isinstance(value, Ref)}
        return found

    def _run_step(self, step: Step) -> None:
        node = step.node
        signature = node.signature()
        if self.listeners:
            self.emit(events.StepStarted(step.index, step.name, node.type_id, step.progress_steps))
        arguments = {
            port: value.value if isinstance(value, Constant) else self.values[value]
            for port, value in step.inputs.items()
        }
        if signature.takes_context:
            arguments["context"] = RunContext(self, step)
        begun = time.perf_counter()
        try:
            result = node.run(**arguments)
            outputs = _outputs(step, result)
        except (KeyboardInterrupt, Cancelled):
            raise
        except BaseException as error:
            arguments.pop("context", None)
            error.add_note(_note(step, arguments))
            self.emit(events.StepFailed(step.index, step.name, node.type_id, f"{type(error).__name__}: {error}"))
            raise
        seconds = time.perf_counter() - begun
        self._keep(step, outputs)
        if self.cache is not None and not node.effect:
            self.cache.put(step.key, outputs)
        self.outcome.records.append(StepRecord(step.name, "ran", seconds))
        self.emit(events.StepFinished(step.index, step.name, node.type_id, seconds))

    def _keep(self, step: Step, outputs: Mapping[str, Any]) -> None:
        for output, value in outputs.items():
            self.values[Ref(step.index, output)] = value


_RUN: Any = object()
_UNNEEDED: Any = object()


def _outputs(step: Step, result: Any) -> dict[str, Any]:
    signature = step.node.signature()
    if signature.multiple:
        return dict(zip(signature.outputs, result, strict=True))
    for output, kind in signature.outputs.items():
        if not isinstance(result, kind.kind) and not (kind.kind is float and type(result) is int):
            raise TypeError(
                f"{step.node.type_id}.run returned {type(result).__name__}, expected {type_name(kind.kind)}"
            )
        return {output: result}
    return {}


def _note(step: Step, arguments: Mapping[str, Any]) -> str:
    given = ", ".join(f"{port}={_shape(value)}" for port, value in arguments.items()) or "no inputs"
    return f"in node '{step.name}' ({step.node.type_id}) with {given}"


def _shape(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
