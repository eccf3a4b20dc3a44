"""The call of a node: its outputs by name, and the note on an error that it raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphflow.planning.planner import Step
from graphflow.types import type_name

__all__ = ["note_on_failure", "outputs_by_name"]


def outputs_by_name(step: Step, result: Any) -> dict[str, Any]:
    """Name what a node returned. Raises TypeError where that is not what its class says."""
    signature = step.node.signature()
    if signature.multiple:
        return dict(zip(signature.outputs, result, strict=True))
    for output, kind in signature.outputs.items():
        if not isinstance(result, kind.kind) and not (kind.kind is float and type(result) is int):
            raise TypeError(
                f"{step.node.type_id}.run returned {type(result).__name__}, expected {type_name(kind.kind)}"
            )
        return {output: result}
    return {}


def note_on_failure(step: Step, arguments: Mapping[str, Any]) -> str:
    """Name the node that failed, and the shapes of its inputs."""
    given = ", ".join(f"{port}={_shape(value)}" for port, value in arguments.items()) or "no inputs"
    return f"in node '{step.name}' ({step.node.type_id}) with {given}"


def _shape(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
