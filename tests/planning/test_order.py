"""The order of steps: topological, one model after the other, few values alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from graphflow.node import Ref
from graphflow.planning.order import grouped
from graphflow.planning.planner import plan_graphs
from graphflow.planning.step import Batches, find_batches
from tests.helpers.engine_pack import REGISTRY, Draw, Redraw


@dataclass
class Fake:
    """As much of a step as is asked of it."""

    needed: tuple[str, ...]
    inputs: Mapping[str, Any]
    input_types: Mapping[str, gf.PortType] = field(default_factory=dict)
    alike: str | None = None

    @property
    def node(self) -> Any:
        return self

    @property
    def refs(self) -> tuple[Ref, ...]:
        return tuple(self.inputs.values())

    @property
    def type_id(self) -> str:
        return "Step"

    def models(self) -> tuple[str, ...]:
        return self.needed

    def batch_key(self, inputs: Mapping[str, gf.PortType]) -> str | None:
        return self.alike


@st.composite
def graphs(draw: st.DrawFn) -> list[Any]:
    steps: list[Any] = []
    for index in range(draw(st.integers(1, 25))):
        sources = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        needed = draw(st.sampled_from([(), ("a",), ("b",), ("a", "c")]))
        inputs = {f"p{source}": Ref(source, "value") for source in sources}
        steps.append(Fake(needed, inputs, alike=draw(st.sampled_from([None, "x", "y"]))))
    return steps


def contracted(steps: list[Any], order: list[int], together: Batches) -> list[int]:
    """The order in which the steps of a batch follow each other, after all that they need."""
    done: list[int] = []
    while len(done) < len(order):
        for index in order:
            batch = together.get(index, (index,))
            needs = {ref.step for each in batch for ref in steps[each].inputs.values()}
            if index not in done and needs <= {*done}:
                done += batch
    return done


def switches(models: list[tuple[str, ...]]) -> int:
    """Count the models of each step that the last step with models did not need."""
    count = 0
    current: tuple[str, ...] = ()
    for needed in models:
        if needed and needed != current:
            count, current = count + 1, needed
    return count


@given(graphs(), st.integers(1, 4))
def test_every_step_comes_once_and_after_what_it_needs(steps: list[Any], most: int) -> None:
    order = list(range(len(steps)))
    together = find_batches(steps, order, most)
    found = grouped(steps, contracted(steps, order, together), together)
    assert sorted(found) == order
    places = {index: place for place, index in enumerate(found)}
    for index, step in enumerate(steps):
        assert all(places[ref.step] < places[index] for ref in step.inputs.values())
    for batch in together.values():
        assert 2 <= len(batch) <= most and len({steps[index].alike for index in batch} - {None}) == 1
        first = min(places[index] for index in batch)
        (needed,) = {steps[index].needed for index in batch}
        if needed:  # a step without models goes where its neighbours go
            assert sorted(places[index] for index in batch) == list(range(first, first + len(batch)))
        for step in (steps[index] for index in batch):  # all that any of them needs comes before the first
            assert all(places[ref.step] < first for ref in step.inputs.values())


class RedrawWith(Redraw, version=1):
    """As `Redraw`, with a model that has to be loaded."""

    def models(self) -> tuple[str, ...]:
        return (self.model,)


def test_eight_items_over_two_models_load_each_once() -> None:
    def item(seed: int) -> gf.Graph:
        workflow = gf.Workflow()
        drawn = workflow.add("draw", Draw(model="sd-model", seed=seed))
        workflow.output("again", workflow.add("redraw", RedrawWith(model="xl-model"), image=drawn))
        return gf.bind(workflow, registry=gf.Registry([*REGISTRY.values(), RedrawWith]))

    plan = plan_graphs({f"seed={seed}": item(seed) for seed in range(8)})
    models = [step.node.models() for step in plan.steps]
    assert len([needed for needed in models if needed]) == 16
    assert switches(models) == 2


def test_without_models_to_change_the_order_is_depth_first() -> None:
    """So a chain of 8 items finishes one after the other, and holds one value at a time."""
    steps: list[Any] = []
    for item in range(8):
        steps.append(Fake((), {}))
        steps.append(Fake(("a",), {"p": Ref(2 * item, "value")}))
    assert grouped(steps, list(range(16)), {}) == list(range(16))


def test_a_picture_is_loaded_when_it_is_needed() -> None:
    """Steps without a model go with the one that they prepare something for, not all of them first."""
    steps: list[Any] = []
    for _ in range(3):  # load, encode with a, redraw with b
        base = len(steps)
        steps += [
            Fake((), {}),
            Fake(("a",), {"p": Ref(base, "value")}),
            Fake(("b",), {"p": Ref(base + 1, "value")}),
        ]
    assert grouped(steps, list(range(9)), {}) == [0, 1, 3, 4, 6, 7, 2, 5, 8]
