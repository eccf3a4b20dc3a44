"""plan: expansion, merging, pruning, order, last uses, keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch

import graphflow as gf
from graphflow import Expansion, Node, NodeDefinitionError, NodeHandle, Registry, Text
from tests.helpers.engine_pack import REGISTRY, Add, Join, Number, Write


def planned(nodes: dict[str, Any], outputs: dict[str, str] | None = None, **options: Any) -> gf.Plan:
    document: dict[str, Any] = {"graphflow": 1, "nodes": nodes}
    if outputs:
        document["outputs"] = {name: {"from": source} for name, source in outputs.items()}
    return gf.plan(gf.bind(gf.Workflow.model_validate(document), registry=REGISTRY), **options)


def names(plan: gf.Plan) -> list[str]:
    return [step.name for step in plan.steps]


ONE = {"type": "Number", "value": 1}


def test_a_coarse_node_becomes_the_nodes_it_stands_for() -> None:
    plan = planned({"one": ONE, "more": {"type": "AddTwice", "value": {"from": "one"}}})
    assert names(plan) == ["one", "more/add", "more/add-2"]
    assert gf.execute(plan).results == {"more": 3}


def test_equal_steps_are_merged_across_coarse_and_fine_nodes() -> None:
    plan = planned(
        {
            "one": ONE,
            "same": {"type": "Number", "value": 1},
            "coarse": {"type": "AddTwice", "value": {"from": "one"}, "by": 4},
            "fine": {"type": "Add", "left": {"from": "same"}, "by": 4},
        }
    )
    assert names(plan) == ["one", "coarse/add", "coarse/add-2"]
    assert gf.execute(plan).results == {"coarse": 9, "fine": 5}


def test_effects_are_never_merged() -> None:
    plan = planned({"a": {"type": "Write", "name": "x", "value": 1}, "b": {"type": "Write", "name": "y", "value": 1}})
    assert names(plan) == ["a", "b"]


def test_what_no_wanted_output_needs_is_dropped() -> None:
    nodes = {"one": ONE, "two": {"type": "Number", "value": 2}, "sum": {"type": "Add", "left": {"from": "one"}}}
    assert names(planned(nodes, {"result": "sum"})) == ["one", "sum"]
    assert names(planned(nodes, {"result": "one"})) == ["one"]
    assert set(names(planned(nodes))) == {"one", "two", "sum"}, "without outputs and effects every last node is wanted"


def test_a_kept_node_is_wanted_too() -> None:
    nodes = {"one": ONE, "two": {"type": "Number", "value": 2}}
    plan = planned(nodes, {"result": "one"}, keep=["two"])
    assert gf.execute(plan).results == {"result": 1, "one": 1, "two": 2}
    with pytest.raises(gf.WorkflowError, match="did you mean 'two'"):
        planned(nodes, keep=["tow"])


def test_without_results_only_plain_outputs_stay_in_memory() -> None:
    nodes = {"one": ONE, "block": {"type": "MakeBlock"}}
    plan = planned(nodes, {"number": "one", "block": "block"}, results=False)
    assert set(names(plan)) == {"one", "block"}
    assert list(plan.results) == ["number"]


def test_every_value_is_freed_once_after_its_last_use_or_kept() -> None:
    plan = planned(
        {
            "one": ONE,
            "a": {"type": "Add", "left": {"from": "one"}},
            "halves": {"type": "Split", "value": {"from": "a"}},
            "b": {"type": "Add", "left": {"from": "one"}, "right": {"from": "halves.low"}},
        },
        {"result": "b"},
    )
    freed = {ref: index for index, refs in enumerate(plan.freed()) for ref in refs}
    assert len(freed) == sum(map(len, plan.freed())), "a value is freed twice"
    for step in plan.steps:
        for ref in step.inputs.values():
            if isinstance(ref, gf.Ref):
                assert freed.get(ref, len(plan.steps)) >= step.index
        for output in step.output_types:
            ref = gf.Ref(step.index, output)
            assert (ref in freed) != (ref in plan.results.values())


def test_a_result_is_saved_before_later_work_begins() -> None:
    nodes: dict[str, Any] = {}
    for index in range(3):
        nodes[f"n{index}"] = {"type": "Number", "value": index}
        nodes[f"w{index}"] = {"type": "Write", "name": f"w{index}", "value": {"from": f"n{index}"}}
    assert names(planned(nodes)) == ["n0", "w0", "n1", "w1", "n2", "w2"]


class TestKeys:
    def key(self, node: dict[str, Any], **options: Any) -> str:
        return planned({"one": ONE, "x": node}, keep=["x"], **options).steps[-1].key

    def test_equal_plans_have_equal_keys_in_every_process(self) -> None:
        node = {"type": "Add", "left": {"from": "one"}, "by": 3}
        assert self.key(node) == self.key({"by": 3, "left": {"from": "one"}, "type": "Add"})
        assert len(self.key(node)) == 64

    def test_a_default_spelt_out_has_the_key_of_the_default(self) -> None:
        assert self.key({"type": "Add", "left": 1}) == self.key({"type": "Add", "left": 1, "by": 0})

    @pytest.mark.parametrize(
        "other",
        [
            {"type": "Add", "left": 1, "by": 1},
            {"type": "Add", "left": 2},
            {"type": "Add", "left": {"from": "one"}},
            {"type": "Add", "left": 1, "right": 5},
            {"type": "Wait", "value": 1},
        ],
    )
    def test_anything_that_changes_the_result_changes_the_key(self, other: dict[str, Any]) -> None:
        assert self.key({"type": "Add", "left": 1}) != self.key(other)

    def test_device_class_and_dtype_count_but_not_the_number_of_the_device(self) -> None:
        node = {"type": "Add", "left": 1}
        first, second = (self.key(node, compute=gf.Compute(device=f"cuda:{number}")) for number in range(2))
        assert first == second != self.key(node)
        assert self.key(node, compute=gf.Compute(dtype="float16")) != self.key(node)

    def test_switches_that_change_the_last_digits_count_and_offloading_does_not(self) -> None:
        node = {"type": "Add", "left": 1}
        kinds = [
            gf.Compute(),
            gf.Compute(attention="eager"),
            gf.Compute(attention="xformers"),
            gf.Compute(channels_last=True),
            gf.Compute(compile=True),
        ]
        assert len({self.key(node, compute=kind) for kind in kinds}) == len(kinds)
        for kind in kinds:
            assert self.key(node, compute=kind) == self.key(node, compute=replace(kind, offload="model"))

    def test_an_integer_for_a_float_parameter_is_the_float(self) -> None:
        scale = {"type": "Scale", "value": 1.0}
        assert self.key({**scale, "factor": 2}) == self.key({**scale, "factor": 2.0})

    def test_a_new_version_of_a_node_has_another_key(self) -> None:
        before = self.key({"type": "Add", "left": 1})
        Add.version = 2
        try:
            assert self.key({"type": "Add", "left": 1}) != before
        finally:
            Add.version = 1


def test_a_chain_of_20000_nodes_is_planned_and_run_without_recursion() -> None:
    nodes: dict[str, Any] = {"n0": ONE}
    for index in range(1, 20_000):
        nodes[f"n{index}"] = {"type": "Add", "left": {"from": f"n{index - 1}"}, "right": 1}
    plan = planned(nodes)
    assert len(plan.steps) == 20_000
    assert gf.execute(plan).results == {"n19999": 20_000}


def test_a_coarse_node_that_expands_into_itself_is_refused() -> None:
    class Endless(gf.Node, version=1):
        """Never ends."""

        def expand(self, g: gf.Expansion, *, value: int) -> int:
            result: int = g.add(Endless(), value=value)
            return result

    workflow = gf.Workflow()
    workflow.add("a", Endless(), value=1)
    with pytest.raises(gf.NodeDefinitionError, match="does it expand into itself"):
        gf.plan(gf.bind(workflow, registry=gf.Registry([Endless])))


def test_a_plan_is_plain_data_that_can_be_compared_whole() -> None:
    workflow = gf.Workflow()
    workflow.add("save", Write(name="x"), value=workflow.add("one", Number(value=1)))
    first, second = (gf.plan(gf.bind(workflow, registry=REGISTRY)) for _ in range(2))
    assert first == second
    assert first.results == {"one": gf.Ref(0, "value")}


def test_the_versions_in_keys_are_the_installed_ones() -> None:
    import importlib.metadata

    from graphflow.planning.planner import library_versions

    versions = library_versions()
    assert versions == {name: importlib.metadata.version(name) for name in versions}
    assert {"torch", "diffusers", "transformers"} <= set(versions)


class Ends(NamedTuple):
    first: str
    rest: str


class PassOn(Node, version=1):
    """Give what it was given."""

    def expand(self, g: Expansion, *, text: Text, number: float = 2, image: gf.Image | None = None) -> Ends:
        return Ends(text, g.add(Join(), left=text, right="?"))


class PassImage(Node, version=1):
    """Give the picture it was given."""

    def expand(self, g: Expansion, *, image: gf.Image) -> gf.Image:
        return image


class PassBoth(Node, version=1):
    """Give the default of its port, through another coarse node."""

    def expand(self, g: Expansion, *, number: float = 2) -> float:
        return number


PASSING = Registry([*REGISTRY.values(), PassOn, PassImage, PassBoth])


def test_a_coarse_node_may_give_back_a_value_that_it_was_given() -> None:
    w = gf.Workflow()
    passed = w.add("pass", PassOn(), text=w.input("text", "text", default="a"))
    w.add("join", Join(), left=passed, right=passed["rest"])
    w.output("text", passed)
    w.output("joined", NodeHandle("join"))
    assert w.validate(registry=PASSING) == []
    run = w.run(registry=PASSING, cache=False)
    assert (run["text"], run["joined"]) == ("a", "aa?")
    # the step that takes it has the key of one that was given the value itself
    direct = gf.Workflow()
    direct.add("join", Join(), left="a", right=direct.add("mark", Join(), left="a", right="?"))
    keys = {step.name: step.key for step in direct.plan(registry=PASSING, device="cpu").steps}
    assert next(step.key for step in run.plan.steps if step.name == "join") == keys["join"]
    assert w.run(registry=PASSING, cache=False, text="b")["joined"] == "bb?"


def test_a_value_that_is_passed_on_and_only_used_takes_no_step() -> None:
    w = gf.Workflow()
    w.add("join", Join(), left=w.add("pass", PassOn(), text="a"), right="!")
    assert [step.name for step in w.plan(registry=PASSING, device="cpu").steps] == ["join"]


def test_a_given_picture_and_a_default_are_passed_on() -> None:
    w = gf.Workflow()
    picture = gf.Image(torch.zeros(1, 3, 8, 8))
    w.output("image", w.add("pass", PassImage(), image=w.input("image", "image")))
    w.output("number", w.add("default", PassBoth()))
    assert w.validate(registry=PASSING) == []
    run = w.run(registry=PASSING, cache=False, image=picture)
    assert run["image"] is picture
    assert run["number"] == 2


def test_a_coarse_node_that_gives_something_else_is_named() -> None:
    class Wrong(Node, version=1):
        def expand(self, g: Expansion, *, text: Text) -> int:
            return text  # type: ignore[return-value]

    w = gf.Workflow()
    w.add("wrong", Wrong(), text="a")
    with pytest.raises(NodeDefinitionError, match=r"'wrong': Wrong.expand gave str for 'value', expected what g.add"):
        w.plan(registry=Registry([Wrong]))
