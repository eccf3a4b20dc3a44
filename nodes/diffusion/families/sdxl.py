"""Stable Diffusion XL, base and refiner (Podell et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from graphflow.nodes.diffusion.families import unet
from graphflow.nodes.diffusion.families.family import (
    PROMPT_PARAMETERS,
    Defaults,
    Family,
    Shapes,
    SingleFileLayout,
)

__all__ = ["SDXL", "SDXL_REFINER"]


def _has_open_clip(place: int) -> Callable[[Shapes], bool]:
    """Recognise a file by the index of its OpenCLIP text encoder: 1 in the base, 0 in the refiner."""
    tensor = f"conditioner.embedders.{place}.model.transformer.resblocks.9.mlp.c_proj.bias"
    return lambda shapes: tensor in shapes


def _single_file(kind: str, place: int) -> SingleFileLayout:
    return SingleFileLayout(
        kinds={kind: _has_open_clip(place)},
        prefixes=(unet.PREFIX,),
        mark="input_blocks.0.0.weight",
        mismatches=unet.unet_mismatches,
    )


SDXL = Family(
    name="sdxl",
    pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
    classes={**unet.CLASSES, **unet.SECOND_ENCODER},
    text_encoders={"text_encoder": unet.CLIP, "text_encoder_2": unet.OPEN_CLIP},
    spaces={(0.13025, 4, 8): "sdxl"},
    tasks={
        "text-to-image": Defaults(steps=50, guidance_scale=5.0),
        "image-to-image": Defaults(steps=50, guidance_scale=5.0, strength=0.3),
    },
    size_multiple=8,
    sample_size=128,
    supports_denoising_end=True,
    controlnet=True,
    adapter="graphflow.nodes.diffusion.adapters.sdxl:StableDiffusionXL",
    encoder_kind="sdxl",
    skipped_layers=1,
    accepted_parameters=PROMPT_PARAMETERS,
    text_width=("unet", "cross_attention_dim"),
    single_file=_single_file("stable-diffusion-xl", 1),
    lora=unet.lora("StableDiffusionXLPipeline"),
)

SDXL_REFINER = replace(
    SDXL,
    name="sdxl-refiner",
    pipelines=("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLPipeline"),
    classes={name: cls for name, cls in SDXL.classes.items() if name != "text_encoder"},
    text_encoders={"text_encoder_2": unet.OPEN_CLIP},
    tasks={"image-to-image": Defaults(steps=50, guidance_scale=5.0, strength=0.3)},
    controlnet=False,
    encoder_kind="sdxl-refiner",
    single_file=_single_file("stable-diffusion-xl-refiner", 0),
)
