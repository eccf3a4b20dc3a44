"""Stable Diffusion 1.x and 2.x, and every model of the same architecture (Rombach et al. 2022).

The tensors of Stable Diffusion 2 are the same with v-prediction and with epsilon-prediction. As in diffusers a file is
assumed to be 2.1 at 768 pixels, which predicts v; one that predicts epsilon needs a folder beside it with a scheduler
configuration that says so.
"""

from __future__ import annotations

from graphflow.nodes.diffusion.families import unet
from graphflow.nodes.diffusion.families.family import (
    PROMPT_PARAMETERS,
    Defaults,
    Family,
    Shapes,
    SingleFileLayout,
)

__all__ = ["SPACES", "STABLE_DIFFUSION"]

SPACES = {(0.18215, 4, 8): "sd"}


def _is_second(shapes: Shapes) -> bool:
    return shapes.get(unet.TEXT_ATTENTION, (0,))[-1] == 1024


def _is_first(shapes: Shapes) -> bool:
    last = f"{unet.PREFIX}output_blocks.11.0.skip_connection.weight"
    return last in shapes and shapes.get(unet.TEXT_ATTENTION, (0,))[-1] == 768


STABLE_DIFFUSION = Family(
    name="stable-diffusion",
    pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
    classes=unet.CLASSES,
    text_encoders={"text_encoder": unet.CLIP},
    # Its pipelines correct these two, with a warning, in outdated configurations.
    scheduler_config={"steps_offset": 1, "clip_sample": False},
    spaces=SPACES,
    tasks={
        "text-to-image": Defaults(steps=50, guidance_scale=7.5),
        "image-to-image": Defaults(steps=50, guidance_scale=7.5, strength=0.8),
    },
    size_multiple=8,
    controlnet=True,
    accepted_parameters=PROMPT_PARAMETERS,
    adapter="graphflow.nodes.diffusion.adapters.stable_diffusion:StableDiffusion",
    single_file=SingleFileLayout(
        kinds={"stable-diffusion-2": _is_second, "stable-diffusion-1": _is_first},
        prefixes=(unet.PREFIX,),
        mark="input_blocks.0.0.weight",
        mismatches=unet.unet_mismatches,
    ),
    lora=unet.lora("StableDiffusionPipeline"),
)
