"""A step: one node to run, with what it takes and what is known of it. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphflow.graph.bound import Constant
from graphflow.node import Node, Ref
from graphflow.types import PortType

__all__ = ["Step"]


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
    """Where below the output folder its files go: an item of a sweep has a folder of its own."""
    batch: tuple[int, ...] = ()
    """Steps that it may be computed together with, itself included."""

    @property
    def progress_steps(self) -> int | None:
        """How many steps its progress bar counts."""
        return self.node.progress_steps(self.input_types)
