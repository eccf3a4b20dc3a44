"""A saved workflow is a function: called by reference, with ports, nested to any depth, pinned, never recursive."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphflow as gf
from graphflow.document.library import Library
from tests.helpers.engine_pack import REGISTRY

Write = Callable[..., Path]

INCREASE: dict[str, Any] = {
    "inputs": {"value": {"type": "int"}, "by": {"type": "int", "default": 1}},
    "nodes": {"sum": {"type": "Add", "left": {"input": "value"}, "by": {"input": "by"}}},
    "outputs": {"result": {"from": "sum"}},
}


def run(path: Path, **inputs: Any) -> dict[str, Any]:
    return dict(gf.load(path).run(registry=REGISTRY, **inputs))


def codes(path: Path, **inputs: Any) -> list[str]:
    with pytest.raises(gf.WorkflowError) as caught:
        gf.bind(gf.load(path), inputs, registry=REGISTRY)
    return [problem.code for problem in caught.value.problems]


def call(uses: str, **fields: Any) -> dict[str, Any]:
    return {"type": "Workflow", "uses": uses, **fields}


def test_a_call_takes_literals_edges_and_defaults_and_gives_its_outputs(write: Write) -> None:
    write("increase.json", INCREASE)
    path = write(
        "main.json",
        {
            "nodes": {
                "two": call("increase", value=1),
                "seven": call("increase", value={"from": "two"}, by=5),
                "last": {"type": "Add", "left": {"from": "seven.result"}, "right": {"from": "two"}},
            },
            "outputs": {"total": {"from": "last"}},
        },
    )
    assert run(path)["total"] == 9


def test_inner_nodes_are_named_after_the_call(write: Write) -> None:
    write("increase.json", INCREASE)
    path = write("main.json", {"nodes": {"two": call("increase.json", value=1)}})
    assert gf.bind(gf.load(path), registry=REGISTRY).order == ["two/sum"]


def test_calls_nest_and_pass_the_callers_inputs_down(write: Write) -> None:
    write("increase.json", INCREASE)
    write(
        "twice.json",
        {
            "inputs": {"value": {"type": "int"}},
            "nodes": {
                "one": call("increase", value={"input": "value"}),
                "two": call("increase", value={"from": "one"}),
            },
            "outputs": {"result": {"from": "two.result"}},
        },
    )
    path = write(
        "main.json",
        {
            "inputs": {"start": {"type": "int", "default": 10}},
            "nodes": {"four": call("twice", value={"input": "start"})},
            "outputs": {"result": {"from": "four"}},
        },
    )
    assert run(path)["result"] == 12
    assert run(path, start=0)["result"] == 2


def test_a_hundred_levels_of_calls_cost_no_recursion(write: Write) -> None:
    write("level0.json", INCREASE)
    for level in range(1, 100):
        write(
            f"level{level}.json",
            {
                "inputs": {"value": {"type": "int"}},
                "nodes": {"inner": call(f"level{level - 1}", value={"input": "value"})},
                "outputs": {"result": {"from": "inner"}},
            },
        )
    path = write("main.json", {"nodes": {"top": call("level99", value=1)}, "outputs": {"result": {"from": "top"}}})
    assert run(path)["result"] == 2


def test_equal_calls_are_computed_once(write: Write) -> None:
    write("increase.json", INCREASE)
    path = write("main.json", {"nodes": {"a": call("increase", value=1), "b": call("increase", value=1)}})
    planned = gf.plan(gf.bind(gf.load(path), registry=REGISTRY))
    assert len(planned.steps) == 1
    assert set(planned.results) == {"a/sum", "b/sum"}


@pytest.mark.parametrize("uses", ["self", "self.json"])
def test_a_workflow_that_calls_itself_is_refused(write: Write, uses: str) -> None:
    assert codes(write("self.json", {"nodes": {"again": call(uses)}})) == ["workflow.recursive"]


def test_a_loop_over_two_files_names_the_files(write: Write) -> None:
    write("b.json", {"nodes": {"to_a": call("a")}})
    path = write("a.json", {"nodes": {"to_b": call("b")}})
    with pytest.raises(gf.WorkflowError, match=re.escape("a.json -> b.json -> a.json")):
        gf.bind(gf.load(path), registry=REGISTRY)


@pytest.mark.parametrize(
    ("node", "code"),
    [
        ({"type": "Workflow"}, "field.missing"),
        (call("incraese", value=1), "workflow.unknown"),
        (call("folder/increase.json", value=1), "workflow.unknown"),
        (call("../increase.json", value=1), "path.outside"),
        (call("increase@md5:12", value=1), "uses.form"),
        (call("increase@sha256:" + "0" * 64, value=1), "workflow.pin"),
        (call("increase"), "port.missing"),
        (call("increase", value="1"), "value.type"),
        (call("increase", value=1, byy=2), "field.unknown"),
        (call("increase", value=1, by=5000), "value.range"),
    ],
)
def test_a_faulty_call_has_its_code_and_place(write: Write, node: dict[str, Any], code: str) -> None:
    write("increase.json", INCREASE)
    path = write("main.json", {"nodes": {"bad": node}})
    with pytest.raises(gf.WorkflowError) as caught:
        gf.bind(gf.load(path), registry=REGISTRY)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert problem.position is not None and problem.position.line > 0


def test_faults_inside_a_called_file_are_told_with_that_files_place(write: Write) -> None:
    inner = write("inner.json", {"nodes": {"a": {"type": "Add", "left": 1, "by": -1}}})
    path = write("main.json", {"nodes": {"x": call("inner")}})
    with pytest.raises(gf.WorkflowError) as caught:
        gf.bind(gf.load(path), registry=REGISTRY)
    (problem,) = caught.value.problems
    assert problem.node == "x/a"
    assert problem.position is not None and problem.position.file == str(inner)


def test_an_output_that_a_called_workflow_lacks_is_named(write: Write) -> None:
    write("increase.json", INCREASE)
    write("silent.json", {"nodes": {"a": {"type": "Number"}}})
    path = write(
        "main.json",
        {
            "nodes": {
                "one": call("increase", value=1),
                "two": {"type": "Add", "left": {"from": "one.resutl"}},
                "three": call("silent"),
                "four": {"type": "Add", "left": {"from": "three"}},
            }
        },
    )
    with pytest.raises(gf.WorkflowError) as caught:
        gf.bind(gf.load(path), registry=REGISTRY)
    assert [problem.code for problem in caught.value.problems] == ["reference.output"] * 2
    assert "did you mean 'result'?" in str(caught.value)


class TestPins:
    def test_a_right_pin_whole_or_short_is_accepted(self, write: Write) -> None:
        increase = write("increase.json", INCREASE)
        whole = Library().hash(gf.load(increase))
        for pin in (whole, whole[:8], whole[:16]):
            path = write("main.json", {"nodes": {"a": call(f"increase@sha256:{pin}", value=1)}})
            assert run(path) == {"a/sum": 2}

    def test_descriptions_and_layout_do_not_count_but_content_does(self, write: Write) -> None:
        plain = Library().hash(gf.load(write("increase.json", INCREASE)))
        told = Library().hash(gf.load(write("increase.json", {"description": "adds", **INCREASE})))
        changed = {**INCREASE, "nodes": {"sum": {"type": "Add", "left": {"input": "value"}, "by": 2}}}
        assert plain == told != Library().hash(gf.load(write("increase.json", changed)))

    def test_a_change_in_a_file_called_deeper_breaks_the_pin(self, write: Write) -> None:
        write("increase.json", INCREASE)
        outer = write("outer.json", {"nodes": {"a": call("increase", value=1)}})
        pin = Library().hash(gf.load(outer))
        path = write("main.json", {"nodes": {"x": call(f"outer@sha256:{pin}")}})
        run(path)
        write("increase.json", {**INCREASE, "outputs": {}})
        assert codes(path) == ["workflow.pin"]


def test_the_workflow_path_of_the_environment_is_searched(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("library/increase.json", INCREASE)
    monkeypatch.setenv("GRAPHFLOW_PATH", str(tmp_path / "library"))
    path = write("project/main.json", {"nodes": {"a": call("increase", value=1)}})
    assert run(path) == {"a/sum": 2}
    assert gf.load("increase").inputs["value"].type == "int"


def test_the_hash_of_a_deep_chain_of_files_costs_no_recursion(write: Write) -> None:
    write("level0.json", INCREASE)
    for level in range(1, 1500):
        path = write(f"level{level}.json", {"nodes": {"inner": call(f"level{level - 1}.json", value=1)}})
    assert len(Library().hash(gf.load(path))) == 64


def test_two_calls_of_one_file_are_no_recursion(write: Write) -> None:
    write("increase.json", INCREASE)
    write("both.json", {"nodes": {"a": call("increase", value=1), "b": call("increase", value=2)}})
    path = write("main.json", {"nodes": {"x": call("both"), "y": call("increase", value=3)}})
    assert len(Library().hash(gf.load(path))) == 64


# Inputs that may be left out -----------------------------------------------------------------------------------------

OPTIONAL: dict[str, Any] = {
    "inputs": {"value": {"type": "int"}, "by": {"type": "int", "default": None}},
    "nodes": {"sum": {"type": "Add", "left": {"input": "value"}, "by": {"input": "by"}}},
    "outputs": {"result": {"from": "sum"}},
}


def test_an_input_with_the_default_null_leaves_the_node_its_own_default(write: Write) -> None:
    left_out = write("optional.json", OPTIONAL)
    without = write("without.json", OPTIONAL | {"nodes": {"sum": {"type": "Add", "left": {"input": "value"}}}})
    assert run(left_out, value=1) == run(without, value=1)
    assert run(left_out, value=1, by=5) != run(without, value=1)


def test_what_is_left_out_at_the_top_is_left_to_the_default_of_what_is_called(write: Write) -> None:
    write("increase.json", INCREASE | {"inputs": INCREASE["inputs"] | {"by": {"type": "int", "default": 7}}})
    path = write(
        "main.json",
        {
            "inputs": {"by": {"type": "int", "default": None}},
            "nodes": {"call": call("increase", value=1, by={"input": "by"})},
            "outputs": {"total": {"from": "call"}},
        },
    )
    assert run(path)["total"] == 8
    assert run(path, by=2)["total"] == 3


@pytest.mark.parametrize(
    ("node", "code"),
    [
        ({"type": "Add", "left": {"input": "value"}}, "port.missing"),
        ({"type": "Scale", "value": 1.0, "factor": {"input": "value"}}, "parameter.missing"),
        (call("increase", value={"input": "value"}), "port.missing"),
    ],
)
def test_what_a_node_needs_may_not_be_left_out(write: Write, node: dict[str, Any], code: str) -> None:
    write("increase.json", INCREASE)
    kind = "float" if node["type"] == "Scale" else "int"
    path = write("main.json", {"inputs": {"value": {"type": kind, "default": None}}, "nodes": {"node": node}})
    with pytest.raises(gf.WorkflowError) as caught:
        gf.bind(gf.load(path), registry=REGISTRY)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert problem.hint == "the input 'value' may not be left out here: give it another default than null"


class MaybeImage(gf.Node, version=1):
    """Tell whether there is an image."""

    def run(self, *, image: gf.Image | None = None) -> bool:
        return image is not None


def test_an_image_need_not_be_given_where_its_input_has_the_default_null(write: Write) -> None:
    path = write(
        "main.json",
        {
            "inputs": {"image": {"type": "image", "default": None}, "value": {"type": "int"}},
            "nodes": {
                "optional": {"type": "MaybeImage", "image": {"input": "image"}},
                "sum": {"type": "Add", "left": {"input": "value"}},
            },
            "outputs": {"given": {"from": "optional"}, "sum": {"from": "sum"}},
        },
    )
    made = gf.load(path).run(registry=gf.Registry([*REGISTRY.values(), MaybeImage]), value=1)
    assert made["given"] is False


def test_the_builder_writes_an_input_that_need_not_be_given() -> None:
    workflow = gf.Workflow()
    workflow.input("by", "int", default=None)
    workflow.input("value", "int")
    assert workflow.to_dict()["inputs"] == {"by": {"type": "int", "default": None}, "value": {"type": "int"}}
    assert [declaration.required for declaration in workflow.inputs.values()] == [False, True]
