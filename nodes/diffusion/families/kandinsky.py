"""Kandinsky 2.2 (Razzhigaev et al. 2023): a prior and a decoder, in two repositories."""

from __future__ import annotations

from graphflow.nodes.diffusion.families.family import Defaults, Family, TextEncoder

__all__ = ["KANDINSKY"]

KANDINSKY = Family(
    name="kandinsky-2.2",
    pipelines=("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline"),
    classes={
        "unet": "UNet2DConditionModel",
        "movq": "VQModel",
        "prior": "PriorTransformer",
        "text_encoder": "CLIPTextModelWithProjection",
        "image_encoder": "CLIPVisionModelWithProjection",
    },
    text_encoders={"text_encoder": TextEncoder(tokenizer="tokenizer")},
    schedulers=("scheduler", "prior_scheduler"),
    prior={name: name for name in ("prior", "text_encoder", "image_encoder", "tokenizer")}
    | {"prior_scheduler": "scheduler"},
    autoencoder="movq",
    # The pipelines apply no scaling factor, although the configuration of the autoencoder has one.
    spaces="movq",
    tasks={
        "text-to-image": Defaults(steps=100, guidance_scale=4.0),
        "image-to-image": Defaults(steps=100, guidance_scale=4.0, strength=0.3),
    },
    size_multiple=64,
    samples_encoding=False,
    adapter="graphflow.nodes.diffusion.adapters.kandinsky:Kandinsky",
    encoder_kind="kandinsky-2.2",
    text_width=("unet", "encoder_hid_dim"),
    # Its pipelines do not scale the input of the UNet, as Euler requires, and pass a generator to each step.
    samplers=frozenset({"ddim", "ddpm", "dpm++_2m", "dpm++_2m_sde", "dpm++_2s"}),
)
