from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from graphflow import DepthMap, Expansion, Field, Latent, ModelRef, PortType, Problem, Text
from graphflow.nodes.denoise_controlnet import DenoiseControlNet
from graphflow.nodes.diffusion.families import Tasks
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.models.network_info import find_network
from graphflow.nodes.diffusion.sampling.prompts import (
    ClipSkip,
    LongPrompts,
    PromptSyntax,
    check_prompts,
    check_reading,
    reading_of,
)
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT, SamplerName, check_sampler
from graphflow.nodes.diffusion.shared.checks import check_control, check_size, check_strength, cut_down, cut_size
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import (
    BatchSize,
    ConditioningScale,
    ControlEnd,
    ControlNetRef,
    ControlStart,
    GuidanceScale,
    NoiseSeed,
    PictureSide,
    Steps,
    Strength,
)
from graphflow.nodes.empty_latent import EmptyLatent
from graphflow.nodes.encoded_for import encoded_for, prompts_for
from graphflow.nodes.estimate_depth import EstimateDepth
from graphflow.nodes.fit_depth_map import FitDepthMap

__all__ = ["ControlNetDepth"]

_SIDE = "pixels, without an image; default: the depth map's, cut to a size that fits"


class ControlNetDepth(ModelNode, version=1):
    """Draw a prompt into the space that a depth map describes (ControlNet, Zhang et al. 2023).

    Without an ``image`` it draws from noise, in the size of the depth map unless width and height say another. With
    one it redraws that image as `Image2Image` does, and without a ``depth_map`` takes the image's own depth, estimated
    by ``depth_estimator``. The depth map is resized to the picture that is made, and a warning says so. Depth maps
    are inverse depth: near is 1.
    """

    tasks: ClassVar[Tasks] = ("text-to-image",)

    controlnet: ControlNetRef = "pocket-controlnet-depth"
    depth_estimator: ModelRef = Field(
        "pocket-depth", description="network that estimates the depth of the image where no depth map is connected"
    )
    conditioning_scale: ConditioningScale = 1.0
    control_guidance_start: ControlStart = 0.0
    control_guidance_end: ControlEnd = 1.0
    width: PictureSide = Field(None, description=_SIDE)
    height: PictureSide = Field(None, description=_SIDE)
    strength: Strength = Field(
        None, description="with an image: share of the noise schedule run again; default: the model's own"
    )
    steps: Steps = Field(None, description="length of the noise schedule; default: the model's own")
    guidance_scale: GuidanceScale = None
    seed: NoiseSeed = 0
    sampler: SamplerName = DEFAULT
    clip_skip: ClipSkip = None
    prompt_syntax: PromptSyntax = "plain"
    long_prompts: LongPrompts = "refuse"
    batch_size: BatchSize = Field(1, description="number of pictures, without an image")

    def input_types(self) -> dict[str, PortType]:
        """Latents in the model's space; the rest as declared."""
        return {**super().input_types(), "image": self.latent_type()}

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Latents of the image's size and number, or of those asked for."""
        info, image = self.model_info(), inputs.get("image")
        if image is not None:
            width, height = cut_size(info, image) or (image.width, image.height)
            return {"latent": self.latent_type(PortType(Latent, width=width, height=height, batch=image.batch))}
        width, height = self._size(info, inputs.get("depth_map")) if info else (self.width, self.height)
        return {"latent": self.latent_type(PortType(Latent, width=width, height=height, batch=self.batch_size))}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report faults as Text2Image and Image2Image do, of the ControlNet, and in sizes and numbers that differ."""
        image, depth_map = inputs.get("image"), inputs.get("depth_map")
        yield from check_reading(info, self)
        yield from check_sampler(info, self.sampler, self._setting(info, "steps", image))
        yield from check_control(self, info)
        if image is None:
            yield from check_size(info, self.width, self.height)
            if self.strength is not None:
                message = f"found strength {self.strength:g} without an image, expected one to redraw"
                yield Problem("value.strength_noise", message, "strength", "connect an image, or leave strength out")
            if depth_map is None:
                message = "neither 'depth_map' nor 'image' is connected, expected at least one of them"
                hint = 'add "depth_map": {"from": "a LoadDepthMap or EstimateDepth"}'
                yield Problem("port.missing", message, hint=hint)
        else:
            yield from check_strength(info, self._setting(info, "steps", image), self._setting(info, "strength", image))
            for name in ("width", "height", "batch_size"):
                if name in self.model_fields_set:
                    message = f"found {name} beside an image, whose own is taken"
                    yield Problem("value.control_size", message, name, "leave it out, or put a ResizeImage before")
            size = cut_size(info, image)
            if size:
                yield cut_down(info, image, size)
            if depth_map is None:
                estimator = find_network(self.depth_estimator, "depth", "depth_estimator")
                if isinstance(estimator, Problem):
                    yield estimator
        if depth_map is not None:
            yield from self._check_depth_map(depth_map, self.output_types(inputs)["latent"])

    def _check_depth_map(self, depth_map: PortType, made: PortType) -> Iterator[Problem]:
        if depth_map.batch not in (None, 1, made.batch) and made.batch is not None:
            message = f"found {depth_map.batch} depth maps for {made.batch} pictures, expected 1 or {made.batch}"
            yield Problem(
                "value.control_batch", message, "depth_map", f"set batch_size to {depth_map.batch}, or use one"
            )
        sizes = (depth_map.width, depth_map.height), (made.width, made.height)
        if None not in (*sizes[0], *sizes[1]) and sizes[0] != sizes[1]:
            message = (
                f"the depth map of {depth_map.width} x {depth_map.height} pixels is resized to the {made.width} x "
                f"{made.height} of the picture"
            )
            hint = "give both the same size to keep its proportions"
            yield Problem("value.control_size", message, "depth_map", hint, severity="warning")

    def check_values(self, values: Mapping[str, str | int | float | bool]) -> Iterator[Problem]:
        """Report what `check_prompts` finds."""
        yield from check_prompts(self, values)

    def expand(
        self,
        g: Expansion,
        *,
        prompt: Text,
        negative_prompt: Text = "",
        depth_map: DepthMap | None = None,
        image: Latent | None = None,
    ) -> Latent:
        """Encode what is not encoded yet, fit the depth map, then denoise under its control."""
        info = self.require_model_info()
        if image is None:
            if depth_map is None:
                raise ValueError("neither 'depth_map' nor 'image' is connected")
            width, height = self._size(info, g.type_of(depth_map))
            empty = EmptyLatent(model=self.model, width=width, height=height, batch_size=self.batch_size)
            latent, after_encoding = g.add(empty), False
        else:
            if depth_map is None:
                depth_map = g.add(EstimateDepth(model=self.depth_estimator), image=image)
            latent, after_encoding = encoded_for(g, info, image, self.seed)
        size, found = g.type_of(latent), g.type_of(depth_map)
        if size.width is None or (size.width, size.height) != (found.width, found.height):
            depth_map = g.add(FitDepthMap(model=self.model), depth_map=depth_map, latent=latent)
        guidance_scale = self._setting(info, "guidance_scale", image)
        made: Latent = g.add(
            DenoiseControlNet(
                model=self.model,
                steps=self._setting(info, "steps", image),
                guidance_scale=guidance_scale,
                strength=None if image is None else self._setting(info, "strength", image),
                seed=self.seed,
                sampler=self.sampler,
                after_encoding=after_encoding,
                controlnet=self.controlnet,
                conditioning_scale=self.conditioning_scale,
                control_guidance_start=self.control_guidance_start,
                control_guidance_end=self.control_guidance_end,
            ),
            latent=latent,
            depth_map=depth_map,
            **prompts_for(g, info, prompt, negative_prompt, guidance_scale, reading=reading_of(self)),
        )
        return made

    def _size(self, info: ModelInfo, depth_map: PortType | None) -> tuple[int, int]:
        """Width and height of what is drawn from noise."""
        multiple = info.size_multiple
        known = depth_map or PortType(DepthMap)
        width = self.width or (known.width // multiple * multiple if known.width else 0) or info.native_width
        height = self.height or (known.height // multiple * multiple if known.height else 0) or info.native_height
        return width, height

    def _setting(self, info: ModelInfo, name: str, image: object) -> Any:
        return self.setting(info, name, "text-to-image" if image is None else "image-to-image")
