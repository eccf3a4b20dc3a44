"""The reference and the tables of the pages name every public name, node type and variable, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import graphflow
from graphflow import nodes

REFERENCE = Path(__file__).parents[2] / "docs/reference"


def described(page: str) -> list[str]:
    """The names that a page of the reference describes."""
    directive = r"^\.\. (?:auto)?(?:class|function|data|exception):: (\w+)$"
    return re.findall(directive, (REFERENCE / page).read_text(), re.MULTILINE)


def test_every_public_name_is_in_the_reference_once() -> None:
    assert sorted(described("graphflow.rst")) == sorted(graphflow.__all__)


def test_every_node_type_is_in_the_reference_once() -> None:
    assert sorted(described("nodes.rst")) == sorted(nodes.__all__)


def test_every_node_type_is_in_the_table_of_nodes() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (REFERENCE.parent / "nodes.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(nodes.__all__)


def test_every_environment_variable_is_on_the_page_of_the_command_line() -> None:
    root = REFERENCE.parents[1]
    sources = [path.read_text() for folder in ("graphflow", "nodes") for path in (root / folder).rglob("*.py")]
    there = set(re.findall(r"GRAPHFLOW_[A-Z_]+", "\n".join(sources)))
    rows = re.findall(r"^\| (`GRAPHFLOW.*?) \|", (REFERENCE.parent / "command-line.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"GRAPHFLOW_[A-Z_]+", " ".join(rows))) == there
