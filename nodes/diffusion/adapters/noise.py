"""Noise for each item of a batch: a fresh generator on the CPU, whatever the device computes on."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from graphflow.nodes.diffusion.shared.adapters import Sampling

__all__ = ["generators_for", "generators_from"]


def generators_from(seeds: Iterable[int]) -> list[torch.Generator]:
    """A fresh CPU generator for each item of a batch."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def generators_for(latents: torch.Tensor, sampling: Sampling) -> list[torch.Generator]:
    """Generators for noise on latents, past what ``encode_image`` drew from the same seeds to sample them."""
    generators = generators_from(sampling.seeds)
    if sampling.after_encoding:
        for generator in generators:
            torch.randn((1, *latents.shape[1:]), generator=generator)
    return generators
