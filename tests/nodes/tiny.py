"""Tiny random checkpoints of the real architectures: same classes and channel layout, small widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from graphflow.nodes.diffusion.model_info import require_model
from graphflow.nodes.diffusion.models import quiet
from tests.nodes.conftest import diffusers, transformers

WIDTH = 32
"""Width of the first CLIP text encoder."""


def save(folder: Path, build: Any, seed: int = 0) -> Path:
    """Builds a pipeline with a fixed seed and saves it in the layout of diffusers."""
    torch.manual_seed(seed)
    with quiet():
        build().save_pretrained(folder)
    return folder


def tokenizer() -> Any:
    """The pocket model's: a true CLIP tokenizer with few words."""
    return transformers().CLIPTokenizer.from_pretrained(str(require_model("pocket").folder / "tokenizer"))


def text_encoder(width: int = WIDTH, *, projected: bool = False, activation: str = "quick_gelu") -> Any:
    library, words = transformers(), tokenizer()
    config = library.CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, projection_dim=width, hidden_act=activation,
    )  # fmt: skip
    return (library.CLIPTextModelWithProjection if projected else library.CLIPTextModel)(config).eval()


def autoencoder(**config: Any) -> Any:
    """Cells of 8 pixels."""
    return diffusers().AutoencoderKL(
        **{
            "block_out_channels": (8, 8, 8, 8), "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4, "norm_num_groups": 4, "layers_per_block": 1, **config,
        }
    )  # fmt: skip


def unet(width: int, **config: Any) -> Any:
    return diffusers().UNet2DConditionModel(
        **{
            "sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": width,
            "attention_head_dim": 4, **config,
        }
    )  # fmt: skip


SDXL_UNET: dict[str, Any] = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "attention_head_dim": (2, 4),
    "use_linear_projection": True, "transformer_layers_per_block": (1, 2),
}  # fmt: skip
POOLED = 40
"""Width of the second text encoder of SDXL."""


def sdxl(folder: Path, *, seed: int = 0) -> Path:
    """A base: two text encoders, Euler in steps of "leading" spacing, zeros for no negative prompt."""
    library = diffusers()

    def build() -> Any:
        return library.StableDiffusionXLPipeline(
            vae=autoencoder(scaling_factor=0.13025, force_upcast=True),
            text_encoder=text_encoder(),
            text_encoder_2=text_encoder(POOLED, projected=True, activation="gelu"),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet(WIDTH + POOLED, **SDXL_UNET, projection_class_embeddings_input_dim=POOLED + 6 * 8),
            scheduler=euler(),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )

    return save(folder, build, seed)


def sdxl_refiner(folder: Path, base: Path) -> Path:
    """A refiner with the autoencoder and the second text encoder of ``base``."""
    library = diffusers()

    def build() -> Any:
        parts = library.StableDiffusionXLPipeline.from_pretrained(str(base))
        return library.StableDiffusionXLImg2ImgPipeline(
            vae=parts.vae, text_encoder=None, tokenizer=None, text_encoder_2=parts.text_encoder_2,
            tokenizer_2=parts.tokenizer_2, scheduler=euler(), requires_aesthetics_score=True,
            force_zeros_for_empty_prompt=False, add_watermarker=False,
            unet=unet(POOLED, **SDXL_UNET, projection_class_embeddings_input_dim=POOLED + 5 * 8),
        )  # fmt: skip

    return save(folder, build, 3)


def euler() -> Any:
    """The scheduler that SDXL ships with."""
    return diffusers().EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
