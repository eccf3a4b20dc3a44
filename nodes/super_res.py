from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Self

from graphflow import (
    Compute,
    Conditioning,
    Context,
    Expansion,
    Field,
    Image,
    Latent,
    Memory,
    ModelRef,
    PortType,
    Problem,
    Text,
)
from graphflow.nodes.denoising_node import DenoisingNode
from graphflow.nodes.diffusion.checkpoints.upscaler_file import is_upscaler_file
from graphflow.nodes.diffusion.families import Tasks
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT, SamplerName, check_sampler
from graphflow.nodes.diffusion.shared.adapters import Sampling, SuperResolutionAdapter
from graphflow.nodes.diffusion.shared.checks import check_negative, check_tiles, with_smaller_tiles
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import GuidanceScale, NoiseSeed, Steps, TileOverlap, TileSize
from graphflow.nodes.encoded_for import prompts_for, prompts_of
from graphflow.nodes.enlarge_image import EnlargeImage

__all__ = ["DenoiseSuperRes", "SuperRes"]

FACTOR = 4


class _SuperResolving(ModelNode, abstract=True):
    """The parameters of both nodes."""

    tasks: ClassVar[Tasks] = ("super-resolution",)

    model: ModelRef = Field("pocket-x4", description='"pocket-x4", a hub id with optional @revision, or a folder')
    noise_level: int | None = Field(
        None, ge=0, le=1000, description="noise put on the small picture to hide its faults; default: the model's own"
    )
    steps: Steps = None
    guidance_scale: GuidanceScale = None
    seed: NoiseSeed = 0
    sampler: SamplerName = DEFAULT
    tile_size: TileSize = 192
    tile_overlap: TileOverlap = 32

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report an unknown sampler, more noise than the model knows, tiles that are all overlap."""
        yield from check_sampler(info, self.sampler, self.setting(info, "steps"))
        noise_level = self.setting(info, "noise_level")
        if noise_level > info.max_noise_level:
            message = f"found noise_level {noise_level}, expected at most {info.max_noise_level}"
            yield Problem("value.noise_level", message, "noise_level", f'it is what "{self.model}" was trained for')
        yield from check_tiles(self.tile_size, self.tile_overlap)

    def _enlarged(self, image: PortType) -> dict[str, PortType]:
        width, height = image.width, image.height
        size = PortType(Latent, width=width and FACTOR * width, height=height and FACTOR * height, batch=image.batch)
        return {"latent": self.latent_type(size)}


class DenoiseSuperRes(_SuperResolving, DenoisingNode, version=1):
    """Make latents of a picture four times as high and wide from a small picture's pixels.

    Every pixel of the small picture becomes a latent cell. One larger than ``tile_size`` is looked at in overlapping
    tiles, whose answers are mixed at each denoise step (MultiDiffusion, Bar-Tal et al. 2023), so that there are no
    seams and memory is bounded. Steps that differ in seed, prompts and pictures only can be computed as one batch, with
    what `Denoise` says of the last digits.
    """

    batchable: ClassVar[bool] = True
    batch_port: ClassVar[str] = "image"

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many latents, of pictures four times as large."""
        return self._enlarged(inputs.get("image", PortType(Image)))

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report as `SuperRes` does, and guidance away from nothing."""
        yield from super().check_with(info, inputs)
        yield from check_negative(info, self.guidance(info), inputs)

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """Estimate the denoiser with one tile of all pictures at a time, twice under guidance."""
        return self.denoising_memory(inputs, compute, tile=self.tile_size)

    def lighter(self) -> Iterable[Self]:
        """Smaller tiles, no smaller than the overlap allows."""
        return with_smaller_tiles(self, *(size for size in (128, 96, 64) if size >= 2 * self.tile_overlap))

    def run(
        self, *, image: Image, positive: Conditioning, negative: Conditioning | None = None, context: Context
    ) -> Latent:
        """Enlarge a batch. Raises ValueError where guidance has no negative prompt."""
        info = self.require_model_info()
        guidance_scale = self.guidance(info)
        backend: SuperResolutionAdapter = self.adapter(context)
        data = backend.super_resolve(
            image.pixels,
            prompts_of(info, positive, negative, guidance_scale),
            Sampling(
                steps=self.setting(info, "steps"),
                guidance_scale=guidance_scale,
                seeds=self.seeds(context, len(image)),
                sampler=self.sampler,
            ),
            noise_level=self.setting(info, "noise_level"),
            tile=self.tile_size,
            overlap=self.tile_overlap,
            progress=context.step,
        )
        return Latent(data, info.space, self.model)


class SuperRes(_SuperResolving, version=1):
    """Make a picture four times as high and wide, and sharp.

    It reads pixels: latents are decoded first, as a step of the plan. A picture larger than ``tile_size`` is made in
    overlapping tiles without seams. A prompt that says what the picture shows may help, and can be left out.

    The model may also be an upscaling network in a single file (ESRGAN and its kin, with the extra ``spandrel``). Then
    the factor is that network's, the output is an image, and as it uses neither prompts, steps, guidance nor noise,
    giving those is an error.
    """

    model: ModelRef = Field(
        "pocket-x4",
        description='"pocket-x4", a hub id with optional @revision, a folder, or an upscaler in a .safetensors or .pth '
        "file (a path, or owner/name/file)",
    )

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many latents of pictures four times as large, or such images."""
        if is_upscaler_file(self.model):
            return {"latent": self._enlarging.output_types(inputs)["image"]}
        return self._enlarged(inputs.get("image", PortType(Image)))

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Report faults of model and parameters; for an upscaler in a file, the parameters that it does not use."""
        return self._check_file(inputs) if is_upscaler_file(self.model) else super().check(inputs)

    def _check_file(self, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        yield from self._enlarging.check(inputs)
        unused = ("noise_level", "steps", "guidance_scale", "seed", "sampler")
        given = [name for name in unused if name in self.model_fields_set]
        for name in (*given, *(port for port in ("prompt", "negative_prompt") if port in inputs)):
            message = f'found {name}, which the upscaler "{self.model}" does not use: it only looks at the picture'
            yield Problem("value.ignored", message, name, "leave it out, or choose a model that denoises")

    @property
    def _enlarging(self) -> EnlargeImage:
        return EnlargeImage(model=self.model, tile_size=self.tile_size, tile_overlap=self.tile_overlap)

    def expand(self, g: Expansion, *, image: Image, prompt: Text = "", negative_prompt: Text = "") -> Latent:
        """Encode the prompts, then denoise beside the small picture; or enlarge it with an upscaler in a file."""
        made: Latent
        if is_upscaler_file(self.model):
            made = g.add(self._enlarging, image=image)
            return made
        info = self.require_model_info()
        guidance_scale = self.setting(info, "guidance_scale")
        parameters = self.model_dump()
        parameters |= {name: self.setting(info, name) for name in ("steps", "guidance_scale", "noise_level")}
        made = g.add(
            DenoiseSuperRes(**parameters),
            image=image,
            **prompts_for(g, info, prompt, negative_prompt, guidance_scale),
        )
        return made
