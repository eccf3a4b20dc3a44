"""How many steps lie in a part of a noise schedule, told without the scheduler. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT, SAMPLERS

__all__ = ["steps_between"]

_PLAIN = ("DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
"""Schedulers that visit one timestep a step, spaced by nothing but ``timestep_spacing``."""


def steps_between(info: ModelInfo, sampler: str, steps: int, start: float | None, end: float | None) -> int | None:
    """Steps of a schedule of ``steps`` between two shares of it; None where only the scheduler itself can tell.

    A share is a share of the timesteps that the model was trained on, as the SDXL pipelines take ``denoising_start``
    and ``denoising_end``; it is rounded as they round it.
    """
    config = dict(info.configs["scheduler"])
    name = str(config.get("_class_name"))
    if sampler != DEFAULT:
        name, config = SAMPLERS[sampler].scheduler, config | dict(SAMPLERS[sampler].config)
    if name not in _PLAIN or any(config.get(f"use_{kind}_sigmas") for kind in ("karras", "exponential", "beta")):
        return None
    trained = int(config.get("num_train_timesteps", 1000))
    visited = _timesteps(name, config, steps, trained)
    first = 0 if end is None else round(trained - end * trained)
    last = trained if start is None else round(trained - start * trained)
    return sum(first <= timestep < last for timestep in visited)


def _timesteps(name: str, config: Mapping[str, Any], steps: int, trained: int) -> list[float]:
    """The timesteps that a plain scheduler visits, for its ``timestep_spacing`` (Lin et al. 2023, table 2)."""
    whole = "Euler" not in name  # Euler takes fractions of a timestep
    spacing = config.get("timestep_spacing", "leading" if whole else "linspace")
    if spacing == "linspace":
        even = [number * (trained - 1) / max(steps - 1, 1) for number in range(steps)]
        return [round(timestep) for timestep in even] if whole else even
    if spacing == "trailing":
        return [round(trained - number * trained / steps) - 1 for number in range(steps)]
    offset = int(config.get("steps_offset", 0))
    return [number * (trained // steps) + offset for number in range(steps)]
