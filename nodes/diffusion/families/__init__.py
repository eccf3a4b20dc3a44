"""The families of pipelines that GraphFlow runs, and what is known of each without its code.

A family is one entry in `FAMILIES` and one module in the package `adapters`. The module imports torch and diffusers and
has a class named by ``adapter``, which satisfies `Adapter` and the protocols of the family's tasks; it is imported when
a step runs, never to validate a workflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from graphflow.nodes.diffusion.families.family import READING, Defaults, Family, Task, begun_steps

__all__ = ["FAMILIES", "Defaults", "Family", "Task", "class_of", "families_for", "family_of"]

_CLIP = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
_CLIP_2 = {"text_encoder_2": "CLIPTextModelWithProjection"}
_SD = {(0.18215, 4, 8): "sd"}
_SDXL = {(0.13025, 4, 8): "sdxl"}
_FLUX = Family(
    name="flux",
    pipelines=("FluxPipeline", "FluxImg2ImgPipeline"),
    classes={
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
    },
    denoiser="transformer",
    denoiser_says={"guidance_embeds": True},
    tokenizers={"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"},
    t5_window=512,
    spaces={(0.3611, 16, 8): "flux"},
    tasks={
        "text-to-image": Defaults(steps=28, guidance_scale=3.5),
        "image-to-image": Defaults(steps=28, guidance_scale=7.0, strength=0.6),
    },
    size_multiple=16,
    image_multiple=16,
    sample_size=128,
    adapter="flux:Flux",
    text_states="flux",
    text_width=("transformer", "joint_attention_dim"),
    channels=lambda latent_channels: 4 * latent_channels,
    channels_are="squares of 2 x 2 latent cells",
    denoise_steps=begun_steps,
    guidance="distilled",
    # Its pipelines give a sampler arguments that the others do not take.
    samplers=frozenset(),
)

FAMILIES: tuple[Family, ...] = (
    Family(
        name="stable-diffusion",
        pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
        classes=_CLIP,
        spaces=_SD,
        tasks={
            "text-to-image": Defaults(steps=50, guidance_scale=7.5),
            "image-to-image": Defaults(steps=50, guidance_scale=7.5, strength=0.8),
        },
        size_multiple=8,
        controlnet=True,
        takes=READING,
        adapter="stable_diffusion:StableDiffusion",
    ),
    Family(
        name="sdxl",
        pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
        classes={**_CLIP, **_CLIP_2},
        tokenizers={"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"},
        spaces=_SDXL,
        tasks={
            "text-to-image": Defaults(steps=50, guidance_scale=5.0),
            "image-to-image": Defaults(steps=50, guidance_scale=5.0, strength=0.3),
        },
        size_multiple=8,
        sample_size=128,
        hands_over=True,
        controlnet=True,
        adapter="sdxl:StableDiffusionXL",
        text_states="sdxl",
        layers_above=1,
        takes=READING,
        text_width=("unet", "cross_attention_dim"),
    ),
    Family(
        name="sdxl-refiner",
        pipelines=("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLPipeline"),
        classes={name: cls for name, cls in {**_CLIP, **_CLIP_2}.items() if name != "text_encoder"},
        tokenizers={"text_encoder_2": "tokenizer_2"},
        spaces=_SDXL,
        tasks={"image-to-image": Defaults(steps=50, guidance_scale=5.0, strength=0.3)},
        size_multiple=8,
        sample_size=128,
        hands_over=True,
        adapter="sdxl:StableDiffusionXL",
        text_states="sdxl-refiner",
        layers_above=1,
        takes=READING,
        text_width=("unet", "cross_attention_dim"),
    ),
    Family(
        name="kandinsky-2.2",
        pipelines=("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline"),
        classes={
            "unet": "UNet2DConditionModel",
            "movq": "VQModel",
            "prior": "PriorTransformer",
            "text_encoder": "CLIPTextModelWithProjection",
            "image_encoder": "CLIPVisionModelWithProjection",
        },
        schedulers=("scheduler", "prior_scheduler"),
        prior={name: name for name in ("prior", "text_encoder", "image_encoder", "tokenizer")}
        | {"prior_scheduler": "scheduler"},
        autoencoder="movq",
        # The pipelines apply no factor, although the configuration of the autoencoder tells one.
        spaces="movq",
        tasks={
            "text-to-image": Defaults(steps=100, guidance_scale=4.0),
            "image-to-image": Defaults(steps=100, guidance_scale=4.0, strength=0.3),
        },
        size_multiple=64,
        samples_encoding=False,
        adapter="kandinsky:Kandinsky",
        text_states="kandinsky-2.2",
        text_width=("unet", "encoder_hid_dim"),
        # Its pipelines do not scale what goes into the UNet, as Euler wants it, and give each step a generator.
        samplers=frozenset({"ddim", "ddpm", "dpm++_2m", "dpm++_2m_sde", "dpm++_2s"}),
    ),
    Family(
        name="sd3",
        pipelines=("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"),
        classes={
            "transformer": "SD3Transformer2DModel",
            "vae": "AutoencoderKL",
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
        },
        optional={"text_encoder_3": "T5EncoderModel"},
        denoiser="transformer",
        tokenizers={
            "text_encoder": "tokenizer",
            "text_encoder_2": "tokenizer_2",
            "text_encoder_3": "tokenizer_3",
        },
        t5_window=256,
        spaces={(1.5305, 16, 8): "sd3"},
        tasks={
            "text-to-image": Defaults(steps=28, guidance_scale=7.0),
            "image-to-image": Defaults(steps=50, guidance_scale=7.0, strength=0.6),
        },
        size_multiple=16,
        image_multiple=16,
        sample_size=128,
        adapter="sd3:StableDiffusion3",
        text_states="sd3",
        text_width=("transformer", "joint_attention_dim"),
        denoise_steps=begun_steps,
        # The others solve another equation than that of a flow: DDIM draws nonsense without a word.
        samplers=frozenset(),
    ),
    _FLUX,
    # FLUX.1 schnell: as dev, but it takes no guidance and few steps.
    replace(
        _FLUX,
        name="flux-schnell",
        denoiser_says={"guidance_embeds": False},
        t5_window=256,
        tasks={
            "text-to-image": Defaults(steps=4, guidance_scale=0.0),
            "image-to-image": Defaults(steps=4, guidance_scale=0.0, strength=0.6),
        },
        guidance="none",
    ),
    Family(
        name="latent-upscaler",
        pipelines=("StableDiffusionLatentUpscalePipeline",),
        classes=_CLIP,
        spaces=_SD,
        tasks={"upscale": Defaults(steps=75, guidance_scale=9.0)},
        size_multiple=1,
        adapter="latent_upscaler:LatentUpscaler",
        text_states="clip-before-norm",
        channels=lambda latent_channels: 2 * latent_channels,
        channels_are="noisy and small latents",
    ),
    Family(
        name="upscaler",
        pipelines=("StableDiffusionUpscalePipeline",),
        classes=_CLIP,
        schedulers=("scheduler", "low_res_scheduler"),
        spaces={(0.08333, 4, 4): "sd-x4"},
        tasks={"super-resolution": Defaults(steps=75, guidance_scale=9.0, noise_level=20)},
        size_multiple=1,
        adapter="upscaler:Upscaler",
        channels=lambda latent_channels: latent_channels + 3,
        channels_are="noisy latents and a small picture",
    ),
)


def family_of(index: Mapping[str, Any], config_of: Callable[[str], Mapping[str, Any]] | None = None) -> Family | None:
    """The family that a ``model_index.json`` belongs to: of those with its pipeline the first with its components.

    Where no family has just its components, the first with its pipeline; None for a pipeline that no family has.
    ``config_of`` gives the configuration of a component; without it families that only a configuration tells apart,
    which have equal files, are the first of them.
    """
    pipeline = str(index.get("_class_name"))
    candidates = [family for family in FAMILIES if pipeline in family.pipelines]
    for family in candidates:
        if all(class_of(index, name) for name in family.classes):
            config = config_of(family.denoiser) if family.denoiser_says and config_of else family.denoiser_says
            # what a configuration leaves out is off
            if all(config.get(key, False) == value for key, value in family.denoiser_says.items()):
                return family
    return candidates[0] if candidates else None


def class_of(index: Mapping[str, Any], component: str) -> str | None:
    """The class that a ``model_index.json`` gives a component, None where it has none."""
    found = index.get(component)
    return str(found[-1]) if isinstance(found, list) and found and found[-1] is not None else None


def families_for(task: Task | None) -> tuple[str, ...]:
    """The names of the families that can do a task; for None all that are supported."""
    return tuple(family.name for family in FAMILIES if not task or task in family.tasks)
