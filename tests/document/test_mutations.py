"""Whatever a file holds: it binds, or what is wrong with it is told. Never another exception.

Valid documents are changed at random, at any place and in any number of places.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphflow as gf
from graphflow.document.json_text import Source, parse
from tests.helpers.engine_pack import REGISTRY

ROOT = Path(__file__).parents[2]

OWN: list[dict[str, Any]] = [
    {
        "graphflow": 1,
        "description": "numbers",
        "inputs": {
            "by": {"type": "int", "default": 3, "description": "added"},
            "factor": {"type": "float", "default": 2},
        },
        "nodes": {
            "one": {"type": "Number", "value": 1},
            "sum": {"type": "Add", "left": {"from": "one"}, "right": 2, "by": {"input": "by"}},
            "split": {"type": "Split", "value": {"from": "sum.value"}},
            "twice": {"type": "AddTwice", "value": {"from": "split.high"}, "by": 1},
            "scaled": {"type": "Scale", "value": {"from": "twice"}, "factor": {"input": "factor"}, "mode": "rounded"},
            "saved": {"type": "Write", "name": "sum", "value": {"from": "split.low"}},
        },
        "outputs": {"sum": {"from": "sum"}, "low": {"from": "split.low"}},
    },
    {
        "graphflow": 1,
        "inputs": {"model": {"type": "model", "default": "xl-model"}, "photo": {"type": "image"}},
        "nodes": {
            "draft": {"type": "Draw", "model": "sd-model", "seed": 18446744073709551615},
            "redraw": {"type": "Redraw", "model": {"input": "model"}, "image": {"from": "draft"}},
            "other": {"type": "Redraw", "image": {"input": "photo"}},
            "joined": {"type": "Join", "left": "a", "right": "b"},
            "odd": {"type": "Odd", "sum": 101},
        },
        "outputs": {"picture": {"from": "redraw"}},
    },
    {
        "graphflow": 1,
        "inputs": {"value": {"type": "int"}},
        "nodes": {
            "inner": {"type": "Workflow", "uses": "inner.json", "value": {"input": "value"}},
            "again": {"type": "Workflow", "uses": "inner", "value": {"from": "inner.sum"}},
            "sum": {"type": "Add", "left": {"from": "again"}, "right": {"from": "inner"}},
        },
        "outputs": {"sum": {"from": "again.sum"}},
    },
]
INNER = {
    "graphflow": 1,
    "inputs": {"value": {"type": "int"}, "by": {"type": "int", "default": 1}},
    "nodes": {"add": {"type": "Add", "left": {"input": "value"}, "by": {"input": "by"}}},
    "outputs": {"sum": {"from": "add"}},
}
SHIPPED = sorted((ROOT / "workflows").glob("*.json"))

FAMILIAR = """
from input type uses nodes inputs outputs default path model left value by name image latent mask file seed Workflow Add
Scale Redraw Draw Text2Image SaveImage one sum inner inner.json inner@sha256:00000000 split.high ../x.json . a.b.c
sd-model xl-model
"""
WORDS = st.sampled_from([*FAMILIAR.split(), "", "\0", "\u2028", "a b"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**63, 2**64, 10**30, -(2**63) - 1])
    | st.floats()
    | WORDS
    | st.text(max_size=8)
)
REFERENCES = st.builds(lambda key, name: {key: name}, st.sampled_from(["from", "input", "form"]), WORDS)
VALUES = st.recursive(
    SCALARS | REFERENCES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with a key or index in it."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        item = pending.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            pending.append(item[key])
    return found


@st.composite
def mutated(draw: st.DrawFn, documents: list[dict[str, Any]]) -> dict[str, Any]:
    """A document with one to five changes."""
    document: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 5))):
        there = places(document)
        if not there:
            break
        container, key = there[draw(st.integers(0, len(there) - 1))]
        kind = draw(st.sampled_from(["delete", "replace", "rename", "copy", "add", "swap"]))
        if kind == "delete":
            del container[key]
        elif kind == "replace":
            container[key] = draw(VALUES)
        elif kind == "rename" and isinstance(container, dict):
            container[draw(WORDS | st.text(max_size=8))] = container.pop(key)
        elif kind == "copy":
            other, place = there[draw(st.integers(0, len(there) - 1))]
            container[key] = copy.deepcopy(other[place])
        elif kind == "add" and isinstance(container, dict):
            container[draw(WORDS | st.text(max_size=8))] = draw(VALUES)
        elif kind == "swap":
            other, place = there[draw(st.integers(0, len(there) - 1))]
            container[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(container[key])
    return document


def check(text: str, folder: Path, registry: gf.Registry | None) -> None:
    """Bind and plan a text as a run does; every fault has a code, a message and a place."""
    for checking in (True, False):
        try:
            workflow = gf.Workflow.loads(text, name="mutated.json", folder=folder)
            graph = gf.bind(workflow, registry=registry, checking=checking)
            if not checking:
                gf.plan(graph)
        except gf.WorkflowError as error:
            assert any(problem.severity == "error" for problem in error.problems)
            for problem in error.problems:
                assert problem.code and problem.message, problem
                assert problem.position is not None, problem
                assert str(problem)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mutated")
    (path / "inner.json").write_text(json.dumps(INNER))
    return path


unhurried = settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=300)


@unhurried
@given(document=mutated(OWN))
def test_a_changed_document_binds_or_is_refused(folder: Path, document: dict[str, Any]) -> None:
    check(json.dumps(document, indent=1), folder, REGISTRY)


@pytest.mark.skipif(not SHIPPED, reason="no workflows are shipped")
@unhurried
@given(document=mutated([json.loads(path.read_bytes()) for path in SHIPPED] or OWN))
def test_a_changed_shipped_workflow_binds_or_is_refused(folder: Path, document: dict[str, Any]) -> None:
    check(json.dumps(document, indent=1), folder, None)


@unhurried
@given(document=st.sampled_from(OWN), data=st.data())
def test_a_text_with_changed_characters_binds_or_is_refused(
    folder: Path, document: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(document, indent=1)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = (
            text[:start]
            + data.draw(st.text(max_size=3) | st.sampled_from(['"', "{", "}", ",", ":", "NaN"]))
            + text[end:]
        )
    check(text, folder, REGISTRY)


@unhurried
@given(VALUES)
def test_any_json_is_a_workflow_or_is_refused(folder: Path, value: Any) -> None:
    check(json.dumps(value), folder, REGISTRY)


@unhurried
@given(st.text(alphabet='{}[]",:\\ue0dD83-+.1tfn \n', max_size=40))
def test_any_text_is_parsed_or_refused_with_a_place(text: str) -> None:
    source = Source("x", text)
    _, problems = parse(source)
    for problem in problems:
        assert problem.position is not None
        lines = text.split("\n")
        assert 0 <= problem.position.line <= len(lines)
        if problem.position.line:
            assert 1 <= problem.position.column <= len(lines[problem.position.line - 1]) + 1
