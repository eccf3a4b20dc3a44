# ruff: noqa: E501 - a table reads best with one case a line
"""bind: every fault of a graph is found before anything runs, all of them at once, each at its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from graphflow import Image, InputFile, Node, PortType, Problem
from tests.helpers.engine_pack import REGISTRY, RUNS, Number

Find = Callable[..., list[gf.Problem]]


def graph(**nodes: dict[str, Any]) -> dict[str, Any]:
    return {"graphflow": 1, "nodes": nodes}


ONE = {"type": "Number", "value": 1}


@pytest.mark.parametrize(
    ("document", "code", "text"),
    [
        (graph(a={"type": "Numbr"}), "node.unknown", "did you mean 'Number'?"),
        (graph(a={"type": "Number", "valu": 1}), "field.unknown", "did you mean 'value'?"),
        (graph(a={"type": "Number", "value": "64"}), "value.type", 'found "64" (a text), expected an integer'),
        (graph(a={"type": "Number", "value": 64.0}), "value.type", "found 64.0 (a number), expected an integer"),
        (graph(a={"type": "Number", "value": True}), "value.type", "found true, expected an integer"),
        (graph(a={"type": "Number", "value": None}), "value.type", "found null, expected an integer"),
        (graph(a={"type": "Number", "value": [1]}), "value.type", "found a list, expected an integer"),
        (graph(o=ONE, a={"type": "Add", "left": {"from": "o"}, "by": 1001}), "value.range", "found 1001, expected at most 1000"),
        (graph(o=ONE, a={"type": "Add", "left": {"from": "o"}, "by": -1}), "value.range", "found -1, expected at least 0"),
        (graph(a={"type": "Scale", "value": 1.5}), "parameter.missing", "the parameter 'factor' of Scale is missing"),
        (graph(a={"type": "Scale", "value": 1, "factor": 2, "mode": "exct"}), "value.choice", "expected 'exact' or 'rounded'"),
        (graph(a={"type": "Add"}), "port.missing", "the port 'left' (Int) of Add is not connected"),
        (graph(a={"type": "Add", "left": {"from": "b"}}), "reference.node", "there is no node 'b'"),
        (graph(one=ONE, a={"type": "Add", "left": {"from": "onw"}}), "reference.node", "did you mean 'one'?"),
        (graph(one=ONE, a={"type": "Add", "left": {"from": "one.low"}}), "reference.output", "has no output 'low'"),
        (graph(one=ONE, a={"type": "Add", "left": {"from": "one."}}), "reference.form", 'expected "node" or "node.output"'),
        (graph(one=ONE, a={"type": "Add", "left": {"form": "one"}}), "reference.form", 'expected a literal, {"input": name}'),
        (graph(one=ONE, a={"type": "Add", "left": {"from": "one"}, "by": {"from": "one"}}), "parameter.edge", "only ports take edges"),
        (graph(a={"type": "Add", "left": {"input": "x"}}), "input.unknown", "the workflow has no input 'x'"),
        (graph(a={"type": "Join", "left": 3}), "value.type", "found 3 (an integer), expected a text"),
        (graph(one=ONE, a={"type": "Join", "left": {"from": "one"}}), "type.mismatch", "found Int from 'one', expected Text"),
        (graph(a={"type": "Redraw", "image": "cat.png"}), "value.type", "expected an edge of type Latent"),
        (graph(w={"type": "Write", "name": "a", "value": 1}, a={"type": "Add", "left": {"from": "w"}}), "reference.output", "gives no value"),
        (graph(a={"type": "Write", "name": "x", "value": 1}, b={"type": "Write", "name": "X", "value": 2}), "file.claimed_twice", "'a' writes too"),
        (graph(a={"type": "Odd", "sum": 4}), "value.even", "found 4, expected an odd number"),
        (graph(a={"type": "Number", "uses": "x"}), "field.unknown", "has no field 'uses'"),
        (graph(), "workflow.empty", "the workflow has no nodes"),
        (graph(a={"type": "ReadImage", "path": "../secret.png"}), "path.outside", "outside of the workflow's folder"),
        (graph(a={"type": "ReadImage", "path": "/etc/hostname"}), "path.outside", "outside of the workflow's folder"),
        (graph(a={"type": "ReadImage", "path": ""}), "path.empty", "expected the path of a file"),
        (graph(a={"type": "ReadImage", "path": "absent.png"}), "missing.file", "found no file"),
    ],
)  # fmt: skip
def test_a_fault_has_its_code_and_says_what_is_wrong(
    problems: Find, document: dict[str, Any], code: str, text: str
) -> None:
    found = problems(document)
    assert [problem.code for problem in found] == [code], [str(problem) for problem in found]
    assert text in str(found[0])
    assert found[0].position is not None and found[0].position.line > 0
    assert not RUNS


def test_all_faults_are_told_at_once_and_nothing_runs(problems: Find) -> None:
    found = problems(
        graph(
            a={"type": "Numbr"},
            b={"type": "Number", "value": "1", "valeu": 2},
            c={"type": "Add", "left": {"from": "nobody"}, "by": -3},
            d={"type": "Scale", "value": "x"},
            e={"type": "Odd", "sum": 2},
            f={"type": "Join", "left": {"from": "e"}},
        )
    )
    assert sorted((problem.node or "", problem.code) for problem in found) == [
        ("a", "node.unknown"),
        ("b", "field.unknown"),
        ("b", "value.type"),
        ("c", "reference.node"),
        ("c", "value.range"),
        ("d", "parameter.missing"),
        ("d", "value.type"),
        ("e", "value.even"),
        ("f", "type.mismatch"),
    ]
    assert not RUNS


def test_a_cycle_names_its_nodes_and_other_faults_are_still_found(problems: Find) -> None:
    found = problems(
        graph(
            a={"type": "Add", "left": {"from": "c"}},
            b={"type": "Add", "left": {"from": "a"}},
            c={"type": "Add", "left": {"from": "b"}},
            d={"type": "Add", "left": {"from": "c"}},
            e={"type": "Odd", "sum": 2},
            f={"type": "Add", "left": {"from": "f"}},
        )
    )
    assert sorted(problem.code for problem in found) == ["graph.cycle", "graph.cycle", "value.even"]
    cycles = " ".join(problem.message for problem in found if problem.code == "graph.cycle")
    assert "'a' -> 'b' -> 'c' -> 'a'" in cycles
    assert "'f' -> 'f'" in cycles


def test_warnings_alone_do_not_stop_a_workflow() -> None:
    graph = gf.bind(gf.loads('{"graphflow": 1, "nodes": {"a": {"type": "Odd", "sum": 101}}}'), registry=REGISTRY)
    assert [problem.code for problem in graph.warnings] == ["value.large"]


def test_only_absent_files_are_another_kind_of_error() -> None:
    workflow = gf.loads('{"graphflow": 1, "nodes": {"a": {"type": "ReadImage", "path": "absent.png"}}}')
    with pytest.raises(gf.MissingError):
        gf.bind(workflow, registry=REGISTRY)
    workflow.add("b", Number(value=1))
    workflow.nodes["b"].fields["value"] = "1"
    with pytest.raises(gf.WorkflowError) as caught:
        gf.bind(workflow, registry=REGISTRY)
    assert caught.value.exit_code == 2


def test_a_declared_input_that_nothing_uses_is_warned_of(problems: Find) -> None:
    document = {
        "graphflow": 1,
        "inputs": {"by": {"type": "int", "default": 1}, "spare": {"type": "text", "default": ""}},
        "nodes": {"a": {"type": "Add", "left": 1, "by": {"input": "by"}}},
    }
    assert problems(document) == []
    (warning,) = gf.bind(gf.loads(json.dumps(document, indent=1)), registry=REGISTRY).warnings
    assert (warning.code, warning.severity) == ("input.unused", "warning")
    assert warning.position is not None and warning.position.line == 8


class TestLatentSpaces:
    def test_a_hop_between_spaces_is_legal_explicit_and_warned_of(self) -> None:
        document = graph(
            draft={"type": "Draw", "model": "sd-model"},
            redraw={"type": "Redraw", "model": "xl-model", "image": {"from": "draft"}},
        )
        bound = gf.bind(gf.Workflow.model_validate(document), registry=REGISTRY)
        assert [problem.code for problem in bound.warnings] == ["type.hop"]
        assert "found Latent[sd] from 'draft', expected Latent[sdxl]" in bound.warnings[0].message
        steps = gf.plan(bound, results=False).steps
        assert [step.name for step in steps] == ["draft", "redraw/decode", "redraw/encode", "redraw"]
        assert [step.node.models() for step in steps] == [("sd-model",), (), (), ()]
        gf.execute(gf.plan(bound))
        assert RUNS[:2] == ["Decode sd-model", "Encode xl-model"]

    def test_within_one_space_nothing_is_converted(self) -> None:
        document = graph(draft={"type": "Draw"}, redraw={"type": "Redraw", "image": {"from": "draft"}})
        bound = gf.bind(gf.Workflow.model_validate(document), registry=REGISTRY)
        assert not bound.warnings
        assert [step.name for step in gf.plan(bound, results=False).steps] == ["draft", "redraw"]

    def test_an_image_becomes_a_latent_where_one_is_wanted(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").touch()
        document = graph(
            photo={"type": "ReadImage", "path": "a.png"}, redraw={"type": "Redraw", "image": {"from": "photo"}}
        )
        (tmp_path / "w.json").write_text(gf.Workflow.model_validate(document).dumps())
        bound = gf.bind(gf.load(tmp_path / "w.json"), registry=REGISTRY)
        assert not bound.warnings
        assert [step.name for step in gf.plan(bound, results=False).steps] == ["photo", "redraw/encode", "redraw"]


class TestInputs:
    DOCUMENT: ClassVar[dict[str, Any]] = {
        "graphflow": 1,
        "inputs": {
            "left": {"type": "int", "default": 2},
            "factor": {"type": "float"},
            "photo": {"type": "image"},
        },
        "nodes": {
            "sum": {"type": "Add", "left": {"input": "left"}},
            "scaled": {"type": "Scale", "value": {"from": "sum"}, "factor": {"input": "factor"}},
            "redraw": {"type": "Redraw", "image": {"input": "photo"}},
        },
    }

    def test_an_input_without_default_has_to_be_given(self, problems: Find) -> None:
        assert [problem.code for problem in problems(self.DOCUMENT)] == ["input.missing", "input.missing"]

    def test_while_checking_it_need_not_be_given(self) -> None:
        gf.bind(gf.Workflow.model_validate(self.DOCUMENT), registry=REGISTRY, checking=True)

    def test_a_path_given_for_an_image_is_loaded(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.touch()
        workflow = gf.Workflow.model_validate(self.DOCUMENT)
        planned = gf.plan(gf.bind(workflow, {"factor": 2.0, "photo": path}, registry=REGISTRY), results=False)
        assert "redraw/photo" in [step.name for step in planned.steps] or any(
            step.node.type_id == "ReadImage" for step in planned.steps
        )

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"factor": "2", "photo": "a.png"}, "value.type"),
            ({"factor": float("nan"), "photo": "a.png"}, "value.type"),
            ({"factor": 2.0, "photo": 3}, "value.type"),
            ({"factor": 2.0, "photo": "absent.png"}, "missing.file"),
            ({"facto": 2.0, "factor": 1, "photo": "a.png"}, "input.unknown"),
        ],
    )
    def test_a_wrong_value_is_refused(self, problems: Find, given: dict[str, Any], code: str) -> None:
        if given["photo"] == "a.png":
            given["photo"] = gf.Image(None)  # type: ignore[arg-type]
        assert [problem.code for problem in problems(gf.Workflow.model_validate(self.DOCUMENT), **given)] == [code]

    @pytest.mark.parametrize(
        "declaration",
        [{"type": "int", "default": "2"}, {"type": "bool", "default": 1}, {"type": "image", "default": "a.png"}],
    )
    def test_a_default_of_the_wrong_kind_is_refused(self, problems: Find, declaration: dict[str, Any]) -> None:
        document = {"graphflow": 1, "inputs": {"x": declaration}, "nodes": {"a": ONE}}
        problem, unused = problems(document)
        assert (unused.code, unused.severity) == ("input.unused", "warning")
        assert problem.code in ("value.type", "input.default")
        assert problem.position is not None and problem.position.line > 0

    def test_a_value_out_of_range_names_the_input_it_came_through(self, problems: Find) -> None:
        document = {
            "graphflow": 1,
            "inputs": {"by": {"type": "int", "default": 5}},
            "nodes": {"a": {"type": "Add", "left": 1, "by": {"input": "by"}}},
        }
        (problem,) = problems(gf.Workflow.model_validate(document), by=5000)
        assert "found 5000, expected at most 1000 (from the input 'by')" in problem.message

    def test_a_node_is_asked_about_literals_and_given_values_and_not_about_what_an_edge_brings(self) -> None:
        class Halve(gf.Node, version=1):
            """Divide even numbers by two."""

            def check_values(self, values: Mapping[str, str | int | float | bool]) -> Iterator[gf.Problem]:
                for port, value in values.items():
                    if int(value) % 2:
                        yield gf.Problem("test.odd", f"found {value}", port)

            def run(self, *, value: int) -> int:
                return value // 2

        registry = REGISTRY.copy()
        registry.add(Halve)
        workflow = gf.Workflow.model_validate(
            {
                "graphflow": 1,
                "inputs": {"given": {"type": "int", "default": 4}, "open": {"type": "int"}},
                "nodes": {
                    "one": ONE,
                    "edge": {"type": "Halve", "value": {"from": "one"}},
                    "literal": {"type": "Halve", "value": 3},
                    "value": {"type": "Halve", "value": {"input": "given"}},
                    "unknown": {"type": "Halve", "value": {"input": "open"}},
                },
            }
        )
        for values, told in ({}, ["literal"]), ({"given": 5}, ["literal", "value"]):
            with pytest.raises(gf.WorkflowError) as caught:
                gf.bind(workflow, values, registry=registry, checking=True)
            assert [(problem.node, problem.field) for problem in caught.value.problems] == [
                (name, "value") for name in told
            ]


@st.composite
def dags(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, int]]:
    """Random graphs of additions in random order, with the value of each node worked out beside."""
    count = draw(st.integers(1, 25))
    values: dict[str, int] = {}
    nodes: dict[str, Any] = {}
    for index in range(count):
        name = f"n{index}"
        if index == 0 or draw(st.booleans()):
            values[name] = draw(st.integers(-5, 5))
            nodes[name] = {"type": "Number", "value": values[name]}
        else:
            left, right = (draw(st.integers(0, index - 1)) for _ in range(2))
            coarse = draw(st.booleans())
            if coarse:
                nodes[name] = {"type": "AddTwice", "value": {"from": f"n{left}"}, "by": 3}
                values[name] = values[f"n{left}"] + 6
            else:
                nodes[name] = {"type": "Add", "left": {"from": f"n{left}"}, "right": {"from": f"n{right}"}}
                values[name] = values[f"n{left}"] + values[f"n{right}"]
    order = draw(st.permutations(list(nodes)))
    return graph(**{name: nodes[name] for name in order}), values


@given(dags())
def test_any_acyclic_graph_in_any_order_gives_every_value(case: tuple[dict[str, Any], dict[str, int]]) -> None:
    document, values = case
    bound = gf.bind(gf.Workflow.model_validate(document), registry=REGISTRY)
    planned = gf.plan(bound, keep=list(values))
    assert len({step.key for step in planned.steps}) == len(planned.steps), "two equal steps were not merged"
    done: set[int] = set()
    for step in planned.steps:
        assert all(ref.step in done for ref in step.inputs.values() if isinstance(ref, gf.Ref))
        done.add(step.index)
    assert {name: value for name, value in gf.execute(planned).results.items() if name in values} == values


def test_a_fault_does_not_hide_those_of_the_nodes_behind_it(problems: Find) -> None:
    document = graph(
        a={"type": "Numbr"},
        b={"type": "Add", "left": {"from": "a"}},
        c={"type": "Join", "left": {"from": "b"}},
        d={"type": "Redraw", "image": {"from": "nobody"}},
        e={"type": "Join", "left": {"from": "d"}},
    )
    found = problems(document)
    assert [(problem.node, problem.code) for problem in found] == [
        ("a", "node.unknown"),
        ("c", "type.mismatch"),
        ("d", "reference.node"),
        ("e", "type.mismatch"),
    ]


@pytest.mark.parametrize(
    ("type", "key", "fits"),
    [("text", "by", False), ("float", "by", False), ("bool", "by", False), ("int", "by", True), ("seed", "by", True)],
)
def test_an_input_without_a_value_has_to_be_of_a_fitting_type(type: str, key: str, fits: bool) -> None:
    document = {
        "graphflow": 1,
        "inputs": {"x": {"type": type}},
        "nodes": {"a": {"type": "Add", "left": 1, key: {"input": "x"}}},
    }
    found = gf.Workflow.model_validate(document)
    if fits:
        gf.bind(found, registry=REGISTRY, checking=True)
        return
    with pytest.raises(gf.WorkflowError, match="declare the input as int or seed") as caught:
        gf.bind(found, registry=REGISTRY, checking=True)
    assert [problem.code for problem in caught.value.problems] == ["type.mismatch"]


class Worn(Node, version=1, loads=True):
    """Stand for an image file that is worn."""

    path: InputFile

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        yield Problem("file.worn", "found a worn file", "path", "copy it", "warning", node="shelf")

    def run(self) -> Image:
        return Image(None)  # type: ignore[arg-type]


def test_what_a_loader_says_of_a_given_file_is_reported_as_it_was_said() -> None:
    class Show(Node, version=1):
        def run(self, *, image: Image) -> int:
            return 1

    w = gf.Workflow()
    w.add("show", Show(), image=w.input("image", "image"))
    graph = w.bind({"image": "a.png"}, registry=gf.Registry([Worn, Show]))
    (warning,) = graph.warnings
    assert (warning.severity, warning.node, warning.field, warning.hint) == ("warning", "shelf", "image", "copy it")
