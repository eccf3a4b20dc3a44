"""Steps that are computed together: which those are, that they give what each gives alone, and what bounds them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from graphflow import Compute, Context, Memory, Node, PortType, Registry
from graphflow.events import Event, StepFailed, StepFinished, StepStarted
from graphflow.machine.switches import Switches

BATCHES: list[list[int]] = []
"""The seeds of the steps that were computed together, one list for each call; tests clear it."""


class Noise(Node, version=1):
    """Compute something that may be computed together with others of the same length."""

    seed: int = 0
    steps: int = 1

    def run(self, *, value: int = 0, context: Context) -> int:
        BATCHES.append([self.seed])
        return value + self.seed * 10 + self.steps

    def batch_key(self, inputs: Mapping[str, PortType]) -> Hashable:
        return self.steps

    @classmethod
    def run_batch(cls, nodes: Sequence[Self], arguments: Sequence[Mapping[str, Any]]) -> list[int]:
        BATCHES.append([node.seed for node in nodes])
        if any(node.seed == 13 for node in nodes):
            raise RuntimeError("thirteen")
        return [
            given.get("value", 0) + node.seed * 10 + node.steps for node, given in zip(nodes, arguments, strict=True)
        ]

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory:
        return Memory(50, 100 * (inputs["value"].batch or 1) if "value" in inputs else 0)


class Batch(Node, version=1):
    """Give a number of which it is known how many pictures it stands for."""

    tag: int = 0

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        return {"value": PortType(int, batch=1)}

    def run(self) -> int:
        return self.tag


REGISTRY = Registry([Noise, Batch])


def workflow(*, chained: int = 1) -> gf.Workflow:
    built = gf.Workflow()
    seed = built.input("seed", "int", default=1)
    steps = built.input("steps", "int", default=4)
    source = built.add("source", Batch(tag=100))
    for number in range(chained):
        source = built.add(f"noise{number}", Noise(), value=source, seed=seed, steps=steps)
    built.output("total", source)
    return built


def run(built: gf.Workflow, **options: Any) -> gf.Run:
    BATCHES.clear()
    return built.run(registry=REGISTRY, **{"device": "cpu", "cache": False, **options})


def totals(made: gf.Run) -> list[int]:
    return [point["total"] for point in made.points]


def test_points_of_a_sweep_are_computed_together_and_give_what_each_gives_alone() -> None:
    sweep = {"seed": [1, 2, 3, 4, 5]}
    alone, together = run(workflow(), sweep=sweep), run(workflow(), sweep=sweep, max_batch=4)
    assert totals(alone) == totals(together) == [114, 124, 134, 144, 154]
    assert BATCHES == [[1, 2, 3, 4], [5]]


def test_only_steps_of_one_key_are_computed_together() -> None:
    run(workflow(), sweep={"steps": [4, 8], "seed": [1, 2]}, max_batch=8)
    assert BATCHES == [[1, 2], [1, 2]]


def test_on_the_cpu_every_step_is_computed_alone_unless_told_otherwise() -> None:
    run(workflow(), sweep={"seed": [1, 2]})
    assert BATCHES == [[1], [2]]
    assert Switches(device="cpu").resolve().max_batch == 1


@given(
    seeds=st.lists(st.integers(0, 12), min_size=1, max_size=9, unique=True),
    most=st.integers(1, 5),
    chained=st.integers(1, 3),
)
def test_any_batches_give_what_single_steps_give(seeds: list[int], most: int, chained: int) -> None:
    built, sweep = workflow(chained=chained), {"seed": seeds}
    assert totals(run(built, sweep=sweep)) == totals(run(built, sweep=sweep, max_batch=most))
    assert max(len(batch) for batch in BATCHES) == min(most, len(seeds))
    assert sorted(seed for batch in BATCHES for seed in batch) == sorted(seeds * chained)


def test_what_is_kept_is_not_computed_again_in_a_batch() -> None:
    store = gf.MemoryCache()
    run(workflow(), sweep={"seed": [2, 4]}, cache=store, max_batch=8)
    made = run(workflow(), sweep={"seed": [1, 2, 3, 4]}, cache=store, max_batch=8)
    assert BATCHES == [[1, 3]] and totals(made) == [114, 124, 134, 144]


def test_a_step_that_another_process_has_claimed_is_left_out_of_the_batch(tmp_path: Path) -> None:
    store = gf.DiskStore(tmp_path)
    graphs = workflow().plan(registry=REGISTRY, sweep={"seed": [2]}, device="cpu")
    (key,) = [step.key for step in graphs.steps if step.node.type_id == "Noise"]
    claim = store.claim(key)
    assert claim is not None

    def listen(event: Event) -> None:
        if event.__class__.__name__ == "StepWaiting":
            store.put(key, {"value": 124}, lambda message: None)
            claim.release()

    made = run(workflow(), sweep={"seed": [1, 2, 3]}, cache=store, max_batch=8, listeners=[listen])
    assert BATCHES == [[1, 3]] and totals(made) == [114, 124, 134]


def test_a_batch_is_as_large_as_memory_allows() -> None:
    run(workflow(), sweep={"seed": [1, 2, 3, 4, 5]}, max_batch=8, memory_budget=260)  # 50 and 100 for each
    assert BATCHES == [[1, 2], [3, 4], [5]]


def test_a_batch_is_shared_out_among_devices() -> None:
    made = run(workflow(), sweep={"seed": [1, 2, 3, 4]}, max_batch=8, device="cpu:0,cpu:1")
    assert sorted(BATCHES) == [[1, 2], [3, 4]] and totals(made) == [114, 124, 134, 144]


def test_every_step_of_a_batch_tells_what_happens_to_it() -> None:
    told: list[Event] = []
    made = run(workflow(), sweep={"seed": [1, 2]}, max_batch=2, listeners=[told.append])
    assert [event.step for event in told if isinstance(event, StepStarted)][1:] == ["seed=1/noise0", "seed=2/noise0"]
    assert [event.step for event in told if isinstance(event, StepFinished)][1:] == ["seed=1/noise0", "seed=2/noise0"]
    assert {record.state for record in made.outcome.records} == {"ran"}


def test_a_batch_that_fails_names_all_its_steps() -> None:
    told: list[Event] = []
    with pytest.raises(RuntimeError) as caught:
        run(workflow(), sweep={"seed": [1, 13]}, max_batch=2, listeners=[told.append])
    assert [note.partition(" (")[0] for note in caught.value.__notes__] == [
        "in node 'seed=1/noise0'",
        "in node 'seed=13/noise0'",
    ]
    assert [event.step for event in told if isinstance(event, StepFailed)] == ["seed=1/noise0", "seed=13/noise0"]


def test_keys_do_not_depend_on_what_is_computed_together() -> None:
    plans = [
        workflow().plan(registry=REGISTRY, sweep={"seed": [1, 2]}, device="cpu", max_batch=count) for count in (1, 2)
    ]
    assert {step.key for step in plans[0].steps} == {step.key for step in plans[1].steps}
    assert [step.batch for step in plans[1].steps] == [(), (1, 2), (1, 2)]


def test_a_number_below_one_is_refused() -> None:
    with pytest.raises(gf.WorkflowError, match="found max_batch 0, expected at least 1"):
        Switches(device="cpu", max_batch=0).resolve()


class Greedy(Noise, version=1):
    """Compute at most two steps at once, whatever was estimated, and none with the seed 13."""

    def run(self, *, value: int = 0, context: Context) -> int:
        if self.seed == 13:
            raise MemoryError("no room for 13")
        return super().run(value=value, context=context)

    @classmethod
    def run_batch(cls, nodes: Sequence[Self], arguments: Sequence[Mapping[str, Any]]) -> list[int]:
        if len(nodes) > 2:
            raise MemoryError(f"no room for {len(nodes)}")
        return super().run_batch(nodes, arguments)


def greedy(seeds: list[int], most: int) -> gf.Run:
    built = gf.Workflow()
    source = built.add("source", Batch(tag=100))
    built.output("total", built.add("noise", Greedy(), value=source, seed=built.input("seed", "int")))
    BATCHES.clear()
    registry = Registry([Greedy, Batch])
    return built.run(registry=registry, device="cpu", cache=False, sweep={"seed": seeds}, max_batch=most)


def test_a_batch_that_memory_has_no_room_for_is_computed_one_by_one() -> None:
    made = greedy([1, 2, 3, 4], most=4)
    assert totals(made) == [111, 121, 131, 141]
    assert BATCHES == [[1], [2], [3], [4]]
    assert [record.state for record in made.outcome.records] == ["ran"] * 5
    assert made.outcome.warnings == ["memory ran out with 4 steps at once, so they are run one by one"]


def test_a_step_that_memory_has_no_room_for_says_what_would_help() -> None:
    with pytest.raises(MemoryError, match="no room for 13") as caught:
        greedy([1, 12, 13, 14], most=4)
    (where, help_) = caught.value.__notes__
    assert where.startswith("in node 'seed=13/noise' (Greedy)")
    assert help_.startswith("memory ran out: it needs a machine with more memory")
