"""A Stable Diffusion 1.5 of full size with random weights, saved as a folder in the layout of diffusers, in float32."""

from __future__ import annotations

import math
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from graphflow.nodes.diffusion.loading.components import quiet
from graphflow.nodes.diffusion.models.model_info import require_model

__all__ = ["full_size_model", "models_folder"]


def models_folder(stack: ExitStack) -> Path:
    """Where models are made: a folder that is gone when ``stack`` ends, or what GRAPHFLOW_BENCHMARK_MODELS names."""
    named = os.environ.get("GRAPHFLOW_BENCHMARK_MODELS")
    return Path(named or stack.enter_context(tempfile.TemporaryDirectory(prefix="graphflow-models-")))


def full_size_model(folder: Path, seed: int = 0) -> Path:
    """The folder, filled with 4.3 GB unless it is already: a UNet of 860 million parameters, a text encoder, a VAE."""
    if not (folder / "model_index.json").is_file():
        torch.manual_seed(seed)
        library: Any = diffusers
        tokenizer = transformers.CLIPTokenizer.from_pretrained(str(require_model("pocket").folder / "tokenizer"))
        with quiet():
            _pipeline(library, tokenizer).save_pretrained(folder)
    return folder


def _pipeline(library: Any, tokenizer: Any) -> Any:
    with torch.device("meta"):
        unet = library.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = library.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text_encoder = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            )
        )  # fmt: skip
    return library.StableDiffusionPipeline(
        unet=_filled(unet), vae=_filled(vae), text_encoder=_filled(text_encoder), tokenizer=tokenizer,
        scheduler=library.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@torch.no_grad()
def _filled(network: torch.nn.Module) -> torch.nn.Module:
    """A network on the device "meta", given random weights under which values neither grow nor vanish."""
    network = network.to_empty(device="cpu").eval()
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            bound = math.sqrt(3 / parameter[0].numel())
            parameter.uniform_(-bound, bound)
        else:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return network
