from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from graphflow import Expansion, Latent, PortType, Problem, Text
from graphflow.nodes.denoise import Denoise
from graphflow.nodes.diffusion.families import Tasks
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.prompts import (
    ClipSkip,
    LongPrompts,
    PromptSyntax,
    check_prompts,
    check_reading,
    reading_of,
)
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT, SamplerName, check_sampler
from graphflow.nodes.diffusion.shared.checks import check_guidance, check_redrawing, check_size
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import (
    BatchSize,
    DenoisingEnd,
    GuidanceScale,
    NoiseSeed,
    PictureSide,
    Steps,
)
from graphflow.nodes.empty_latent import EmptyLatent
from graphflow.nodes.encoded_for import prompts_for

__all__ = ["Text2Image"]


class Text2Image(ModelNode, version=1):
    """Draw what a prompt says.

    Stands for EncodePrompt (twice), EmptyLatent and Denoise. Item i of a batch is drawn from ``seed + i`` and equals
    the same picture made alone.
    """

    tasks: ClassVar[Tasks] = ("text-to-image",)

    width: PictureSide = None
    height: PictureSide = None
    steps: Steps = None
    guidance_scale: GuidanceScale = None
    denoising_end: DenoisingEnd = None
    seed: NoiseSeed = 0
    sampler: SamplerName = DEFAULT
    clip_skip: ClipSkip = None
    prompt_syntax: PromptSyntax = "plain"
    long_prompts: LongPrompts = "refuse"
    batch_size: BatchSize = 1

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Latents of the model with this size."""
        empty = self._empty().output_types({})["latent"]
        info = self.model_info()
        steps = self.setting(info, "steps") if info else self.steps
        denoise = Denoise(model=self.model, steps=steps, denoising_end=self.denoising_end)
        return denoise.output_types({"latent": empty})

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report sizes, guidance or a hand-over that the model does not know, and an unknown sampler."""
        yield from check_size(info, self.width, self.height)
        yield from check_guidance(info, self.guidance_scale, inputs)
        yield from check_redrawing(info, PortType(Latent, noise=1.0), 1, None, self.denoising_end)
        yield from check_reading(info, self)
        yield from check_sampler(info, self.sampler, self.setting(info, "steps"))

    def check_values(self, values: Mapping[str, str | int | float | bool]) -> Iterator[Problem]:
        """Report what `check_prompts` finds."""
        yield from check_prompts(self, values)

    def expand(self, g: Expansion, *, prompt: Text, negative_prompt: Text = "") -> Latent:
        """Encode the prompts, then denoise from nothing but noise."""
        info = self.require_model_info()
        guidance_scale = self.setting(info, "guidance_scale")
        latent: Latent = g.add(
            Denoise(
                model=self.model,
                steps=self.setting(info, "steps"),
                guidance_scale=guidance_scale,
                denoising_end=self.denoising_end,
                seed=self.seed,
                sampler=self.sampler,
            ),
            latent=g.add(self._empty()),
            **prompts_for(
                g,
                info,
                prompt,
                negative_prompt,
                guidance_scale,
                seed=self.seed,
                batch=self.batch_size,
                reading=reading_of(self),
            ),
        )
        return latent

    def _empty(self) -> EmptyLatent:
        return EmptyLatent(model=self.model, width=self.width, height=self.height, batch_size=self.batch_size)
