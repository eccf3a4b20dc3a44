"""Samplers by name: which diffusers scheduler each one is. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphflow import Problem
from graphflow.errors import nearest

__all__ = ["DEFAULT", "SAMPLERS", "Sampler", "check_sampler"]

DEFAULT = "default"
"""The scheduler that the model's own folder names."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler class of diffusers, and what it changes in the model's own scheduler configuration."""

    scheduler: str
    config: Mapping[str, Any] = field(default_factory=dict)


SAMPLERS: Mapping[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler"),
    "ddpm": Sampler("DDPMScheduler"),
    "dpm++_2m": Sampler("DPMSolverMultistepScheduler", {"use_karras_sigmas": False}),
    "dpm++_2m_karras": Sampler("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "euler": Sampler("EulerDiscreteScheduler"),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler"),
    "heun": Sampler("HeunDiscreteScheduler"),
    # without its Runge-Kutta start, as every Stable Diffusion model ships it
    "pndm": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": Sampler("UniPCMultistepScheduler"),
}


def check_sampler(name: str) -> Problem | None:
    """The problem with a sampler's name, None if it is known."""
    if name == DEFAULT or name in SAMPLERS:
        return None
    known = [DEFAULT, *SAMPLERS]
    hint = nearest(name, known) or "known here: " + ", ".join(known)
    return Problem("value.sampler", f'found the sampler "{name}", expected a known one', field="sampler", hint=hint)
