"""Which steps of a plan are computed together: those that differ only in what their node says may differ.

Such are the points of a sweep over seeds or prompts at the denoiser. Steps are put together only where equally many
steps lie before each, so that none can depend on another, and no chain of dependencies can lead out of one batch and
back into it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from graphflow.machine.compute import Compute
from graphflow.machine.memory import Memory
from graphflow.node import Node
from graphflow.planning.step import Step
from graphflow.types import PortType

__all__ = ["Batches", "batches", "memory_of_batch"]


Batches = Mapping[int, tuple[int, ...]]
"""Of each step that is in a batch, all that are, itself included."""


def batches(steps: Sequence[Step], order: Iterable[int], most: int) -> Batches:
    """The batches among the steps of ``order``, which is topological, with at most ``most`` steps in each."""
    if most < 2:
        return {}
    depth: dict[int, int] = {}
    alike: dict[Hashable, list[int]] = {}
    for index in order:
        step = steps[index]
        depth[index] = 1 + max((depth[ref.step] for ref in step.refs), default=0)
        key = step.node.batch_key(step.input_types)
        if key is not None:
            alike.setdefault((depth[index], step.node.type_id, step.node.models(), key), []).append(index)
    found: dict[int, tuple[int, ...]] = {}
    for members in alike.values():
        for start in range(0, len(members), most):
            batch = tuple(members[start : start + most])
            if len(batch) > 1:
                found |= dict.fromkeys(batch, batch)
    return found


def memory_of_batch(node: Node, inputs: Mapping[str, PortType], steps: int, compute: Compute) -> Memory | None:
    """What so many equal steps need on the device when they are computed together; None where it is unknown."""
    whole = {
        port: kind if kind.batch is None else replace(kind, batch=kind.batch * steps) for port, kind in inputs.items()
    }
    return node.memory(whole, compute)
