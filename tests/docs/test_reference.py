"""The reference of the site describes every public name, and nothing else."""

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
