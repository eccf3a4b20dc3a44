"""The ports, the network and the memory of the nodes that denoise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphflow import Compute, Conditioning, Image, Memory, PortType
from graphflow.nodes.diffusion.memory.steps import denoising_memory
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.models.network_info import NetworkInfo
from graphflow.nodes.diffusion.shared.batched_node import BatchedNode

__all__ = ["DenoisingNode"]


class DenoisingNode(BatchedNode, abstract=True):
    """Base class of nodes that denoise a batch under a prompt: latents, or beside pictures.

    A derived class has the parameters ``steps`` and ``guidance_scale``, and an output ``latent``.
    """

    def input_types(self) -> dict[str, PortType]:
        """Latents in the model's space, or pictures; prompts from the model's kind of text encoder."""
        info = self.model_info()
        source = PortType(Image) if self.batch_port == "image" else self.latent_type()
        prompt = PortType(Conditioning, info.text_space if info else None)
        return {self.batch_port: source, "positive": prompt, "negative": prompt}

    def progress_steps(self, inputs: Mapping[str, PortType]) -> int | None:
        """Return the number of denoise steps that run."""
        info = self.model_info()
        return self.setting(info, "steps") if info else None

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """Return the denoiser."""
        return (info.family.denoiser,)

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """Estimate the denoiser with all pictures at once, in the size of the output, twice under guidance."""
        return self.denoising_memory(inputs, compute)

    def denoising_memory(
        self,
        inputs: Mapping[str, PortType],
        compute: Compute,
        *,
        controlnet: NetworkInfo | None = None,
        tile: int | None = None,
    ) -> Memory | None:
        """Memory of the denoiser, with a ControlNet or with tiles of at most ``tile`` cells; None without a model."""
        info = self.model_info()
        if info is None:
            return None
        guided = info.family.uses_negative_prompt(self.guidance(info))
        made = self.output_types(inputs)["latent"]
        return denoising_memory(info, made, compute, guided=guided, controlnet=controlnet, tile=tile)

    def guidance(self, info: ModelInfo) -> float:
        """Return the guidance scale, or where it is not given the model's own."""
        return float(self.setting(info, "guidance_scale"))
