"""Stable Diffusion 3 and 3.5 (Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

__all__ = ["SD3", "T5"]

T5 = TextEncoder(tokenizer="tokenizer_3", window=256, prefixes=("text_encoders.t5xxl.transformer.",))
"""T5 with the window of Stable Diffusion 3; its configuration has no limit."""


def _recognised(blocks: int | None, places: int | None) -> Callable[[Shapes], bool]:
    """Recognise a transformer by its number of blocks, or by the size of its position embedding."""

    def recognised(shapes: Shapes) -> bool:
        for prefix in (unet.PREFIX, ""):
            if f"{prefix}joint_blocks.0.context_block.adaLN_modulation.1.bias" not in shapes:
                continue
            if f"{prefix}joint_blocks.37.x_block.mlp.fc1.weight" in shapes:
                return blocks == 38
            return shapes.get(f"{prefix}pos_embed", (1, 0, 0))[1] == places
        return False

    return recognised


@found_mismatches
def _mismatches(shapes: Shapes, config: Config) -> Iterator[Mismatch]:
    yield "width of it", size_of(shapes, "x_embedder.proj.weight", 0), heads_times_width(config)
    yield "number of its input channels", size_of(shapes, "x_embedder.proj.weight", 1), config["in_channels"]
    text = size_of(shapes, "context_embedder.weight", 1)
    yield "width of the text encoding it takes", text, config["joint_attention_dim"]
    yield "number of its blocks", numbered_parts(shapes, "joint_blocks."), config["num_layers"]


SD3 = Family(
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
    text_encoders={"text_encoder": unet.CLIP, "text_encoder_2": unet.OPEN_CLIP, "text_encoder_3": T5},
    spaces={(1.5305, 16, 8): "sd3"},
    tasks={
        "text-to-image": Defaults(steps=28, guidance_scale=7.0),
        "image-to-image": Defaults(steps=50, guidance_scale=7.0, strength=0.6),
    },
    size_multiple=16,
    image_multiple=16,
    sample_size=128,
    adapter="graphflow.nodes.diffusion.adapters.sd3:StableDiffusion3",
    encoder_kind="sd3",
    text_width=("transformer", "joint_attention_dim"),
    denoise_steps=begun_steps,
    # Other samplers solve another equation than that of a flow: DDIM would return nonsense without an error.
    samplers=frozenset(),
    # Both CLIP encoders are concatenated along the width, T5 to them along the tokens.
    denoiser_memory=TokenMemory(alive=lambda config: (12, 8), encoders=("text_encoder", "text_encoder_3")),
    single_file=SingleFileLayout(
        kinds={
            "stable-diffusion-3.5-large": _recognised(38, None),
            "stable-diffusion-3-medium": _recognised(None, 192**2),
            "stable-diffusion-3.5-medium": _recognised(None, 384**2),
        },
        prefixes=(unet.PREFIX, ""),
        mark="joint_blocks.0.x_block.attn.qkv.weight",
        mismatches=_mismatches,
    ),
    lora=LoraLayout(
        pipeline="StableDiffusion3Pipeline",
        foreign=r"down_blocks|input_blocks|double_blocks|single_blocks|single_transformer",
        attention=r"(attn_qkv|to_[qkv])$",
        width=heads_times_width,
    ),
)
