"""A step: one node to run, with what it takes and what is known of it. Plain data.

Steps that differ only in what their node says may differ, such as the points of a sweep over seeds or prompts at the
denoiser, make a batch: they are computed at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphflow.graph.bound import Constant
from graphflow.machine.compute import Compute
from graphflow.machine.memory import Memory
from graphflow.node import Node, Ref
from graphflow.types import PortType

__all__ = ["Batches", "Step", "find_batches", "memory_of_batch"]


@dataclass(slots=True)  # not frozen: that would double the time in which it is made
class Step:
    """One node to run. Its inputs and outputs are named by port; steps by their place in the plan."""

    index: int
    name: str
    node: Node
    inputs: Mapping[str, Ref | Constant]
    refs: tuple[Ref, ...]
    """The outputs of other steps among the inputs."""
    input_types: Mapping[str, PortType]
    outputs: Mapping[str, Ref]
    output_types: Mapping[str, PortType]
    key: str
    folder: str = ""
    """Folder of its files below the output folder: an item of a sweep has one of its own."""
    batch: tuple[int, ...] = ()
    """The steps of its batch, itself included; empty where it is run alone."""

    @property
    def progress_steps(self) -> int | None:
        """Number of steps that its progress bar counts."""
        return self.node.progress_steps(self.input_types)


Batches = Mapping[int, tuple[int, ...]]
"""Of each step that is in a batch, all that are, itself included."""


def find_batches(steps: Sequence[Step], order: Iterable[int], most: int) -> Batches:
    """Find the batches among the steps of ``order``, which is topological, with at most ``most`` steps in each.

    Steps make a batch only where equally many steps lie before each, so that none can depend on another, and no chain
    of dependencies can lead out of one batch and back into it.
    """
    if most < 2:
        return {}
    depth: dict[int, int] = {}
    candidates: dict[Hashable, list[int]] = {}
    for index in order:
        step = steps[index]
        depth[index] = 1 + max((depth[ref.step] for ref in step.refs), default=0)
        key = step.node.batch_key(step.input_types)
        if key is not None:
            candidates.setdefault((depth[index], step.node.type_id, step.node.models(), key), []).append(index)
    found: dict[int, tuple[int, ...]] = {}
    for members in candidates.values():
        for start in range(0, len(members), most):
            batch = tuple(members[start : start + most])
            if len(batch) > 1:
                found |= dict.fromkeys(batch, batch)
    return found


def memory_of_batch(node: Node, inputs: Mapping[str, PortType], steps: int, compute: Compute) -> Memory | None:
    """Estimate what a batch of so many equal steps needs on the device; None where it is unknown."""
    whole = {
        port: kind if kind.batch is None else replace(kind, batch=kind.batch * steps) for port, kind in inputs.items()
    }
    return node.memory(whole, compute)
