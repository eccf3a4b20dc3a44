from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from graphflow import Compute, Conditioning, Context, DepthMap, Latent, Memory, PortType, Problem
from graphflow.nodes.denoise import Denoise
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.models.network_info import NetworkInfo, find_network, require_network
from graphflow.nodes.diffusion.shared.adapters import Control
from graphflow.nodes.diffusion.shared.checks import check_control
from graphflow.nodes.diffusion.shared.parameters import ConditioningScale, ControlEnd, ControlNetRef, ControlStart

__all__ = ["DenoiseControlNet"]


class DenoiseControlNet(Denoise, version=1):
    """Run the noise schedule of a model over latents while a ControlNet holds it to a depth map.

    As `Denoise`, with the ControlNet's answers added to those of the UNet (Zhang et al. 2023). The depth maps must have
    the size of the pictures, and be one for all or one for each; `FitDepthMap` sees to the size.
    """

    batchable: ClassVar[bool] = True

    controlnet: ControlNetRef = "pocket-controlnet-depth"
    conditioning_scale: ConditioningScale = 1.0
    control_guidance_start: ControlStart = 0.0
    control_guidance_end: ControlEnd = 1.0

    def input_types(self) -> dict[str, PortType]:
        """As `Denoise`, and depth maps."""
        return {**super().input_types(), "depth_map": PortType(DepthMap)}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report as `Denoise` does, and a ControlNet that is missing, not made for the model, or in a hand-over."""
        yield from super().check_with(info, inputs)
        if self.denoising_end is not None or inputs.get("latent", PortType(Latent)).partly_noisy:
            message = "found a hand-over to or from another model, expected the whole noise schedule under a ControlNet"
            yield Problem("value.hand_over", message, "denoising_end", "use Denoise for the part that is shared")
        yield from check_control(self, info)

    def identity(self) -> str:
        """Return the digests of the model's and the ControlNet's files."""
        return f"{super().identity()} {require_network(self.controlnet, 'controlnet').digest}"

    def models(self) -> tuple[str, ...]:
        """Return the model and the ControlNet."""
        return (self.model, self.controlnet)

    def weight_files(self) -> Iterable[Path]:
        """Return the files of the denoiser and of the ControlNet."""
        network = find_network(self.controlnet, "controlnet")
        files = network.component.weight_files if isinstance(network, NetworkInfo) else []
        return [*super().weight_files(), *files]

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """As `Denoise`, with the ControlNet."""
        network = find_network(self.controlnet, "controlnet")
        if not isinstance(network, NetworkInfo):
            return None
        return self.denoising_memory(inputs, compute, controlnet=network)

    def run(  # type: ignore[override]
        self,
        *,
        latent: Latent,
        positive: Conditioning,
        depth_map: DepthMap,
        negative: Conditioning | None = None,
        context: Context,
    ) -> Latent:
        """Denoise a batch. Raises ValueError as `Denoise` does, and for depth maps of another size or number."""
        return self._denoised(context, latent=latent, positive=positive, negative=negative, depth_map=depth_map)

    def _control(self, latent: Latent, depth_map: DepthMap | None) -> Control:
        """Return the ControlNet with depth maps of the pictures' size."""
        assert depth_map is not None
        cell = self.require_model_info().pixels_per_cell
        rows, columns = latent.data.shape[-2:]
        if (depth_map.width, depth_map.height) != (columns * cell, rows * cell):
            raise ValueError(
                f"found a depth map of {depth_map.width} x {depth_map.height} pixels, expected {columns * cell} x "
                f"{rows * cell} as the pictures; put a FitDepthMap before it"
            )
        return Control(
            require_network(self.controlnet, "controlnet"),
            depth_map.pixels.expand(-1, 3, -1, -1),
            self.conditioning_scale,
            self.control_guidance_start,
            self.control_guidance_end,
        )
