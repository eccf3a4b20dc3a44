"""FLUX.1 dev and schnell (Black Forest Labs 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from graphflow.nodes.diffusion.families import unet
from graphflow.nodes.diffusion.families.family import (
    Config,
    Defaults,
    Family,
    LoraLayout,
    Shapes,
    SingleFileLayout,
    TextEncoder,
    TokenMemory,
    begun_steps,
    heads_times_width,
)
from graphflow.nodes.diffusion.families.shapes import Mismatch, found_mismatches, numbered_parts, size_of

__all__ = ["FLUX", "FLUX_SCHNELL"]

_T5 = TextEncoder(tokenizer="tokenizer_2", window=512, prefixes=("text_encoders.t5xxl.transformer.",))


def _recognised(*, guided: bool) -> Callable[[Shapes], bool]:
    """Recognise a transformer, with an input for the guidance scale (dev) or without (schnell)."""

    def recognised(shapes: Shapes) -> bool:
        for prefix in (unet.PREFIX, ""):
            if f"{prefix}double_blocks.0.img_attn.norm.key_norm.scale" in shapes:
                return (f"{prefix}guidance_in.in_layer.bias" in shapes) == guided
        return False

    return recognised


@found_mismatches
def _mismatches(shapes: Shapes, config: Config) -> Iterator[Mismatch]:
    yield "width of it", size_of(shapes, "img_in.weight", 0), heads_times_width(config)
    yield "number of its input channels", size_of(shapes, "img_in.weight", 1), config["in_channels"]
    yield "width of the text encoding it takes", size_of(shapes, "txt_in.weight", 1), config["joint_attention_dim"]
    yield "number of its double blocks", numbered_parts(shapes, "double_blocks."), config["num_layers"]
    yield "number of its single blocks", numbered_parts(shapes, "single_blocks."), config["num_single_layers"]


def _alive(config: Config) -> tuple[int, int]:
    """Count tensors in a block: single blocks process picture and text as one sequence, double blocks apart."""
    tensors = 16 if config.get("num_single_layers", 38) else 13
    return tensors, tensors


def _single_file(kind: str, *, guided: bool) -> SingleFileLayout:
    return SingleFileLayout(
        kinds={kind: _recognised(guided=guided)},
        prefixes=(unet.PREFIX, ""),
        mark="double_blocks.0.img_attn.qkv.weight",
        mismatches=_mismatches,
    )


FLUX = Family(
    name="flux",
    pipelines=("FluxPipeline", "FluxImg2ImgPipeline"),
    classes={
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
    },
    denoiser="transformer",
    distinguished_by={"transformer": {"guidance_embeds": True}},
    text_encoders={"text_encoder": unet.CLIP, "text_encoder_2": _T5},
    spaces={(0.3611, 16, 8): "flux"},
    tasks={
        "text-to-image": Defaults(steps=28, guidance_scale=3.5),
        "image-to-image": Defaults(steps=28, guidance_scale=7.0, strength=0.6),
    },
    size_multiple=16,
    image_multiple=16,
    sample_size=128,
    adapter="graphflow.nodes.diffusion.adapters.flux:Flux",
    encoder_kind="flux",
    text_width=("transformer", "joint_attention_dim"),
    denoiser_channels=lambda latent_channels: 4 * latent_channels,
    channels_text="squares of 2 x 2 latent cells",
    denoise_steps=begun_steps,
    guidance="distilled",
    # Its pipelines pass arguments to the scheduler that other schedulers do not take.
    samplers=frozenset(),
    denoiser_memory=TokenMemory(alive=_alive, encoders=("text_encoder_2",)),
    single_file=_single_file("flux-dev", guided=True),
    lora=LoraLayout(
        pipeline="FluxPipeline",
        foreign=r"down_blocks|input_blocks|joint_blocks|context_block",
        attention=r"(attn_qkv|to_[qkv])$",
        width=heads_times_width,
        options=frozenset({"return_alphas"}),
    ),
)

# schnell: as dev, but it takes no guidance and few steps.
FLUX_SCHNELL = replace(
    FLUX,
    name="flux-schnell",
    distinguished_by={"transformer": {"guidance_embeds": False}},
    text_encoders={"text_encoder": unet.CLIP, "text_encoder_2": replace(_T5, window=256)},
    tasks={
        "text-to-image": Defaults(steps=4, guidance_scale=0.0),
        "image-to-image": Defaults(steps=4, guidance_scale=0.0, strength=0.6),
    },
    guidance="none",
    single_file=_single_file("flux-schnell", guided=False),
)
