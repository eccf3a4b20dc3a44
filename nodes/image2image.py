from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from graphflow import Expansion, Field, Latent, PortType, Problem, Seed, Text
from graphflow.nodes.denoise import Denoise
from graphflow.nodes.diffusion.checks import check_strength, cut_down, cut_size
from graphflow.nodes.diffusion.families import Task
from graphflow.nodes.diffusion.model_info import ModelInfo
from graphflow.nodes.diffusion.model_node import ModelNode
from graphflow.nodes.diffusion.samplers import DEFAULT, check_sampler
from graphflow.nodes.encoded_for import encoded_for, prompts_for

__all__ = ["Image2Image"]


class Image2Image(ModelNode, version=1):
    """Redraw an image or latents under a prompt (SDEdit, Meng et al. 2021).

    Latents of the model's space go in as they are; a picture is encoded first, with the VAE's sample drawn from the
    seed as diffusers draws it. A picture whose size does not fill whole latent cells is resized to the next
    smaller one that does. ``int(steps * strength)`` steps run.
    """

    task: ClassVar[Task | None] = "image-to-image"

    strength: float | None = Field(
        None, gt=0, le=1, description="share of the noise schedule that is run again; default: the model's own"
    )
    steps: int | None = Field(None, ge=1, le=1000, description="length of the noise schedule; default: the model's own")
    guidance_scale: float | None = Field(
        None, ge=0, le=100, description="how strictly the prompt is followed, off up to 1; default: the model's own"
    )
    seed: Seed = Field(0, description="where noise comes from; item i of a batch uses seed + i")
    sampler: str = Field(DEFAULT, description="ddim, euler, euler_a, dpm++_2m, …; default: the model's own")

    def input_types(self) -> dict[str, PortType]:
        """Latents in the model's space; the rest as declared."""
        return {**super().input_types(), "image": self.latent_type()}

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """As many latents, of the size of the image or the one it is cut down to."""
        source = inputs.get("image", PortType(Latent))
        size = cut_size(self.known, source)
        width, height = size or (source.width, source.height)
        return {"latent": self.latent_type(PortType(Latent, width=width, height=height, batch=source.batch))}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """A strength without steps, an unknown sampler, a picture that is cut down or too small."""
        yield from check_strength(self._steps(info), self._strength(info))
        problem = check_sampler(self.sampler)
        if problem:
            yield problem
        source = inputs.get("image")
        size = cut_size(info, source) if source else None
        if source and size:
            yield cut_down(info, source, size)

    def expand(self, g: Expansion, *, image: Latent, prompt: Text, negative_prompt: Text = "") -> Latent:
        """Encode what is not encoded yet, then denoise again."""
        info = self.required
        image, in_pixels = encoded_for(g, info, image, self.seed)
        default_guidance = info.defaults["image-to-image"].guidance_scale
        guidance_scale = default_guidance if self.guidance_scale is None else self.guidance_scale
        latent: Latent = g.add(
            Denoise(
                model=self.model,
                steps=self._steps(info),
                guidance_scale=guidance_scale,
                strength=self._strength(info),
                seed=self.seed,
                sampler=self.sampler,
                after_encoding=in_pixels,
            ),
            latent=image,
            **prompts_for(g, self.model, prompt, negative_prompt, guidance_scale),
        )
        return latent

    def _steps(self, info: ModelInfo) -> int:
        return info.defaults["image-to-image"].steps if self.steps is None else self.steps

    def _strength(self, info: ModelInfo) -> float:
        return info.defaults["image-to-image"].strength if self.strength is None else self.strength
