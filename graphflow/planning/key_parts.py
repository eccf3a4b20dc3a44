"""The parts of a step's key, spelt out: data for a manifest, and for telling why a step runs again."""

from __future__ import annotations

from typing import Any

from graphflow.node import Ref
from graphflow.planning.planner import Plan, Step
from graphflow.types import digest_of

__all__ = ["key_parts"]


def key_parts(step: Step, plan: Plan) -> dict[str, Any]:
    """Return all that the key of a step is made of, as JSON data."""
    inputs: dict[str, Any] = {}
    for port, value in step.inputs.items():
        if isinstance(value, Ref):
            inputs[port] = {"key": plan.steps[value.step].key, "output": value.output}
        elif value.plain:
            inputs[port] = {"value": value.value}
        else:
            inputs[port] = {"key": digest_of(value.value)}
    return {
        "key": step.key,
        "type": step.node.type_id,
        "version": step.node.version,
        "parameters": step.node.model_dump(mode="json"),
        "identity": step.node.identity(),
        "inputs": inputs,
        "environment": dict(plan.environment),
    }
