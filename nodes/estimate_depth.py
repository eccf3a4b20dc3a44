from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from graphflow import Compute, Context, DepthMap, Field, Image, Memory, ModelRef, Node, PortType, Problem
from graphflow.nodes.diffusion.memory.steps import depth_memory
from graphflow.nodes.diffusion.models.network_info import NetworkInfo, find_network, require_network

__all__ = ["EstimateDepth"]


class EstimateDepth(Node, version=1):
    """Estimate from a picture how near everything in it is.

    The result is an inverse depth map of the picture's size, float32 (batch, 1, height, width) in [0, 1], near is 1.
    The embedded network knows the world of the pocket models and nothing else; what is infinitely far it puts at 0.

    A depth-estimation model of transformers (DPT, Depth Anything, GLPN, ZoeDepth) sees the picture as its own image
    processor prepares it, rounded to 8 bits. Its answer is resized to the picture (bicubic), and for each picture by
    itself stretched so that its nearest point is 1 and its farthest 0: what the depth-estimation pipeline of
    transformers shows. A model that gives a distance in metres (GLPN, ZoeDepth, metric Depth Anything, DPT with DINOv2)
    is inverted first, 1 / distance.
    """

    model: ModelRef = Field(
        "pocket-depth", description='"pocket-depth", or a depth network: a hub id with optional @revision, or a folder'
    )

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many depth maps of the same size."""
        image = inputs.get("image", PortType(Image))
        return {"depth_map": PortType(DepthMap, width=image.width, height=image.height, batch=image.batch)}

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Report faults of the network."""
        found = find_network(self.model, "depth")
        return [found] if isinstance(found, Problem) else []

    def identity(self) -> str:
        """Return the digest of the network's files."""
        return require_network(self.model, "depth").digest

    def models(self) -> tuple[str, ...]:
        """Return the network."""
        return (self.model,)

    def weight_files(self) -> Iterable[Path]:
        """Return the files of the network."""
        network = find_network(self.model, "depth")
        return network.component.weight_files if isinstance(network, NetworkInfo) else ()

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """Estimate the network with one picture at a time."""
        network = find_network(self.model, "depth")
        return depth_memory(network, inputs["image"], compute) if isinstance(network, NetworkInfo) else None

    def run(self, *, image: Image, context: Context) -> DepthMap:
        """Estimate the depth of each picture by itself."""
        from graphflow.nodes.diffusion.adapters.depth import estimate_depth

        network = require_network(self.model, "depth")
        return DepthMap(estimate_depth(network, image.pixels, context.compute, context.memory))
