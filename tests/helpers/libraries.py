"""diffusers and transformers, without their partial types."""

from __future__ import annotations

import importlib
from typing import Any


def diffusers() -> Any:
    """The library, without its partial types."""
    return importlib.import_module("diffusers")


def transformers() -> Any:
    """The library, without its partial types."""
    return importlib.import_module("transformers")


def quietly(pipeline: Any) -> Any:
    """Switch the progress bar of a pipeline off."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
