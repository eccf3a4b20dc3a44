"""Nodes that get what they read from elsewhere: when they are asked, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from pydantic import PrivateAttr

import graphflow as gf
from graphflow import Expansion, Image, InputFile, Node, PortType, Problem
from tests.helpers.engine_pack import ReadImage

ASKED: list[tuple[str, bool]] = []
FAULTS: dict[str, Problem] = {}


class Far(Node, version=1, loads=True):
    """An image from elsewhere, as wide as its URL is long."""

    path: InputFile
    _width: int | None = PrivateAttr(None)

    def fetch(self, *, offline: bool) -> Iterable[Problem]:
        ASKED.append((self.path, offline))
        if self.path in FAULTS:
            yield FAULTS[self.path]
        elif offline:
            yield Problem("missing.far", "is not here", "path")
        else:
            self._width = len(self.path)

    def output_types(self, inputs: Mapping[str, PortType]) -> Mapping[str, PortType]:
        return {"image": PortType(Image, width=self._width)}

    def identity(self) -> int | None:
        return self._width

    def run(self) -> Image:
        return Image(None)  # type: ignore[arg-type]


class Narrow(Node, version=1):
    """Take narrow images only."""

    limit: int = 16

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        width = inputs["image"].width
        if width is not None and width > self.limit:
            yield Problem("value.wide", f"found {width}", "image")

    def run(self, *, image: Image) -> int:
        return 1


class Picture(Node, version=1):
    """Stand for Far."""

    path: str

    def expand(self, g: Expansion) -> Image:
        far: Image = g.add(Far(path=self.path))
        return far


REGISTRY = gf.Registry([Far, Narrow, Picture])
URL = "https://far.example"


@pytest.fixture(autouse=True)
def _nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHFLOW_OFFLINE", raising=False)
    ASKED.clear()
    FAULTS.clear()


def bound(nodes: dict[str, Any], inputs: Mapping[str, Any] | None = None, **options: Any) -> gf.Graph:
    document = {"graphflow": 1, "nodes": nodes}
    if inputs:
        document["inputs"] = {name: {"type": "image"} for name in inputs}
    return gf.bind(gf.Workflow.model_validate(document), inputs, registry=REGISTRY, **options)


def far(path: str = URL) -> dict[str, str]:
    return {"type": "Far", "path": path}


def codes(caught: pytest.ExceptionInfo[gf.WorkflowError]) -> list[str]:
    return [problem.code for problem in caught.value.problems]


def test_a_graph_that_will_run_fetches_and_what_was_found_counts_for_its_types() -> None:
    with pytest.raises(gf.WorkflowError) as caught:
        bound({"far": far(), "narrow": {"type": "Narrow", "image": {"from": "far"}}})
    assert codes(caught) == ["value.wide"]
    graph = bound({"far": far(), "narrow": {"type": "Narrow", "image": {"from": "far"}, "limit": 99}})
    assert graph.bound("narrow").input_types["image"].width == len(URL)
    assert ASKED == [(URL, False)] * 2


def test_checking_fetches_nothing() -> None:
    graph = bound({"far": far(), "picture": {"type": "Picture", "path": URL}}, checking=True)
    gf.plan(graph)
    assert graph.bound("far").output_types["image"].width is None
    assert ASKED == []


def test_a_workflow_at_fault_fetches_nothing() -> None:
    with pytest.raises(gf.WorkflowError) as caught:
        bound({"far": far(), "narrow": {"type": "Narrow", "image": {"from": "fra"}}})
    assert codes(caught) == ["reference.node"]
    assert ASKED == []


def test_offline_what_is_missing_is_told_with_everything_else_also_while_checking() -> None:
    for checking in (False, True):
        with pytest.raises(gf.WorkflowError) as caught:
            bound(
                {"far": far(), "narrow": {"type": "Narrow", "image": {"from": "fra"}}}, checking=checking, offline=True
            )
        assert sorted(codes(caught)) == ["missing.far", "reference.node"]
    assert ASKED == [(URL, True)] * 2


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("", False), ("off", False)])
def test_the_environment_may_forbid_the_network(value: str, offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHFLOW_OFFLINE", value)
    try:
        bound({"far": far()})
    except gf.MissingError:
        assert offline
    assert len(ASKED) == 1 and ASKED[0] == (URL, offline)


def test_equal_nodes_are_one_and_are_asked_once() -> None:
    take = {"type": "Narrow", "limit": 99}
    nodes = {
        "far": far(),
        "same": far(),
        "one": {**take, "image": {"input": "a"}},
        "two": {**take, "image": {"input": "b"}},
        "picture": {"type": "Picture", "path": URL},
        "other": far(URL + "/other"),
    }
    graph = bound(nodes, {"a": URL, "b": URL})
    planned = gf.plan(graph)
    assert ASKED == [(URL, False), (URL + "/other", False)]
    assert [step.node.type_id for step in planned.steps].count("Far") == 2


def test_every_node_with_a_fault_tells_it_at_its_own_place() -> None:
    FAULTS[URL] = Problem("missing.far", "is gone", "path")
    with pytest.raises(gf.MissingError) as caught:
        bound({"far": far(), "same": far(), "narrow": {"type": "Narrow", "image": {"input": "a"}}}, {"a": URL})
    assert [(problem.node, problem.field) for problem in caught.value.problems] == [
        ("far", "path"),
        ("same", "path"),
        ("narrow", "image"),
    ]


def test_a_warning_of_fetching_is_told_once_and_stops_nothing() -> None:
    FAULTS[URL] = Problem("far.old", "is old", "path", severity="warning")
    planned = gf.plan(bound({"far": far()}))
    assert [problem.code for problem in planned.warnings] == ["far.old"]


def test_what_a_coarse_node_stands_for_is_fetched_when_it_is_planned() -> None:
    FAULTS[URL] = Problem("missing.far", "is gone", "path")
    graph = bound({"picture": {"type": "Picture", "path": URL}})
    with pytest.raises(gf.MissingError) as caught:
        gf.plan(graph)
    assert [problem.node for problem in caught.value.problems] == ["picture/far"]
    FAULTS.clear()
    (step,) = gf.plan(bound({"picture": {"type": "Picture", "path": URL}})).steps
    assert step.output_types["image"].width == len(URL)


def test_a_node_that_does_not_fetch_takes_no_url() -> None:
    workflow = gf.Workflow.model_validate({"graphflow": 1, "nodes": {"read": {"type": "ReadImage", "path": URL}}})
    with pytest.raises(gf.WorkflowError) as caught:
        gf.bind(workflow, registry=gf.Registry([ReadImage]), checking=True)
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == ("path.url", "path")


def test_a_url_in_a_file_arrives_as_it_was_written(tmp_path: Any) -> None:
    (tmp_path / "flow.json").write_text('{"graphflow": 1, "nodes": {"far": {"type": "Far", "path": "https://a/../b"}}}')
    graph = gf.bind(gf.load(tmp_path / "flow.json"), registry=REGISTRY)
    assert graph.bound("far").node.path == "https://a/../b"  # type: ignore[attr-defined]
