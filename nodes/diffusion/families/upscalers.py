"""The two upscalers that denoise: sd-x2-latent-upscaler and stable-diffusion-x4-upscaler."""

from __future__ import annotations

from graphflow.nodes.diffusion.families import unet
from graphflow.nodes.diffusion.families.family import Defaults, Family, SingleFileLayout
from graphflow.nodes.diffusion.families.stable_diffusion import SPACES

__all__ = ["LATENT_UPSCALER", "UPSCALER"]

LATENT_UPSCALER = Family(
    name="latent-upscaler",
    pipelines=("StableDiffusionLatentUpscalePipeline",),
    classes=unet.CLASSES,
    text_encoders={"text_encoder": unet.CLIP},
    spaces=SPACES,
    tasks={"upscale": Defaults(steps=75, guidance_scale=9.0)},
    size_multiple=1,
    adapter="graphflow.nodes.diffusion.adapters.latent_upscaler:LatentUpscaler",
    encoder_kind="clip-before-norm",
    denoiser_channels=lambda latent_channels: 2 * latent_channels,
    channels_text="noisy and small latents",
)

UPSCALER = Family(
    name="upscaler",
    pipelines=("StableDiffusionUpscalePipeline",),
    classes=unet.CLASSES,
    text_encoders={"text_encoder": unet.CLIP},
    schedulers=("scheduler", "low_res_scheduler"),
    spaces={(0.08333, 4, 4): "sd-x4"},
    tasks={"super-resolution": Defaults(steps=75, guidance_scale=9.0, noise_level=20)},
    size_multiple=1,
    adapter="graphflow.nodes.diffusion.adapters.upscaler:Upscaler",
    denoiser_channels=lambda latent_channels: latent_channels + 3,
    channels_text="noisy latents and a small picture",
    single_file=SingleFileLayout(
        kinds={"x4-upscaler": lambda shapes: f"{unet.PREFIX}input_blocks.10.0.skip_connection.bias" in shapes},
        prefixes=(unet.PREFIX,),
        mark="input_blocks.0.0.weight",
        mismatches=unet.unet_mismatches,
    ),
    lora=unet.lora("StableDiffusionPipeline"),
)
