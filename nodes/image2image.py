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
from graphflow.nodes.diffusion.shared.checks import check_guidance, check_redrawing, check_strength, cut_down, cut_size
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import DenoisingEnd, GuidanceScale, NoiseSeed, ScheduleSteps, Strength
from graphflow.nodes.encoded_for import encoded_for, prompts_for

__all__ = ["Image2Image"]


class Image2Image(ModelNode, version=1):
    """Redraw an image or latents under a prompt (SDEdit, Meng et al. 2021).

    Latents of the model's space go in as they are; a picture is encoded first, with the VAE's sample drawn from the
    seed as diffusers draws it. A picture whose size does not fill whole latent cells is resized to the next
    smaller one that does. ``int(steps * strength)`` steps run, rounded up for flow-matching models.

    Noisy latents that another model left at its ``denoising_end`` are finished on the same noise schedule, as an SDXL
    refiner does for a base; nothing is added to them, and ``strength`` is left out.
    """

    tasks: ClassVar[Tasks] = ("image-to-image",)

    strength: Strength = None
    steps: ScheduleSteps = None
    guidance_scale: GuidanceScale = None
    denoising_end: DenoisingEnd = None
    seed: NoiseSeed = 0
    sampler: SamplerName = DEFAULT
    clip_skip: ClipSkip = None
    prompt_syntax: PromptSyntax = "plain"
    long_prompts: LongPrompts = "refuse"

    def input_types(self) -> dict[str, PortType]:
        """Latents in the model's space; the rest as declared."""
        return {**super().input_types(), "image": self.latent_type()}

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many latents, of the (cut) image's size, noisy where it stops early."""
        info, source = self.model_info(), inputs.get("image", PortType(Latent))
        width, height = cut_size(info, source) or (source.width, source.height)
        size = PortType(Latent, width=width, height=height, batch=source.batch)
        steps = self._steps(info, source) if info else self.steps
        denoise = Denoise(model=self.model, steps=steps, denoising_end=self.denoising_end)
        return denoise.output_types({"latent": size})

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report noise, strength and guidance that do not fit, an unknown sampler, a picture cut down or too small."""
        source = inputs.get("image", PortType(Latent))
        if source.noise == 1.0:
            message = "found pure noise, expected a picture or latents of one"
            yield Problem("value.noisy_latent", message, "image", "draw with Text2Image or Denoise first")
        steps = self._steps(info, source)
        yield from check_redrawing(info, source, steps, self.strength, self.denoising_end)
        if not source.partly_noisy:
            yield from check_strength(info, steps, self.setting(info, "strength"))
        yield from check_guidance(info, self.guidance_scale, inputs)
        yield from check_reading(info, self)
        yield from check_sampler(info, self.sampler, steps)
        size = cut_size(info, source)
        if size:
            yield cut_down(info, source, size)

    def check_values(self, values: Mapping[str, str | int | float | bool]) -> Iterator[Problem]:
        """Report what `check_prompts` finds."""
        yield from check_prompts(self, values)

    def expand(self, g: Expansion, *, image: Latent, prompt: Text, negative_prompt: Text = "") -> Latent:
        """Encode what is not encoded yet, then denoise again."""
        info, source = self.require_model_info(), g.type_of(image)
        latent, after_encoding = encoded_for(g, info, image, self.seed)
        guidance_scale = self.setting(info, "guidance_scale")
        made: Latent = g.add(
            Denoise(
                model=self.model,
                steps=self._steps(info, source),
                guidance_scale=guidance_scale,
                strength=None if source.partly_noisy else self.setting(info, "strength"),
                denoising_end=self.denoising_end,
                seed=self.seed,
                sampler=self.sampler,
                after_encoding=after_encoding,
            ),
            latent=latent,
            **prompts_for(
                g,
                info,
                prompt,
                negative_prompt,
                guidance_scale,
                seed=self.seed,
                batch=source.batch,
                reading=reading_of(self),
            ),
        )
        return made

    def _steps(self, info: ModelInfo, source: PortType) -> int:
        return int(self.steps or source.steps or self.setting(info, "steps"))
