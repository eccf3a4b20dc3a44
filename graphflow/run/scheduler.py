"""execute: run a plan.

The loop is short because the plan holds every decision. It first looks up what the store already has, so that a step
whose results are known does not run, nor anything that only it needs. Going forward it reads or computes the rest,
drops each value after its last use and emits an event for each change of state. Where a kept result turns out to be
damaged or gone, it looks up again and goes on from there.

Each device has a worker, which takes one step after the other from the `Placement`. The only worker of one device is
the calling thread itself.
"""

from __future__ import annotations

import math
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
from graphflow.machine.memory import free_memory
from graphflow.machine.read_ahead import read_ahead
from graphflow.node import Context, Ref
from graphflow.planning.budget import memory_advice, out_of_memory
from graphflow.planning.planner import Plan, Step
from graphflow.planning.step import memory_of_batch
from graphflow.record.outcome import Outcome, StepRecord
from graphflow.run.lookup import LookUp, look_up
from graphflow.run.placement import Placement, Unit
from graphflow.run.receipts import keep_receipt
from graphflow.store.interface import Claim, Store
from graphflow.types import type_name

__all__ = ["execute"]


class RunContext(Context):
    """The context of one running step."""

    def __init__(self, runner: _Runner, step: Step, device: str, together: int) -> None:
        self._runner, self._step = runner, step
        self.compute, self.output_folder = runner.compute[device], runner.output_folder / step.folder
        self.memory = memory_of_batch(step.node, step.input_types, together, runner.plan.compute)
        record = runner.provenance.get(step.folder)
        name = step.name.removeprefix(f"{step.folder}/")
        self.provenance = None if record is None else {**record, "saved_by": name}
        self.files: list[Path] = []

    def step(self, done: int, total: int) -> None:
        """Tell progress; raises Cancelled when the run was asked to stop."""
        self._runner.emit(events.StepProgress(self._step.index, self._step.name, done, total))
        self._runner.stop_if_cancelled()

    def saved(self, path: Path) -> None:
        """Tell that a file was written."""
        self.files.append(path)
        self._runner.saved(self._step, path)

    def warn(self, message: str) -> None:
        """Tell the user something legal but surprising."""
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

    ``provenance`` has what saved files may tell of themselves, by the folder of their step.

    What a node raises passes through with a note that names the node and the shapes of its inputs. Raises Cancelled
    after ``cancel`` was set, at the latest when the running node tells its next step.
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
        """How many steps, and results, still need a value."""
        self.records: dict[int, StepRecord] = {}
        self.lost: set[str] = set()
        """Keys of results that the store has no more, though it had them when it was asked."""
        self.files: list[tuple[int, Path]] = []
        self.halted = False
        """Whether a result turned out to be lost, so that nobody begins another step before it is looked up again."""
        self.failure: BaseException | None = None
        """What ended the run; from then on no worker begins or goes on with a step."""
        self._telling = threading.RLock()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def saved(self, step: Step, path: Path) -> None:
        with self._telling:
            self.files.append((step.index, path))
            self.emit(events.FileSaved(step.name, str(path)))

    def warn(self, message: str, step: str | None = None) -> None:
        with self._telling:
            self.outcome.warnings.append(message)
            self.emit(events.Warned(step, message))

    def emit(self, event: Event) -> None:
        """Tell the listeners, which need not be able to hear two workers at once."""
        with self._telling:
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
        """Go through the steps once; False where a kept result was not there after all, and has to be made anew."""
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
        self.found, self.placement = found, Placement(self._units(wanted, found), list(self.compute), self.values)
        if len(self.compute) == 1:
            (device,) = self.compute
            self._work(device)
        else:
            self._work_together()
        return not self.placement.left

    def _work_together(self) -> None:
        """One worker for each device; what one of them raises ends the others at their next step, and is raised here.

        Python hands an interruption from the keyboard to this thread, which does nothing but wait.
        """

        def work(device: str) -> None:
            try:
                self._work(device)
            except BaseException as error:
                with self._lock:
                    self.failure = self.failure or error
                    self._changed.notify_all()

        workers = [threading.Thread(target=work, args=[device], name=f"graphflow-{device}") for device in self.compute]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                while worker.is_alive():
                    worker.join(_WAITING)
        except BaseException as error:
            self.failure = self.failure or error
            for worker in workers:
                worker.join()
        if self.failure is not None:
            raise self.failure

    def _units(self, wanted: Iterable[Step], found: LookUp) -> list[Unit]:
        """The steps that are needed, those of a batch that have to run as one, as far as memory and devices allow."""
        units: list[Unit] = []
        taken: set[int] = set()
        for step in wanted:
            if len(step.batch) < 2:
                units.append((step,))
                continue
            if step.index in taken:
                continue
            running = [self.plan.steps[each] for each in step.batch if found.states[each] == "run"]
            if found.states[step.index] == "run" and len(running) > 1:
                size = min(self._fitting(step, len(running)), math.ceil(len(running) / len(self.compute)))
                units += [tuple(running[start : start + size]) for start in range(0, len(running), size)]
                taken.update(each.index for each in running)
            else:
                units.append((step,))
        return units

    def _fitting(self, step: Step, most: int) -> int:
        """How many equal steps may be computed together within the memory that there is."""
        compute = self.plan.compute
        limit = free_memory(compute.device) if compute.memory_budget is None else compute.memory_budget
        count = most
        while count > 1 and limit is not None:
            need = memory_of_batch(step.node, step.input_types, count, compute)
            if need is None or need.total <= limit:
                break
            count -= 1
        return count

    def _work(self, device: str) -> None:
        """Take steps and do them until there are none, or until a kept result turns out to be gone."""
        unit = self._next(device)
        while unit is not None and self._do(unit, device):
            unit = self._next(device, done=unit)

    def _next(self, device: str, done: Unit | None = None) -> Unit | None:
        """What to run now, waited for where other devices have to finish something first; None where it is over."""
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
                self._changed.wait(_WAITING)
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
        """Run steps, but for those that another process is about to run: for them take what that made."""
        store = self.cache
        if store is None or not unit[0].node.cached:
            self._run(unit, device)
            return
        claims: list[Claim] = []
        try:
            # nobody may wait for a claim who holds another one; so those that are taken have their turn later, alone
            waiting = []
            for step in unit:
                claim = self._claimed(step, store) if len(unit) == 1 else store.claim(step.key)
                if claim is None:
                    waiting.append(step)
                else:
                    claims.append(claim)
            # some may have been made since the store was looked through
            left = tuple(
                step
                for step in unit
                if step not in waiting and (step.key in self.lost or not store.has(step.key) or not self._read(step))
            )
            if left:
                self._run(left, device)
        finally:
            for claim in claims:
                claim.release()
        for step in waiting:
            self._run_or_wait((step,), device)

    def _claimed(self, step: Step, store: Store) -> Claim:
        told = False
        while True:
            claim = store.claim(step.key)
            if claim is not None:
                return claim
            if not told:
                self.emit(events.StepWaiting(step.index, step.name, step.node.type_id))
                told = True
            time.sleep(_WAITING)
            self.stop_if_cancelled()

    def _run(self, unit: Unit, device: str) -> None:
        arguments = [self._arguments(step, device, len(unit)) for step in unit]
        begun = time.perf_counter()
        outputs = None
        try:
            if len(unit) == 1:
                results: Sequence[Any] = [unit[0].node.run(**arguments[0])]
            else:
                results = type(unit[0].node).run_batch([step.node for step in unit], arguments)
            outputs = [_outputs(step, result) for step, result in zip(unit, results, strict=True)]
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
            error.add_note(_note(step, given))
            if out_of_memory(error):
                error.add_note(f"memory ran out: {memory_advice(step, self.plan.compute)}")
            told = f"{type(error).__name__}: {error}"
            self.emit(events.StepFailed(step.index, step.name, step.node.type_id, told))

    def _arguments(self, step: Step, device: str, together: int) -> dict[str, Any]:
        """Tell that a step begins, and put together what it is called with."""
        node, values = step.node, self.values
        if self.listeners:
            self.emit(events.StepStarted(step.index, step.name, node.type_id, step.progress_steps, device))
        given = {
            port: value.value if isinstance(value, Constant) else values[value] for port, value in step.inputs.items()
        }
        if node.signature().takes_context:
            given["context"] = RunContext(self, step, device, together)
        return given

    def _keep(self, step: Step, outputs: Mapping[str, Any]) -> None:
        for output, value in outputs.items():
            ref = step.outputs[output]
            if self.uses[ref]:
                self.values[ref] = value


_WAITING = 0.05
"""Seconds between two looks at whether another process or worker is done, or the run was cancelled."""


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
