"""Noise of each item of a batch, from a fresh generator on the CPU whatever the compute device."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from graphflow.nodes.diffusion.shared.adapters import Sampling

__all__ = ["generators_for", "generators_from"]


def generators_from(seeds: Iterable[int]) -> list[torch.Generator]:
    """Return a fresh CPU generator for each seed."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def generators_for(latents: torch.Tensor, sampling: Sampling) -> list[torch.Generator]:
    """Return the generators of the noise to add to latents.

    With ``sampling.after_encoding`` they are advanced past the draw that sampled the latents from the same seeds.
    """
    generators = generators_from(sampling.seeds)
    if sampling.after_encoding:
        for generator in generators:
            torch.randn((1, *latents.shape[1:]), generator=generator)
    return generators
