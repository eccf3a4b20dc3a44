"""Z-Image and Z-Image-Turbo (Tongyi-MAI 2025): a single-stream transformer with Qwen3 as its text encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
)
from graphflow.nodes.diffusion.families.shapes import Mismatch, found_mismatches, numbered_parts, size_of

__all__ = ["Z_IMAGE", "Z_IMAGE_TURBO"]


def _width(config: Config) -> int:
    return int(config["dim"])


def _recognised(shapes: Shapes) -> bool:
    """Recognise a transformer; both models have the same tensors, and a file is assumed to be the Turbo model."""
    first = "layers.0.adaLN_modulation.0.weight"
    return first in shapes or f"model.diffusion_model.{first}" in shapes


@found_mismatches
def _mismatches(shapes: Shapes, config: Config) -> Iterator[Mismatch]:
    yield "width of it", size_of(shapes, "x_embedder.weight", 0), _width(config)
    yield "number of its input channels", size_of(shapes, "x_embedder.weight", 1), 4 * config["in_channels"]
    yield "width of the text encoding it takes", size_of(shapes, "cap_embedder.1.weight", 1), config["cap_feat_dim"]
    yield "number of its blocks", numbered_parts(shapes, "layers."), config["n_layers"]


Z_IMAGE_TURBO = Family(
    name="z-image-turbo",
    pipelines=("ZImagePipeline", "ZImageImg2ImgPipeline"),
    classes={"transformer": "ZImageTransformer2DModel", "vae": "AutoencoderKL", "text_encoder": "Qwen3Model"},
    denoiser="transformer",
    text_encoders={"text_encoder": TextEncoder(tokenizer="tokenizer", window=512)},
    # The autoencoder is that of FLUX, so their latents are interchangeable.
    spaces={(0.3611, 16, 8): "flux"},
    tasks={
        "text-to-image": Defaults(steps=8, guidance_scale=0.0),
        "image-to-image": Defaults(steps=8, guidance_scale=0.0, strength=0.6),
    },
    size_multiple=16,
    image_multiple=16,
    sample_size=128,
    adapter="graphflow.nodes.diffusion.adapters.z_image:ZImage",
    encoder_kind="z-image",
    text_width=("transformer", "cap_feat_dim"),
    denoise_steps=begun_steps,
    # Its pipelines guide by pos + scale * (pos - neg), so guidance is off at 0, not at 1.
    guidance_threshold=0.0,
    # Other samplers solve another equation than that of a flow.
    samplers=frozenset(),
    denoiser_memory=TokenMemory(alive=lambda config: (17, 17), width=_width, encoders=("text_encoder",)),
    single_file=SingleFileLayout(
        kinds={"z-image-turbo": _recognised},
        prefixes=("model.diffusion_model.", ""),
        mark="layers.0.adaLN_modulation.0.weight",
        mismatches=_mismatches,
    ),
    lora=LoraLayout(
        pipeline="ZImagePipeline",
        foreign=r"down_blocks|input_blocks|double_blocks|single_blocks|joint_blocks|transformer_blocks",
        attention=r"attention_(qkv|to_[qkv])$",
        width=_width,
    ),
)

Z_IMAGE = replace(
    Z_IMAGE_TURBO,
    name="z-image",
    # The files of both are alike, but the schedule of this model, which is not distilled, has twice the shift.
    distinguished_by={"scheduler": {"shift": 6.0}},
    tasks={
        "text-to-image": Defaults(steps=50, guidance_scale=4.0),
        "image-to-image": Defaults(steps=50, guidance_scale=4.0, strength=0.6),
    },
    single_file=None,
)
