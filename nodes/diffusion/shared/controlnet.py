"""What the two nodes with a ControlNet check alike. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from graphflow import Problem
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.models.network_info import check_controlnet, find_network

__all__ = ["check_control"]


class _Controlled(Protocol):
    @property
    def controlnet(self) -> str: ...
    @property
    def control_guidance_start(self) -> float: ...
    @property
    def control_guidance_end(self) -> float: ...


def check_control(node: _Controlled, info: ModelInfo) -> Iterator[Problem]:
    """A ControlNet that is missing or not made for the model; a stretch of steps that ends before it starts."""
    if not info.family.controlnet:
        message = f'the model "{info.reference}" is of the family {info.family.name}, which works with no ControlNet'
        yield Problem("model.controlnet", message, "model", "choose a Stable Diffusion 1.x, 2.x or XL model")
        return
    network = find_network(node.controlnet, "controlnet", "controlnet")
    problem = network if isinstance(network, Problem) else check_controlnet(network, info)
    if problem:
        yield problem
    if node.control_guidance_start >= node.control_guidance_end:
        message = (
            f"found control_guidance_start {node.control_guidance_start:g} and control_guidance_end "
            f"{node.control_guidance_end:g}, expected a start before the end"
        )
        yield Problem("value.control_range", message, "control_guidance_start", "0 and 1 steer through all steps")
