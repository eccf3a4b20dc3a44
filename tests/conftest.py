"""For every test: nothing is taken from, or left in, the results that the user's own runs keep.

And nothing computes on an accelerator, so that the tests say the same on every machine. Those of `tests/accelerator`
do, where ``GRAPHFLOW_TEST_DEVICE`` names one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["GRAPHFLOW_NO_CACHE"] = "1"
if "GRAPHFLOW_TEST_DEVICE" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# only now, so that nothing looks for an accelerator before it is hidden
from graphflow import Problem, Workflow, WorkflowError, bind, loads
from tests.helpers.engine_pack import REGISTRY, RUNS


@pytest.fixture(autouse=True)
def _no_runs_yet() -> None:
    RUNS.clear()


@pytest.fixture
def problems() -> Callable[..., list[Problem]]:
    """Every problem of a document, given as data or text; an empty list if it can run."""

    def find(document: dict[str, Any] | str | Workflow, **inputs: Any) -> list[Problem]:
        try:
            workflow = document
            if not isinstance(workflow, Workflow):
                workflow = loads(workflow if isinstance(workflow, str) else json.dumps(workflow, indent=1))
            bind(workflow, inputs, registry=REGISTRY)
        except WorkflowError as error:
            return list(error.problems)
        return []

    return find


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a document into the test's folder."""

    def save(name: str, document: dict[str, Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"graphflow": 1, **document}, indent=2))
        return path

    return save
