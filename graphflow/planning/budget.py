"""Memory of the steps of a plan against the budget, and advice where one does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from graphflow.errors import Problem, WorkflowError
from graphflow.file_answers import cached_answers
from graphflow.machine.compute import Compute
from graphflow.machine.memory import device_memory, show_bytes
from graphflow.node import Node
from graphflow.planning.planner import Plan, Step
from graphflow.types import PortType

__all__ = ["memory_advice", "out_of_memory", "over_budget", "refuse_over_budget"]

WORTHWHILE = 0.95
"""A change that leaves more than this share of the estimate is not worth telling."""


def refuse_over_budget(plan: Plan) -> None:
    """Raise WorkflowError with a Problem for every step that needs more memory than there is; see `over_budget`."""
    problems = over_budget(plan)
    if problems:
        raise WorkflowError(problems)


@cached_answers()
def over_budget(plan: Plan) -> list[Problem]:
    """Return a Problem for each step that needs more memory than the plan's budget.

    Without a budget it is all of an accelerator's memory, and on the CPU what the machine can give. A step whose need
    is unknown is let through.
    """
    limit = plan.compute.memory_budget
    needs = [(step, need) for step in plan.steps if (need := plan.memory(step)) is not None]
    if not needs:
        return []
    whose = "the budget of"
    if limit is None:
        limit = device_memory(plan.compute.device)
        whose = "what the machine can give," if plan.compute.on_cpu else f"the memory of {plan.compute.device},"
    if limit is None:
        return []
    problems = []
    for step, need in needs:
        if need.total > limit:
            message = (
                f"needs about {show_bytes(need.total)} of memory ({show_bytes(need.weights)} for weights, "
                f"{show_bytes(need.activations)} to compute with), expected at most {whose} {show_bytes(limit)}"
            )
            problems.append(Problem("memory.budget", message, hint=memory_advice(step, plan.compute), node=step.name))
    return problems


def out_of_memory(error: BaseException) -> bool:
    """Check whether memory ran out: Python's, an accelerator's in torch, or the CPU's in torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def memory_advice(step: Step, compute: Compute) -> str:
    """Advise what would make a step need less memory, and how much it would need."""
    need = step.node.memory(step.input_types, compute)
    ways = [
        f"{show_bytes(count)} with {what}"
        for what, count in _advice(step, compute)
        if need is not None and count < WORTHWHILE * need.total
    ]
    return f"it would need {', '.join(ways)}" if ways else "it needs a machine with more memory"


def _advice(step: Step, compute: Compute) -> Iterator[tuple[str, int]]:
    """Ways to make a step smaller, in words, and the bytes that it would need."""
    node, inputs = step.node, step.input_types
    if any((kind.batch or 1) > 1 for kind in inputs.values()):
        yield from _estimate("a batch of 1", node, _alone(inputs), compute)
    for other in node.lighter():
        changes = ", ".join(
            f"{name} {value}" for name, value in other.model_dump().items() if value != getattr(node, name)
        )
        yield from _estimate(changes, other, inputs, compute)
    yield from _estimate("half the width and height", node, _halved(inputs), compute)
    if compute.dtype == "float32":
        # half precision is what accelerators are made for; of the two, CPUs compute faster in bfloat16
        dtype = "bfloat16" if compute.on_cpu else "float16"
        yield from _estimate(f"--dtype {dtype}", node, inputs, replace(compute, dtype=dtype))
    if compute.attention == "eager":
        yield from _estimate("--attention sdpa", node, inputs, replace(compute, attention="sdpa"))
    if not compute.on_cpu and compute.offload != "sequential":
        yield from _estimate("--offload sequential", node, inputs, replace(compute, offload="sequential"))


def _estimate(what: str, node: Node, inputs: Mapping[str, PortType], compute: Compute) -> Iterator[tuple[str, int]]:
    need = node.memory(inputs, compute)
    if need is not None:
        yield what, need.total


def _alone(inputs: Mapping[str, PortType]) -> dict[str, PortType]:
    return {port: replace(kind, batch=1) if kind.batch else kind for port, kind in inputs.items()}


def _halved(inputs: Mapping[str, PortType]) -> dict[str, PortType]:
    return {
        port: replace(kind, width=max(kind.width // 2, 1), height=max(kind.height // 2, 1))
        if kind.width and kind.height
        else kind
        for port, kind in inputs.items()
    }
