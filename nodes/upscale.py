from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from graphflow import (
    Conditioning,
    Context,
    Expansion,
    Field,
    Latent,
    ModelRef,
    PortType,
    Problem,
    Text,
)
from graphflow.nodes.denoising_node import DenoisingNode
from graphflow.nodes.diffusion.families import Tasks
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT
from graphflow.nodes.diffusion.shared.adapters import Sampling, UpscaleAdapter
from graphflow.nodes.diffusion.shared.checks import check_negative, cut_down, cut_size
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import AfterEncoding, GuidanceScale, NoiseSeed, Steps
from graphflow.nodes.encoded_for import encoded_for, prompts_for, prompts_of

__all__ = ["DenoiseUpscale", "Upscale"]


class _Upscaling(ModelNode, abstract=True):
    """The parameters of both nodes."""

    tasks: ClassVar[Tasks] = ("upscale",)

    model: ModelRef = Field("pocket-x2", description='"pocket-x2", a hub id with optional @revision, or a folder')
    steps: Steps = None
    guidance_scale: GuidanceScale = None
    seed: NoiseSeed = 0

    def _doubled(self, source: PortType) -> dict[str, PortType]:
        """Latents of twice the width and height of ``source``."""
        width, height = source.width, source.height
        size = PortType(Latent, width=width and 2 * width, height=height and 2 * height, batch=source.batch)
        return {"latent": self.latent_type(size)}


class DenoiseUpscale(_Upscaling, DenoisingNode, version=1):
    """Double the height and width of latents with a latent upscaler.

    It denoises latents of the doubled size beside the small ones (sd-x2-latent-upscaler), and nothing is decoded. Item
    i of a batch draws its noise from ``seed + i`` and equals the same picture made alone. Steps that differ in seed,
    prompts and pictures only can be computed as one batch, with what `Denoise` says of the last digits.
    """

    batchable: ClassVar[bool] = True

    after_encoding: AfterEncoding = False

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many latents of twice the width and height."""
        return self._doubled(inputs.get("latent", PortType(Latent)))

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report guidance away from nothing, and latents that hold no picture."""
        yield from check_negative(info, self.guidance(info), inputs)
        latent = inputs.get("latent")
        if latent and latent.noise:
            message = f"found latents that are noisy at {latent.noise:g}, expected clean ones"
            yield Problem("value.noisy_latent", message, "latent", "put a Denoise before it")

    def run(
        self, *, latent: Latent, positive: Conditioning, negative: Conditioning | None = None, context: Context
    ) -> Latent:
        """Upscale a batch. Raises ValueError for latents of another space, and for guidance without a negative."""
        info = self.require_model_info()
        guidance_scale = self.guidance(info)
        if latent.space != info.space or latent.noise:
            raise ValueError(f'found {latent!r}, noisy at {latent.noise:g}; expected clean latents of "{info.space}"')
        backend: UpscaleAdapter = self.adapter(context)
        data = backend.upscale(
            latent.data,
            prompts_of(info, positive, negative, guidance_scale),
            Sampling(
                steps=self.setting(info, "steps"),
                guidance_scale=guidance_scale,
                seeds=self.seeds(context, len(latent)),
                sampler=DEFAULT,
                after_encoding=self.after_encoding,
            ),
            context.step,
        )
        return Latent(data, info.space, self.model)


class Upscale(_Upscaling, version=1):
    """Double the height and width of a picture without leaving latent space.

    Latents of the model's space go in as they are; a picture is encoded first, with the VAE's sample drawn from the
    seed as diffusers draws it. A prompt that says what the picture shows may help, and can be left out.
    """

    def input_types(self) -> dict[str, PortType]:
        """Latents in the model's space; the rest as declared."""
        return {**super().input_types(), "image": self.latent_type()}

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many latents of twice the width and height."""
        source = inputs.get("image", PortType(Latent))
        width, height = cut_size(self.model_info(), source) or (source.width, source.height)
        return self._doubled(PortType(Latent, width=width, height=height, batch=source.batch))

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report a picture that is cut down or too small."""
        source = inputs.get("image")
        size = cut_size(info, source) if source else None
        if source and size:
            yield cut_down(info, source, size)

    def expand(self, g: Expansion, *, image: Latent, prompt: Text = "", negative_prompt: Text = "") -> Latent:
        """Encode what is not encoded yet, then denoise at the doubled size."""
        info = self.require_model_info()
        latent, after_encoding = encoded_for(g, info, image, self.seed)
        guidance_scale = self.setting(info, "guidance_scale")
        made: Latent = g.add(
            DenoiseUpscale(
                model=self.model,
                steps=self.setting(info, "steps"),
                guidance_scale=guidance_scale,
                seed=self.seed,
                after_encoding=after_encoding,
            ),
            latent=latent,
            **prompts_for(g, info, prompt, negative_prompt, guidance_scale),
        )
        return made
