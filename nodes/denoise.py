from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from graphflow import Conditioning, Context, Field, Latent, PortType, Problem, Seed
from graphflow.nodes.diffusion.checks import check_negative, check_strength, denoise_steps
from graphflow.nodes.diffusion.families import Control, Draws, Task
from graphflow.nodes.diffusion.model_info import ModelInfo
from graphflow.nodes.diffusion.model_node import ModelNode
from graphflow.nodes.diffusion.samplers import DEFAULT, check_sampler

__all__ = ["Denoise"]


class Denoise(ModelNode, version=1):
    """Run the noise schedule of a model over latents.

    Latents that are pure noise (from `EmptyLatent`) are made into pictures; clean ones get noise for the last
    ``int(steps * strength)`` steps and are redrawn (SDEdit, Meng et al. 2021). Item i of a batch draws its noise from
    ``seed + i`` and equals the same picture made alone.
    """

    task: ClassVar[Task | None] = "text-to-image"

    steps: int | None = Field(None, ge=1, le=1000, description="length of the noise schedule; default: the model's own")
    guidance_scale: float | None = Field(
        None, ge=0, le=100, description="how strictly the prompt is followed, off up to 1; default: the model's own"
    )
    strength: float = Field(1.0, gt=0, le=1, description="share of the noise schedule that clean latents go through")
    seed: Seed = Field(0, description="where noise comes from; item i of a batch uses seed + i")
    sampler: str = Field(DEFAULT, description="ddim, euler, euler_a, dpm++_2m, …; default: the model's own")
    after_encoding: bool = Field(
        False,
        description="the latents were sampled by EncodeImage with the same seed: take the noise that follows that draw",
    )

    def input_types(self) -> dict[str, PortType]:
        """Latents in the model's space, prompts from its kind of text encoder."""
        info = self.known
        prompt = PortType(Conditioning, info.text_space if info else None)
        return {"latent": self.latent_type(), "positive": prompt, "negative": prompt}

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """As many latents of the same size."""
        return {"latent": self.latent_type(inputs.get("latent"))}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """An unknown sampler, a strength without steps, guidance away from nothing."""
        problem = check_sampler(self.sampler)
        if problem:
            yield problem
        latent = inputs.get("latent")
        if latent and latent.noise == 1.0 and self.strength != 1.0:
            message = f"found strength {self.strength:g} for pure noise, expected 1"
            yield Problem(
                "value.strength_noise", message, "strength", "leave strength out; there is no picture yet to redraw"
            )
        yield from check_strength(self._steps(info), self.strength)
        yield from check_negative(self._guidance(info), inputs)

    def progress_steps(self, inputs: Mapping[str, PortType]) -> int | None:
        """The denoise steps that run."""
        info = self.known
        return denoise_steps(self._steps(info), self.strength) if info else None

    def run(
        self, *, latent: Latent, positive: Conditioning, negative: Conditioning | None = None, context: Context
    ) -> Latent:
        """Denoise a batch. Raises ValueError for partly noisy latents, and where guidance has no negative prompt."""
        return self.denoised(latent, positive, negative, None, context)

    def denoised(
        self,
        latent: Latent,
        positive: Conditioning,
        negative: Conditioning | None,
        control: Control | None,
        context: Context,
    ) -> Latent:
        """What `run` does, under a ControlNet if there is one."""
        info = self.required
        guidance_scale = self._guidance(info)
        if guidance_scale > 1 and negative is None:
            raise ValueError(f"guidance_scale {guidance_scale:g} needs a negative prompt; connect one, or set it to 1")
        if latent.space != info.space:
            raise ValueError(f'found latents of the space "{latent.space}", expected "{info.space}"')
        unwanted = None if negative is None or guidance_scale <= 1 else negative.embeds
        backend: Draws = self.adapter(context)
        if latent.noise == 1.0:
            if self.strength != 1.0:
                raise ValueError(
                    f"found strength {self.strength:g} for pure noise, expected 1: there is nothing to redraw"
                )
            data = backend.text_to_image(
                shape=latent.data.shape,
                positive=positive.embeds,
                negative=unwanted,
                steps=self._steps(info),
                guidance_scale=guidance_scale,
                seed=self.seed,
                sampler=self.sampler,
                control=control,
                progress=context.step,
            )
        elif latent.noise == 0.0:
            data = backend.image_to_image(
                latents=latent.data,
                positive=positive.embeds,
                negative=unwanted,
                steps=self._steps(info),
                guidance_scale=guidance_scale,
                strength=self.strength,
                seed=self.seed,
                sampler=self.sampler,
                after_encoding=self.after_encoding,
                control=control,
                progress=context.step,
            )
        else:
            raise ValueError(f"found latents noisy at {latent.noise:g}, expected clean ones (0) or pure noise (1)")
        return Latent(data, info.space, self.model)

    def _steps(self, info: ModelInfo) -> int:
        return info.defaults["text-to-image"].steps if self.steps is None else self.steps

    def _guidance(self, info: ModelInfo) -> float:
        return info.defaults["text-to-image"].guidance_scale if self.guidance_scale is None else self.guidance_scale
