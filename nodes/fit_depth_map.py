from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphflow import Context, DepthMap, Latent, PortType
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.shared.model_node import ModelNode

__all__ = ["FitDepthMap"]


class FitDepthMap(ModelNode, version=1, cached=False):
    """Resize depth maps to the pictures that latents stand for.

    `ControlNetDepth` adds it where the sizes differ, or are not known before the run. The values are resampled
    linearly, and averaged where the map becomes smaller.
    """

    def input_types(self) -> dict[str, PortType]:
        """Latents in the model's space."""
        return {**super().input_types(), "latent": self.latent_type()}

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many depth maps of the size of the pictures."""
        latent, depth_map = inputs.get("latent", PortType(Latent)), inputs.get("depth_map", PortType(DepthMap))
        size = PortType(DepthMap, width=latent.width, height=latent.height, batch=depth_map.batch)
        return {"depth_map": size}

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """None: only their configurations are read."""
        return ()

    def run(self, *, depth_map: DepthMap, latent: Latent, context: Context) -> DepthMap:
        """Resize each map. Maps that fit already are passed on as they are."""
        from torch.nn import functional

        info: ModelInfo = self.require_model_info()
        size = tuple(cells * info.pixels_per_cell for cells in latent.data.shape[-2:])
        if size == (depth_map.height, depth_map.width):
            return depth_map
        resized = functional.interpolate(depth_map.pixels, size, mode="bilinear", antialias=True)
        return DepthMap(resized.clamp(0, 1))
