"""What transformers need beside their weights: T5, the denoisers of SD3 and FLUX, the prior of Kandinsky. No torch.

A transformer keeps its tokens and works on them block by block, so its peak is that of one block: so many tensors of a
token's width. The factors are measured (torch on the CPU, attention of torch's own), and tests hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphflow import Compute
from graphflow.nodes.diffusion.memory.networks import WIDTH

__all__ = ["DENOISERS", "denoiser_activations", "prior_activations", "t5_activations"]

DENOISERS = ("SD3Transformer2DModel", "FluxTransformer2DModel")

SD3_IMAGE, SD3_TEXT = 12, 8
"""Tensors of a token's width alive in a block of SD3, for tokens of the picture and of the text."""
FLUX_DOUBLE, FLUX_SINGLE = 13, 16
"""The same in the blocks of FLUX that treat picture and text apart, and in those that treat them together."""
PRIOR = 14
"""The same in the prior, whose tokens are the text's and four more."""


def denoiser_activations(
    cls: str, config: Mapping[str, Any], rows: int, columns: int, text: int, items: int, compute: Compute
) -> int:
    """Bytes that a denoiser of class ``cls`` needs for ``items`` latents of ``rows`` x ``columns`` cells.

    ``text`` is the number of tokens of a prompt. Two by two cells are a token.
    """
    image = -(-rows // 2) * -(-columns // 2)
    if cls == "FluxTransformer2DModel":
        kept = (image + text) * (FLUX_SINGLE if config.get("num_single_layers", 38) else FLUX_DOUBLE)
    else:
        kept = SD3_IMAGE * image + SD3_TEXT * text
    return kept * _width(config) * items * WIDTH[compute.dtype]


def prior_activations(config: Mapping[str, Any], items: int, compute: Compute) -> int:
    """Bytes that a prior needs for ``items`` embeddings."""
    tokens = int(config.get("num_embeddings", 77)) + int(config.get("additional_embeddings", 4))
    return PRIOR * tokens * _width(config) * items * WIDTH[compute.dtype]


def t5_activations(config: Mapping[str, Any], tokens: int, compute: Compute) -> int:
    """Bytes that a T5 encoder needs for one prompt. The scores of all pairs of tokens are written out."""
    width, inner = int(config["d_model"]), int(config["d_ff"])
    scores = 2 * int(config["num_heads"]) * tokens * tokens
    places = 2 * 8 * tokens * tokens  # of 8 bytes each
    return (max(scores, 3 * inner * tokens) + 4 * width * tokens) * WIDTH[compute.dtype] + places


def _width(config: Mapping[str, Any]) -> int:
    return int(config["num_attention_heads"]) * int(config["attention_head_dim"])
