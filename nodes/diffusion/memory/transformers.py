"""Memory of transformers without their weights: text encoders, denoisers, the prior of Kandinsky.

A transformer keeps its tokens and works on them block by block, so its peak is that of one block, counted in tensors of
a token's width. The factors are measured (torch on the CPU, with torch's attention) and tested; those of a denoiser are
a part of its family (`TokenMemory`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphflow import Compute
from graphflow.nodes.diffusion.families.family import TokenMemory, heads_times_width
from graphflow.nodes.diffusion.memory.networks import ATTENTION, WIDTH

__all__ = ["denoiser_activations", "language_model_activations", "prior_activations", "t5_activations"]

PRIOR = 14
"""Tensors of a token's width alive in a block of the prior, for the tokens of the text and four more."""


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
    """Return the bytes that a T5 encoder needs for one prompt; it stores the scores of all pairs of tokens."""
    width, inner = int(config["d_model"]), int(config["d_ff"])
    scores = 2 * int(config["num_heads"]) * tokens * tokens
    positions = 2 * 8 * tokens * tokens  # relative positions: two tensors of 8 bytes per number
    return (max(scores, 3 * inner * tokens) + 4 * width * tokens) * WIDTH[compute.dtype] + positions


def language_model_activations(config: Mapping[str, Any], tokens: int, compute: Compute) -> int:
    """Return the bytes that a language model needs to encode one prompt, with the states of all layers kept.

    The feed-forward part is gated: two tensors of its inner width and their product are alive beside its input.
    """
    width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
    mask = tokens * tokens * (1 + (2 * heads if compute.attention == "eager" else 0))
    return (tokens * ((ATTENTION + layers) * width + 3 * inner) + mask) * WIDTH[compute.dtype]
