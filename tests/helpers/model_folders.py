"""Folders of models that a test changes, and the problem that is reported of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphflow import Problem
from graphflow.nodes.diffusion.models.model_info import find_model


def problem(reference: str) -> Problem:
    """Return what is wrong with a model."""
    found = find_model(reference)
    assert isinstance(found, Problem)
    assert found.field == "model"
    assert len(found.message) > 20
    return found


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
