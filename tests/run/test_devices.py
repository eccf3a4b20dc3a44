"""Several devices: steps run side by side where their models and inputs are, and everything else is as on one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphflow as gf
from graphflow import Context, Node, Registry
from graphflow.events import Event, RunFinished, StepStarted
from graphflow.machine.switches import Switches
from graphflow.planning.planner import Plan
from graphflow.run.placement import Placement

TWO = "cpu:0,cpu:1"
meeting = threading.Barrier(2)


class Draw(Node, version=1):
    """Compute something with a model."""

    model: str = "a"
    tag: int = 0

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def run(self, *, value: int = 0) -> int:
        return value * 7 + self.tag + len(self.model)


class Change(Node, version=1):
    """Compute something without a model."""

    tag: int = 0

    def run(self, *, value: int) -> int:
        return value + self.tag


class Meet(Node, version=1):
    """Wait until another step runs too."""

    model: str = "a"

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def run(self) -> int:
        return meeting.wait(20)


class Fail(Node, version=1):
    """Wait for another step, then fail."""

    def run(self) -> int:
        meeting.wait(20)
        raise RuntimeError("out of luck")


class Long(Node, version=1):
    """Go on for a long time, unless told to stop."""

    model: str = "b"

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def run(self, *, context: Context) -> int:
        meeting.wait(20)
        for done in range(2000):
            threading.Event().wait(0.01)
            context.step(done, 2000)
        return 0


class Keep(Node, version=1, effect=True):
    """Write a number down, in the first file that is free."""

    def run(self, *, value: int, context: Context) -> None:
        folder = context.output_folder
        folder.mkdir(parents=True, exist_ok=True)
        path = next(path for number in range(1000) if not (path := folder / f"{number}.txt").exists())
        path.write_text(str(value))
        context.saved(path)


REGISTRY = Registry([Draw, Change, Meet, Fail, Long, Keep])


def chains(models: str, items: int) -> gf.Workflow:
    """For each item a step on each of the models, one after the other, then one without a model, which is saved."""
    built = gf.Workflow()
    for item in range(items):
        fields: dict[str, Any] = {}
        for place, model in enumerate(models):
            name = f"{model}{item}" + ("-again" if model in models[:place] else "")
            fields = {"value": built.add(name, Draw(model=model, tag=item), **fields)}
        built.add(f"keep{item}", Keep(), value=built.add(f"change{item}", Change(tag=item), **fields))
    return built


def planned(built: gf.Workflow) -> Plan:
    return gf.plan(gf.bind(built, registry=REGISTRY))


def simulated(plan: Plan, devices: str) -> dict[str, list[str]]:
    """The steps that each device takes, when all steps take equally long."""
    names = [f"cpu:{device}" for device in devices]
    placement, taken = Placement([(step,) for step in plan.steps], names), {name: list[str]() for name in names}
    while placement.left:
        running = [(name, unit) for name in names if (unit := placement.take(name)) is not None]
        assert running, "steps are left and nobody takes one"
        for name, unit in running:
            taken[name] += [step.name for step in unit]
            placement.done(unit)
    return taken


def test_each_of_two_models_stays_on_one_device() -> None:
    first, second = simulated(planned(chains("ab", 8)), "01").values()
    assert {name[0] for name in first if name[0] in "ab"} | {name[0] for name in second if name[0] in "ab"} == {*"ab"}
    stolen = [name for name in second if name[0] == "a"] + [name for name in first if name[0] == "b"]
    assert len(stolen) <= 8, "most steps belong on the device that has their model"


def test_one_model_is_computed_on_all_devices_rather_than_waited_for() -> None:
    draws = [sum(name[0] == "a" for name in taken) for taken in simulated(planned(chains("a", 8)), "01").values()]
    assert draws == [4, 4]


def test_a_step_without_a_model_runs_where_its_input_was_made() -> None:
    for taken in simulated(planned(chains("a", 8)), "01").values():
        drawn = {name[1:] for name in taken if name[0] == "a"}
        changed = {name.removeprefix("change") for name in taken if name.startswith("change")}
        assert drawn == changed


@given(
    items=st.integers(1, 6),
    models=st.sampled_from(["a", "ab", "aba", "abc"]),
    devices=st.sampled_from(["0", "01", "012"]),
)
def test_every_step_is_given_out_once_and_after_what_it_needs(items: int, models: str, devices: str) -> None:
    plan = planned(chains(models, items))
    taken = simulated(plan, devices)
    assert sorted(name for names in taken.values() for name in names) == sorted(step.name for step in plan.steps)


@settings(max_examples=15, deadline=None)
@given(items=st.integers(1, 5), models=st.sampled_from(["a", "ab", "aba"]))
def test_values_and_files_are_those_of_one_device(
    tmp_path_factory: pytest.TempPathFactory, items: int, models: str
) -> None:
    made = []
    for device in ("cpu", TWO, "cpu:0,cpu:1,cpu:2"):
        out = tmp_path_factory.mktemp("out")
        run = chains(models, items).run(out=out, registry=REGISTRY, device=device, cache=False)
        made.append((dict(run), [(path.relative_to(out), path.read_text()) for path in run.files]))
    assert made[0] == made[1] == made[2]


def test_steps_run_at_the_same_time_and_listeners_are_told_one_by_one() -> None:
    built = gf.Workflow()
    for model in "ab":
        built.add(model, Meet(model=model))
    told: list[Event] = []
    inside = threading.Lock()

    def listen(event: Event) -> None:
        assert inside.acquire(blocking=False), "two workers tell at once"
        told.append(event)
        inside.release()

    built.run(registry=REGISTRY, device=TWO, cache=False, listeners=[listen])
    devices = {event.device for event in told if isinstance(event, StepStarted)}
    assert devices == {"cpu:0", "cpu:1"}


def test_records_tell_where_a_step_ran(tmp_path: Path) -> None:
    made = chains("ab", 2).run(out=tmp_path, registry=REGISTRY, device=TWO, cache=False)
    assert {record.device for record in made.outcome.records} <= {"cpu:0", "cpu:1"}
    one = chains("a", 1).run(out=tmp_path, registry=REGISTRY, device="cpu", cache=False)
    assert {record.device for record in one.outcome.records} == {"cpu"}


def test_a_failure_ends_the_other_workers_and_is_raised_with_its_note() -> None:
    built = gf.Workflow()
    built.add("long", Long())
    built.add("fail", Fail())
    told: list[Event] = []
    with pytest.raises(RuntimeError, match="out of luck") as caught:
        built.run(registry=REGISTRY, device=TWO, cache=False, listeners=[told.append])
    assert "in node 'fail'" in caught.value.__notes__[0]
    (finished,) = [event for event in told if isinstance(event, RunFinished)]
    assert finished.outcome == "failed" and not _workers()


def test_a_cancelled_run_ends_all_workers() -> None:
    built, cancel = gf.Workflow(), threading.Event()
    built.add("one", Long(model="a"))
    built.add("other", Long(model="b"))
    threading.Timer(0.2, cancel.set).start()
    with pytest.raises(gf.Cancelled):
        built.run(registry=REGISTRY, device=TWO, cache=False, cancel=cancel)
    assert not _workers()


def test_kept_results_are_those_of_one_device(tmp_path: Path) -> None:
    store = gf.MemoryCache()
    first = chains("ab", 3).run(out=tmp_path / "1", registry=REGISTRY, device=TWO, cache=store)
    again = chains("ab", 3).run(out=tmp_path / "2", registry=REGISTRY, device="cpu", cache=store)
    assert dict(first) == dict(again)
    states = {record.name: record.state for record in again.outcome.records}
    assert {state for name, state in states.items() if name.startswith("change")} == {"cached"}


def test_values_are_dropped_after_their_last_use_on_any_device() -> None:
    from benchmarks.pack import REGISTRY as BLOCKS
    from benchmarks.pack import Block, MakeBlock, NextBlock

    built = gf.Workflow()
    source = built.add("n0", MakeBlock(nbytes=1))
    for number in range(1, 20):
        source = built.add(f"n{number}", NextBlock(tag=number), block=source)
    Block.peak = Block.alive
    before = Block.alive
    built.run(registry=BLOCKS, device=TWO, cache=False)
    assert Block.peak - before <= 2


@pytest.mark.parametrize(
    ("device", "code"),
    [
        ("cpu,cpu", "device.twice"),
        ("cpu,cuda:all", "device.mixed"),
        ("cpu:1,cuda:0", "device.m"),
        ("cpu:0,tpu", "device.unknown"),
        ("cpu:0,", "device.unknown"),
    ],
)
def test_devices_that_do_not_go_together_are_refused(device: str, code: str) -> None:
    with pytest.raises(gf.WorkflowError) as caught:
        Switches(device=device).resolve()
    assert caught.value.problems[0].code.startswith(code)


def _workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("graphflow-cpu")]
