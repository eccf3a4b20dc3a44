"""The memory of transformers beside their weights: text encoders, denoisers, the prior of Kandinsky. Imports no torch.

A transformer keeps its tokens and works on them block by block, so its peak is that of one block: so many tensors of a
token's width. The factors are measured (torch on the CPU, attention of torch's own), and tests hold them; those of a
denoiser stand with its family (`TokenMemory`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphflow import Compute
from graphflow.nodes.diffusion.families.family import TokenMemory, heads_times_width
from graphflow.nodes.diffusion.memory.networks import ATTENTION, WIDTH

__all__ = ["denoiser_activations", "language_model_activations", "prior_activations", "t5_activations"]

PRIOR = 14
"""Tensors of a token's width alive in a block of the prior, whose tokens are the text's and four more."""


def denoiser_activations(
    memory: TokenMemory, config: Mapping[str, Any], rows: int, columns: int, text: int, items: int, compute: Compute
) -> int:
    """Return the bytes that a denoiser needs for ``items`` latents of ``rows`` x ``columns`` cells.

    ``text`` is the number of tokens of a prompt.
    """
    image = -(-rows // memory.patch) * -(-columns // memory.patch)
    of_image, of_text = memory.alive(config)
    return (of_image * image + of_text * text) * memory.width(config) * items * WIDTH[compute.dtype]


def prior_activations(config: Mapping[str, Any], items: int, compute: Compute) -> int:
    """Return the bytes that a prior needs for ``items`` embeddings."""
    tokens = int(config.get("num_embeddings", 77)) + int(config.get("additional_embeddings", 4))
    return PRIOR * tokens * heads_times_width(config) * items * WIDTH[compute.dtype]


def t5_activations(config: Mapping[str, Any], tokens: int, compute: Compute) -> int:
    """Return the bytes that a T5 encoder needs for one prompt. The scores of all pairs of tokens are written out."""
    width, inner = int(config["d_model"]), int(config["d_ff"])
    scores = 2 * int(config["num_heads"]) * tokens * tokens
    places = 2 * 8 * tokens * tokens  # of 8 bytes each
    return (max(scores, 3 * inner * tokens) + 4 * width * tokens) * WIDTH[compute.dtype] + places


def language_model_activations(config: Mapping[str, Any], tokens: int, compute: Compute) -> int:
    """Return the bytes that a language model needs which encodes one prompt; the states of all layers are kept.

    The feed-forward part is gated: beside its input stand two tensors of its inner width and their product.
    """
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
    mask = tokens * tokens * (1 + (2 * heads if compute.attention == "eager" else 0))
    return (tokens * ((ATTENTION + layers) * width + 3 * inner) + mask) * WIDTH[compute.dtype]
