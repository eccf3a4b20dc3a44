"""Hold the page of conventions against the node classes: names, values, defaults, ports, input types, exit statuses."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from graphflow import nodes
from graphflow.document.workflow import INPUT_KINDS
from graphflow.node import Node
from graphflow.schema import parameter_schemas

PAGE = (Path(__file__).parents[2] / "docs/conventions.md").read_text()
CLASSES: list[type[Node]] = [getattr(nodes, name) for name in nodes.__all__]

_WORDS = {"string": "text", "boolean": "true or false"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


class Row(NamedTuple):
    """A parameter on the page: of the nodes it names, or of all others that have it."""

    parameter: str
    nodes: frozenset[str]
    values: str
    default: str


def tables(width: int, first: str) -> Iterator[list[str]]:
    """The rows of the tables with so many columns whose first heading is ``first``."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
        if len(rows[0]) == width and rows[0][0] == first:
            yield from rows[2:]


def rows() -> list[Row]:
    return [
        Row(name.strip("`"), frozenset(re.findall(r"`(\w+)`", of)), values, default)
        for name, of, values, default, _ in tables(5, "parameter")
    ]


def values_of(schema: dict[str, Any]) -> str:
    """The values of a parameter in the words of the page."""
    if "anyOf" in schema:
        (schema,) = (kind for kind in schema["anyOf"] if kind.get("type") != "null")
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    kind = str(schema["type"])
    if "minimum" in schema and "maximum" in schema:
        return f"{kind} from {schema['minimum']} to {schema['maximum']}"
    bounds = [
        f"{words} {'2^64' if schema[name] == 2**64 else schema[name]}"
        for name, words in _BOUNDS.items()
        if name in schema
    ]
    return " ".join([_WORDS.get(kind, kind), *(" and ".join(bounds),) * bool(bounds)])


def row_of(node: str, parameter: str) -> Row:
    """The row about a parameter of a node: the one that names the node, else the one for all."""
    found = [row for row in rows() if row.parameter == parameter]
    named = [row for row in found if node in row.nodes] or [row for row in found if not row.nodes]
    assert len(named) == 1, f"the page has {len(named)} rows about {node}.{parameter}"
    return named[0]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.type_id)
def test_the_parameters_of_a_node_are_on_the_page(cls: type[Node]) -> None:
    schemas, _ = parameter_schemas(cls)
    for name, schema in schemas.items():
        row = row_of(cls.type_id, name)
        assert row.values == values_of(schema), f"{cls.type_id}.{name}"
        if "default" not in schema:
            assert row.default == "required", f"{cls.type_id}.{name}"
        elif schema["default"] is None:
            assert not row.default.startswith("`"), f"{cls.type_id}.{name}"
            assert row.default != "required", f"{cls.type_id}.{name}"
        else:
            assert row.default == f"`{json.dumps(schema['default'])}`", f"{cls.type_id}.{name}"


def test_the_page_has_no_parameter_that_no_node_has() -> None:
    there = {(cls.type_id, name) for cls in CLASSES for name in cls.model_fields}
    for row in rows():
        assert any(name == row.parameter for _, name in there), row.parameter
        for node in row.nodes:
            assert (node, row.parameter) in there


def test_the_ports_are_on_the_page() -> None:
    on_page = {name.strip("`"): set(kind.split(" or ")) for name, kind, _ in tables(3, "port")}
    there: dict[str, set[str]] = {}
    for cls in CLASSES:
        for port in cls.signature().inputs.values():
            there.setdefault(port.name, set()).add(str(port.type))
    assert on_page == there


def test_the_types_of_inputs_are_on_the_page() -> None:
    (sentence,) = re.findall(r"The types of a workflow's inputs are ((?:.|\n)*?)\.", PAGE)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(INPUT_KINDS)


def test_the_exit_statuses_are_on_the_page() -> None:
    on_page = {status for status, _ in tables(2, "status")}
    said = importlib.import_module("graphflow.cli.main").__doc__ or ""
    assert on_page == set(re.findall(r"\b\d+\b", said))
