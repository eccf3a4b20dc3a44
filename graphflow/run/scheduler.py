"""execute: run a plan.

The loop is short because the plan holds every decision. It looks up what the store has, so that a step whose results
are known does not run, nor anything that only it needs. Going forward it reads or computes the rest, drops each value
after its last use and emits an event for each change of state. Where a kept result turns out to be damaged or gone, it
looks up again and goes on from there. Each device has a worker, which takes one unit after the other from the
`Placement`; the only worker of one device is the calling thread itself.

State of a run (``_Runner``):

==============  ====================================================================================
``values``      output of a step -> its value, from when it is made or read until its last use
``uses``        output of a step -> number of steps that run, and of results, that still need it
``records``     index of a step -> its end: "ran" or "cached"; without one it was not needed (yet)
``found``       the look-up: for each step "run", "cached" or "unneeded", and files of saving steps
``placement``   the units that are left, and the device that each belongs to
``lost``        keys that the store had when it was looked up, and has no more
``halted``      a result was lost: no unit begins before the plan is looked up again
``failure``     the first error of a worker: no unit begins, and those that run end at their next step
==============  ====================================================================================

For example the plan ``0 EncodePrompt -> 1 Denoise -> 2 DecodeLatent -> 3 SaveImage``, of which the store has the
results of 0 and 1:

1. look-up, from the end: 3 and 2 have to run, 1 is "cached", 0 is "unneeded". ``uses`` is {1: 1, 2: 1}.
2. unit (1,): its latent is read; ``values`` {1: latent}, ``records`` {1: cached}.
3. unit (2,): runs; ``values`` {1: latent, 2: picture}. It was the last user of the latent: ``values`` {2: picture}.
4. unit (3,): writes the file; nobody needs the picture any more: ``values`` is empty, and the run is done.

Had the file of 1 been damaged, step 2 would have put its key into ``lost`` and halted. The second look-up says "run"
for 0 and 1, and the run goes on with unit (0,).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from graphflow import events
from graphflow.errors import Cancelled
from graphflow.events import Event, Listener
from graphflow.file_answers import cached_answers
from graphflow.graph.bound import Constant
from graphflow.machine.read_ahead import read_ahead
from graphflow.node import Context, Ref
from graphflow.planning.budget import memory_advice, out_of_memory
from graphflow.planning.planner import Plan, Step
from graphflow.planning.step import memory_of_batch
from graphflow.record.outcome import Outcome, StepRecord
from graphflow.run.calls import note_on_failure, outputs_by_name
from graphflow.run.claimed import PAUSE, claimed
from graphflow.run.lookup import look_up
from graphflow.run.placement import Placement, Unit
from graphflow.run.receipts import keep_receipt
from graphflow.run.units import make_units
from graphflow.run.workers import run_workers
from graphflow.store.interface import Store

__all__ = ["execute"]


class RunContext(Context):
    """The context of one running step."""

    def __init__(self, runner: _Runner, step: Step, device: str, batch: int) -> None:
        self._runner, self._step = runner, step
        self.compute, self.output_folder = runner.compute[device], runner.output_folder / step.folder
        self.memory = memory_of_batch(step.node, step.input_types, batch, runner.plan.compute)
        record = runner.provenance.get(step.folder)
        name = step.name.removeprefix(f"{step.folder}/")
        self.provenance = None if record is None else {**record, "saved_by": name}
        self.files: list[Path] = []

    def step(self, done: int, total: int) -> None:
        """Report progress; raises Cancelled when the run was asked to stop."""
        self._runner.emit(events.StepProgress(self._step.index, self._step.name, done, total))
        self._runner.stop_if_cancelled()

    def saved(self, path: Path) -> None:
        """Report that a file was written."""
        self.files.append(path)
        self._runner.saved(self._step, path)

    def warn(self, message: str) -> None:
        """Report something legal but surprising to the user."""
        self._runner.warn(message, self._step.name)


def execute(
    plan: Plan,
    *,
    output_folder: Path = Path(),
    cache: Store | None = None,
    listeners: Iterable[Listener] = (),
    cancel: threading.Event | None = None,
    provenance: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Run the steps of a plan in order, computing as it was planned, and return what they left.

    ``provenance`` has the records for saved files, by the folder of their step.

    What a node raises passes through with a note that names the node and the shapes of its inputs. Raises Cancelled
    after ``cancel`` was set, at the latest when the running node reports its next step.
    """
    return _Runner(plan, output_folder, cache, tuple(listeners), cancel, provenance or {}).run()


class _Runner:
    def __init__(
        self,
        plan: Plan,
        output_folder: Path,
        cache: Store | None,
        listeners: tuple[Listener, ...],
        cancel: threading.Event | None,
        provenance: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.provenance = provenance
        self.plan, self.cache, self.listeners, self.cancel = plan, cache, listeners, cancel
        self.output_folder = output_folder
        self.outcome = Outcome()
        self.compute = {device: plan.compute.on(device) for device in plan.compute.all_devices}
        self.values: dict[Ref, Any] = {}
        self.uses: Counter[Ref] = Counter()
        """Number of steps, and results, that still need a value."""
        self.records: dict[int, StepRecord] = {}
        self.lost: set[str] = set()
        """Keys of results that the store has no more, though it had them when it was asked."""
        self.files: list[tuple[int, Path]] = []
        self.halted = False
        """True once a result turned out to be lost, so that no step begins before the plan is looked up again."""
        self.failure: BaseException | None = None
        """The error that ended the run; after it no worker begins or goes on with a step."""
        self._emitting = threading.RLock()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def saved(self, step: Step, path: Path) -> None:
        with self._emitting:
            self.files.append((step.index, path))
            self.emit(events.FileSaved(step.name, str(path)))

    def warn(self, message: str, step: str | None = None) -> None:
        with self._emitting:
            self.outcome.warnings.append(message)
            self.emit(events.Warned(step, message))

    def emit(self, event: Event) -> None:
        """Pass an event to the listeners, one at a time: they need not be able to take two at once."""
        with self._emitting:
            for listener in self.listeners:
                listener(event)

    def stop_if_cancelled(self) -> None:
        if self.failure is not None or (self.cancel is not None and self.cancel.is_set()):
            raise Cancelled("the run was cancelled")

    def run(self) -> Outcome:
        plan, outcome = self.plan, self.outcome
        begun = time.perf_counter()
        ending = "failed"
        if self.listeners:
            self.emit(events.RunStarted(len(plan.steps), sum(step.progress_steps or 1 for step in plan.steps)))
        for problem in plan.warnings:
            self.warn(str(problem), problem.node)
        try:
            while not self._advance():
                pass
            outcome.results = {name: self.values[ref] for name, ref in plan.results.items()}
            ending = "done"
        except (KeyboardInterrupt, Cancelled):
            ending = "interrupted"
            raise
        finally:
            self.values.clear()
            outcome.seconds = time.perf_counter() - begun
            outcome.files = [path for _, path in sorted(self.files, key=itemgetter(0))]
            records = self.records
            outcome.records = [
                records.get(step.index) or StepRecord(step.name, "unneeded" if ending == "done" else "not reached")
                for step in plan.steps
            ]
            states = [record.state for record in outcome.records]
            self.emit(events.RunFinished(ending, outcome.seconds, states.count("ran"), states.count("cached")))
        return outcome

    def _advance(self) -> bool:
        """Go through the steps once; False where a kept result was gone after all and has to be computed again."""
        finished = {index for index in self.records if self.plan.steps[index].node.effect}
        found = look_up(
            self.plan,
            self.cache,
            self.output_folder,
            self.warn,
            lost=self.lost,
            present=self.values,
            finished=finished,
        )
        wanted = [step for step in self.plan.steps if found.states[step.index] != "unneeded"]
        running = [step for step in wanted if found.states[step.index] == "run"]
        with cached_answers():
            read_ahead(file for step in running for file in step.node.weight_files())
        self.uses = Counter(ref for step in running for ref in step.refs)
        self.uses.update(set(self.plan.results.values()))
        self.values = {ref: value for ref, value in self.values.items() if self.uses[ref]}
        self.halted = False
        units = make_units(self.plan, wanted, found.states, len(self.compute))
        self.found, self.placement = found, Placement(units, list(self.compute), self.values)
        if len(self.compute) == 1:
            (device,) = self.compute
            self._work(device)
        else:
            run_workers(self.compute, self._work, self._fail)
            if self.failure is not None:
                raise self.failure
        return not self.placement.left

    def _fail(self, error: BaseException) -> None:
        """Have an error of one worker end the others at their next step."""
        with self._lock:
            self.failure = self.failure or error
            self._changed.notify_all()

    def _work(self, device: str) -> None:
        """Take steps and do them until there are none, or until a kept result turns out to be gone."""
        unit = self._next(device)
        while unit is not None and self._do(unit, device):
            unit = self._next(device, done=unit)

    def _next(self, device: str, done: Unit | None = None) -> Unit | None:
        """Take the next unit, waiting where other devices have to finish something first; None where it is over."""
        with self._lock:
            placement = self.placement
            if done is not None:
                placement.done(done)
                if self.found.states[done[0].index] == "run":
                    self._drop(done)
                if len(self.compute) > 1:
                    self._changed.notify_all()
            while placement.left and not self.halted:
                self.stop_if_cancelled()
                unit = placement.take(device)
                if unit is not None:
                    return unit
                self._changed.wait(PAUSE)
            return None

    def _do(self, unit: Unit, device: str) -> bool:
        """Run steps, or take what is known of one; False where that was not there after all."""
        step, found = unit[0], self.found
        if found.states[step.index] == "run":
            self._run_or_wait(unit, device)
        elif step.index in found.files:
            self._cached(step, {})
            for path in found.files[step.index]:
                self.saved(step, path)
        elif not self._read(step):
            self.lost.add(step.key)
            self.halted = True
            return False
        return True

    def _drop(self, unit: Unit) -> None:
        """Let go of the inputs of steps that nothing else needs."""
        for step in unit:
            for ref in step.refs:
                self.uses[ref] -= 1
                if not self.uses[ref]:
                    self.values.pop(ref, None)

    def _cached(self, step: Step, outputs: Mapping[str, Any]) -> None:
        self._keep(step, outputs)
        self.records[step.index] = StepRecord(step.name, "cached")
        if self.listeners:
            self.emit(events.StepCached(step.index, step.name, step.node.type_id))

    def _read(self, step: Step) -> bool:
        """Take the outputs of a step from the store, if they are there."""
        assert self.cache is not None
        outputs = self.cache.get(step.key, step.output_types, self.warn)
        if outputs is not None:
            self._cached(step, outputs)
        return outputs is not None

    def _run_or_wait(self, unit: Unit, device: str) -> None:
        """Run steps, but for those that another process is about to run: take what that made."""
        store = self.cache
        if store is None or not unit[0].node.cached:
            self._run(unit, device)
            return
        with claimed(unit, store, waiting=self._waiting, stop_if_cancelled=self.stop_if_cancelled) as held:
            # some may have been made since the store was looked through
            left = tuple(
                step for step in held if step.key in self.lost or not store.has(step.key) or not self._read(step)
            )
            if left:
                self._run(left, device)
        for step in unit:
            if step not in held:
                self._run_or_wait((step,), device)

    def _waiting(self, step: Step) -> None:
        self.emit(events.StepWaiting(step.index, step.name, step.node.type_id))

    def _run(self, unit: Unit, device: str) -> None:
        arguments = [self._arguments(step, device, len(unit)) for step in unit]
        begun = time.perf_counter()
        outputs = None
        try:
            if len(unit) == 1:
                results: Sequence[Any] = [unit[0].node.run(**arguments[0])]
            else:
                results = type(unit[0].node).run_batch([step.node for step in unit], arguments)
            outputs = [outputs_by_name(step, result) for step, result in zip(unit, results, strict=True)]
        except (KeyboardInterrupt, Cancelled):
            raise
        except BaseException as error:
            if len(unit) == 1 or not out_of_memory(error):
                self._failed(unit, arguments, error)
                raise
        if outputs is None:
            # an estimate of memory is not exact, and others may compute on the device too; by now the failure, and
            # what was alive in it, is forgotten
            self.warn(f"memory ran out with {len(unit)} steps at once, so they are run one by one", unit[0].name)
            for step in unit:
                self._run((step,), device)
            return
        seconds = (time.perf_counter() - begun) / len(unit)
        for step, given, made in zip(unit, arguments, outputs, strict=True):
            self._keep(step, made)
            if self.cache is not None:
                if step.node.cached:
                    self.cache.put(step.key, made, self.warn)
                elif (context := given.get("context")) is not None:
                    keep_receipt(self.cache, step, context.output_folder, context.files, self.warn)
            self.records[step.index] = StepRecord(step.name, "ran", seconds, device)
            if self.listeners:
                self.emit(events.StepFinished(step.index, step.name, step.node.type_id, seconds))

    def _failed(self, unit: Unit, arguments: Sequence[dict[str, Any]], error: BaseException) -> None:
        """Note on an error which steps it ended, and what may help; tell the listeners."""
        for step, given in zip(unit, arguments, strict=True):
            given.pop("context", None)
            error.add_note(note_on_failure(step, given))
            if out_of_memory(error):
                error.add_note(f"memory ran out: {memory_advice(step, self.plan.compute)}")
            message = f"{type(error).__name__}: {error}"
            self.emit(events.StepFailed(step.index, step.name, step.node.type_id, message))

    def _arguments(self, step: Step, device: str, batch: int) -> dict[str, Any]:
        """Report that a step begins, and collect the arguments of its call."""
        node, values = step.node, self.values
        if self.listeners:
            self.emit(events.StepStarted(step.index, step.name, node.type_id, step.progress_steps, device))
        given = {
            port: value.value if isinstance(value, Constant) else values[value] for port, value in step.inputs.items()
        }
        if node.signature().takes_context:
            given["context"] = RunContext(self, step, device, batch)
        return given

    def _keep(self, step: Step, outputs: Mapping[str, Any]) -> None:
        for output, value in outputs.items():
            ref = step.outputs[output]
            if self.uses[ref]:
                self.values[ref] = value
