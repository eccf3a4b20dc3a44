"""Reading and writing workflow documents: positions, strictness, identity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from graphflow.document.json_text import Source, parse

Find = Callable[..., list[gf.Problem]]

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True)
LITERALS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Well-formed documents, whether or not their nodes exist."""
    names = draw(st.lists(NAMES, max_size=5, unique=True))
    inputs = draw(st.lists(NAMES, max_size=3, unique=True))
    reference = st.sampled_from(names).map(lambda name: {"from": name}) if names else st.nothing()
    declared = st.sampled_from(inputs).map(lambda name: {"input": name}) if inputs else st.nothing()
    fields = st.dictionaries(
        NAMES.filter(lambda n: n not in ("type", "uses")), LITERALS | reference | declared, max_size=4
    )
    document: dict[str, Any] = {"graphflow": 1}
    if draw(st.booleans()):
        document["description"] = draw(st.text(min_size=1))
    if inputs:
        document["inputs"] = {name: {"type": "text", "default": draw(st.text())} for name in inputs}
    document["nodes"] = {name: {"type": draw(NAMES), **draw(fields)} for name in names}
    if names:
        document["outputs"] = {"result": {"from": draw(st.sampled_from(names))}}
    return document


@given(documents())
def test_json_to_python_to_json_is_the_identity(document: dict[str, Any]) -> None:
    workflow = gf.loads(json.dumps(document))
    assert workflow.to_dict() == document
    assert json.loads(workflow.dumps()) == document
    assert gf.loads(workflow.dumps()).dumps() == workflow.dumps()


def test_a_file_may_name_its_schema_for_editors() -> None:
    text = '{"$schema": "graphflow.schema.json", "graphflow": 1, "nodes": {"a": {"type": "Number"}}}'
    assert gf.loads(text).to_dict() == json.loads(text)


def test_built_in_python_equals_the_file(tmp_path: Path) -> None:
    from tests.helpers.engine_pack import Add, Number

    workflow = gf.Workflow(description="two numbers")
    by = workflow.input("by", "int", default=3, description="added")
    one = workflow.add("one", Number(value=1))
    total = workflow.add("total", Add(), left=one, right=2, by=by)
    workflow.output("sum", total)
    assert workflow.to_dict() == {
        "graphflow": 1,
        "description": "two numbers",
        "inputs": {"by": {"type": "int", "description": "added", "default": 3}},
        "nodes": {
            "one": {"type": "Number", "value": 1},
            "total": {"type": "Add", "left": {"from": "one"}, "right": 2, "by": {"input": "by"}},
        },
        "outputs": {"sum": {"from": "total"}},
    }
    assert gf.load(workflow.save(tmp_path / "sum.json")).to_dict() == workflow.to_dict()


def test_the_builder_refuses_a_second_node_of_a_name_and_values_no_file_can_hold() -> None:
    from tests.helpers.engine_pack import Add, Number

    workflow = gf.Workflow()
    workflow.add("one", Number())
    with pytest.raises(gf.WorkflowError, match="already"):
        workflow.add("one", Number())
    with pytest.raises(gf.WorkflowError, match="declare an input"):
        workflow.add("two", Add(), left=object())  # type: ignore[arg-type]
    assert list(workflow.nodes) == ["one"]


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("", "json.syntax", (1, 1)),
        ("{'graphflow': 1}", "json.syntax", (1, 2)),
        ("[" * 100_000, "json.too_deep", (0, 0)),
        ('{"graphflow": 1, "nodes": {}, "nodes": {}}', "json.duplicate_key", (1, 31)),
        ('{"graphflow": 1,\n "nodes": {"a": {"type": "Scale", "factor": NaN}}}', "json.number", (2, 45)),
        ('{"graphflow": 1, "nodes": {"a": {"type": "Scale", "factor": -Infinity}}}', "json.number", (1, 61)),
        ('{"graphflow": 1, "nodes": {"a": {"type": "Scale", "factor": 1e999}}}', "json.number", (1, 61)),
        ("[1, 2]", "format.kind", (1, 1)),
        ("{}", "format.version", (1, 1)),
        ('{"graphflow": 2, "nodes": {}}', "format.version", (1, 15)),
        ('{"graphflow": "1", "nodes": {}}', "format.version", (1, 15)),
        ('{"graphflow": true, "nodes": {}}', "format.version", (1, 15)),
        ('{"nodes": [], "links": []}', "format.version", (1, 1)),
        ('{"3": {"class_type": "KSampler", "inputs": {}}}', "format.version", (1, 1)),
        ('{"graphflow": 1, "nods": {}}', "field.unknown", (1, 18)),
        ('{"graphflow": 1, "nodes": {"a b": {"type": "Number"}}}', "name.form", (1, 28)),
        ('{"graphflow": 1, "nodes": {"a": {}}}', "field.missing", (1, 33)),
        ('{"graphflow": 1, "nodes": {"a": {"type": 3}}}', "value.type", (1, 42)),
        ('{"graphflow": 1, "inputs": {"p": {"type": "prompt"}}, "nodes": {}}', "value.choice", (1, 43)),
        ('{"graphflow": 1, "inputs": {"p": {"type": "text", "defualt": ""}}, "nodes": {}}', "field.unknown", (1, 51)),
    ],
)
def test_a_fault_of_form_has_its_code_and_place(problems: Find, text: str, code: str, place: tuple[int, int]) -> None:
    found = problems(text)
    assert [problem.code for problem in found] == [code]
    position = found[0].position
    assert position is not None
    assert (position.line, position.column) == place


def test_a_comma_too_many_is_named(problems: Find) -> None:
    (problem,) = problems('{"graphflow": 1,\n "nodes": {},}')
    assert problem.position is not None and problem.position.line == 2  # the column differs between Python versions
    assert problem.hint == "remove the comma before it"


def test_an_unknown_key_is_answered_with_the_nearest_known_one(problems: Find) -> None:
    assert "did you mean 'nodes'?" in str(problems('{"graphflow": 1, "nods": {}}')[0])


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.json"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(gf.WorkflowError, match="expected UTF-8"):
        gf.load(path)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "marked.json"
    path.write_bytes(b'\xef\xbb\xbf{"graphflow": 1, "nodes": {}}')
    assert gf.load(path).nodes == {}


def test_a_missing_file_is_told_from_a_faulty_one(tmp_path: Path) -> None:
    with pytest.raises(gf.MissingError, match="there is no such file") as caught:
        gf.load(tmp_path / "absent.json")
    assert caught.value.exit_code == 3


@given(st.recursive(LITERALS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_every_value_is_found_at_its_place(value: Any) -> None:
    for indent in (None, 3):
        source = Source("x", json.dumps(value, indent=indent))
        assert parse(source)[1] == []
        pending: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
        while pending:
            path, expected = pending.pop()
            position = source.position(path)
            offset = sum(len(line) for line in source.text.splitlines(keepends=True)[: position.line - 1])
            found, _ = json.JSONDecoder().raw_decode(source.text, offset + position.column - 1)
            assert found == expected
            if isinstance(expected, dict):
                pending += [((*path, key), item) for key, item in expected.items()]
            elif isinstance(expected, list):
                pending += [((*path, index), item) for index, item in enumerate(expected)]


@given(st.text())
def test_no_text_makes_the_reader_fall_over(text: str) -> None:
    try:
        gf.loads(text)
    except gf.WorkflowError as error:
        assert error.problems


def test_the_builder_refuses_what_no_file_can_hold_as_a_file_is_refused() -> None:
    from tests.helpers.engine_pack import Number

    workflow = gf.Workflow()
    with pytest.raises(gf.WorkflowError, match=r"name\.form"):
        workflow.add("b b", Number())
    with pytest.raises(gf.WorkflowError, match=r"name\.form"):
        workflow.input("e e", "text")
    with pytest.raises(gf.WorkflowError, match="expected 'text', 'int'"):
        workflow.input("e", "string")
    with pytest.raises(gf.WorkflowError, match=r"name\.form"):
        workflow.output("c d", gf.NodeHandle("b"))
    assert workflow.to_dict() == {"graphflow": 1, "nodes": {}}
