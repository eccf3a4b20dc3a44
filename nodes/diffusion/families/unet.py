"""Facts that the families with a UNet and CLIP text encoders share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphflow.nodes.diffusion.families.family import LoraLayout, Shapes, TextEncoder
from graphflow.nodes.diffusion.families.shapes import Mismatch, found_mismatches, numbered_parts, size_of

__all__ = ["CLASSES", "CLIP", "OPEN_CLIP", "PREFIX", "SECOND_ENCODER", "TEXT_ATTENTION", "lora", "unet_mismatches"]

CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "text_encoder": "CLIPTextModel"}
SECOND_ENCODER = {"text_encoder_2": "CLIPTextModelWithProjection"}

PREFIX = "model.diffusion_model."
"""Beginning of the names of a denoiser's tensors in the original layouts."""

TEXT_ATTENTION = f"{PREFIX}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"

CLIP = TextEncoder(
    tokenizer="tokenizer",
    prefixes=(
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
        "text_encoders.clip_l.transformer.",
    ),
)
OPEN_CLIP = TextEncoder(
    tokenizer="tokenizer_2",
    prefixes=(
        "conditioner.embedders.1.model.",
        "conditioner.embedders.0.model.",
        "text_encoders.clip_g.transformer.",
    ),
)


def lora(pipeline: str) -> LoraLayout:
    """Describe the LoRAs of a family with a UNet; ``pipeline`` is the class of diffusers that reads them."""
    return LoraLayout(
        pipeline=pipeline,
        foreign=r"double_blocks|single_blocks|joint_blocks|^transformer_blocks|single_transformer",
        options=frozenset({"unet_config"} if pipeline == "StableDiffusionXLPipeline" else ()),
    )


@found_mismatches
def unet_mismatches(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Compare widths and counts of a UNet in the original layout with its configuration."""
    widths, layers = config["block_out_channels"], config.get("layers_per_block", 2)
    yield "width of its first block", size_of(shapes, "input_blocks.0.0.weight", 0), widths[0]
    yield "number of its input channels", size_of(shapes, "input_blocks.0.0.weight", 1), config["in_channels"]
    yield "number of its output channels", size_of(shapes, "out.2.weight", 0), config.get("out_channels", 4)
    yield "width of its last block", size_of(shapes, "middle_block.0.in_layers.2.weight", 0), widths[-1]
    if isinstance(layers, int):
        yield "number of its input blocks", numbered_parts(shapes, "input_blocks."), len(widths) * (layers + 1)
    text = next((shape[-1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), None)
    # A UNet without cross-attention has nothing to compare.
    yield "width of the text encoding it takes", text, config.get("cross_attention_dim", 1280)
