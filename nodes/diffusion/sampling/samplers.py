"""Samplers by name: their schedulers in diffusers, and their names in other programs.

A sampler is a method ("dpm++_2m") and, optionally, a noise schedule ("dpm++_2m_karras"), which distributes the steps
over the noise levels. Without it the scheduler configuration of the model does.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from graphflow import Problem, nearest
from graphflow.nodes.diffusion.models.model_info import ModelInfo

__all__ = ["DEFAULT", "SAMPLERS", "Sampler", "SamplerName", "canonical", "check_sampler", "steps_between"]

DEFAULT = "default"
"""The name of the model's own scheduler."""

_SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@dataclass(frozen=True, slots=True)
class Sampler:
    """A scheduler class of diffusers, and its changes to the model's own scheduler configuration."""

    method: str
    scheduler: str
    config: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Packages that are not installed with GraphFlow."""


@dataclass(frozen=True, slots=True)
class _Method:
    """A method of sampling, its names in other programs, and the noise schedules that it supports."""

    scheduler: str
    config: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_SPACINGS = ("trailing", "leading", "linspace")
_CURVES = ("karras", "exponential", "beta")
_ALL = (*_CURVES, *_SPACINGS)
_SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
_MULTISTEP = "DPMSolverMultistepScheduler"

_METHODS: Mapping[str, _Method] = {
    "ddim": _Method("DDIMScheduler", schedules=_SPACINGS),
    "ddpm": _Method("DDPMScheduler", schedules=_SPACINGS),
    "deis": _Method("DEISMultistepScheduler", schedules=_ALL),
    "dpm2": _Method("KDPM2DiscreteScheduler", names=("dpm_2",), schedules=_ALL),
    "dpm2_a": _Method("KDPM2AncestralDiscreteScheduler", names=("dpm_2_ancestral",), schedules=_ALL),
    "dpm++_2m": _Method(
        _MULTISTEP, {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}, schedules=_ALL
    ),
    "dpm++_2m_sde": _Method(_MULTISTEP, _SDE, schedules=_ALL),
    "dpm++_2m_sde_heun": _Method(_MULTISTEP, {**_SDE, "solver_type": "heun"}, schedules=_ALL),
    "dpm++_3m_sde": _Method(_MULTISTEP, {**_SDE, "solver_order": 3}, schedules=_ALL),
    "dpm++_2s": _Method(
        "DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
        schedules=_CURVES,
    ),
    "dpm++_sde": _Method("DPMSolverSDEScheduler", schedules=_ALL, needs=("torchsde", "scipy")),
    "euler": _Method("EulerDiscreteScheduler", schedules=_ALL),
    "euler_a": _Method("EulerAncestralDiscreteScheduler", names=("euler_ancestral",), schedules=_SPACINGS),
    "heun": _Method("HeunDiscreteScheduler", schedules=_ALL),
    "lcm": _Method("LCMScheduler"),
    "lms": _Method("LMSDiscreteScheduler", schedules=_ALL, needs=("scipy",)),
    # without Runge-Kutta steps at its start, as in every Stable Diffusion model
    "pndm": _Method("PNDMScheduler", {"skip_prk_steps": True}, names=("plms",), schedules=_SPACINGS),
    "unipc": _Method("UniPCMultistepScheduler", {"solver_type": "bh2"}, names=("uni_pc_bh2",), schedules=_ALL),
}  # fmt: skip

_SCHEDULE_NAMES = {
    "sgm_uniform": "trailing", "simple": "trailing", "ddim_uniform": "leading", "normal": "linspace",
    "uniform": "linspace", "k": "karras", **{name: name for name in _ALL},
}  # fmt: skip
"""Noise schedules by their names in ComfyUI, A1111 and InvokeAI."""

_NOWHERE = {
    "dpm++_2s_a": "dpm++_2s", "dpm++_2s_ancestral": "dpm++_2s", "dpm_fast": "dpm++_2s", "dpm_adaptive": "dpm++_2m",
    "restart": "heun", "ipndm": "pndm", "euler_cfg_pp": "euler", "heunpp2": "heun",
}  # fmt: skip
"""The nearest method to each sampler of other programs for which diffusers has no scheduler."""


def _samplers() -> Iterator[tuple[str, Sampler]]:
    for name, method in _METHODS.items():
        takes_curves = set(_CURVES) <= set(method.schedules)
        config = {**method.config, **(dict.fromkeys(_SIGMAS, False) if takes_curves else {})}
        yield name, Sampler(name, method.scheduler, config, method.needs)
        for schedule in method.schedules:
            change = {"timestep_spacing": schedule} if schedule in _SPACINGS else {f"use_{schedule}_sigmas": True}
            needs = (*method.needs, "scipy") if schedule == "beta" and "scipy" not in method.needs else method.needs
            yield f"{name}_{schedule}", Sampler(name, method.scheduler, {**config, **change}, needs)


SAMPLERS: Mapping[str, Sampler] = dict(_samplers())


def canonical(name: str) -> str:
    """Return the name in ``SAMPLERS`` of a sampler in any program's spelling; an unknown one unchanged.

    >>> canonical("DPM++ 2M Karras"), canonical("sample_euler_ancestral"), canonical("EulerDiscreteScheduler")
    ('dpm++_2m_karras', 'euler_a', 'euler')
    """
    return _spellings().get(_bare(name), name)


def _bare(name: str) -> str:
    """Remove the differences between programs from a name: case, separators, "pp" for "++", prefixes of k-diffusion."""
    return re.sub(r"[\s_\-/]", "", re.sub(r"^(sample_|k_)", "", name.strip().lower()).replace("pp", "++"))


@cache
def _spellings() -> Mapping[str, str]:
    found: dict[str, str] = {DEFAULT: DEFAULT}
    for name, method in _METHODS.items():
        found.setdefault(_bare(method.scheduler), name)
        for spelling in (name, *method.names):
            found.setdefault(_bare(spelling), name)
            for schedule, ours in _SCHEDULE_NAMES.items():
                if ours in method.schedules:
                    found.setdefault(_bare(f"{spelling}_{schedule}"), f"{name}_{ours}")
    return found


SamplerName = Annotated[
    str,
    AfterValidator(canonical),
    Field(description="euler, euler_a, dpm++_2m_karras, … also as other programs spell them; default: the model's own"),
]
"""A parameter that names a sampler. It holds the canonical name, so that two spellings are one cache key."""


def check_sampler(info: ModelInfo, name: str, steps: int | None = None) -> Iterator[Problem]:
    """Yield errors for a sampler that is unknown, not for the model, lacks a package, or supports fewer steps.

    ``steps`` is the length of the noise schedule, None where it is not known.
    """
    allowed = info.family.samplers
    known = _own(info) if name == DEFAULT else SAMPLERS.get(name)
    if known is None and name == DEFAULT:
        return
    if known is None:
        near = next((near for there, near in _NOWHERE.items() if _bare(name).startswith(_bare(there))), None)
        message = f'found the sampler "{name}", expected a known one'
        hint = f"diffusers has no scheduler for it; {near} is the nearest" if near else _offer(name, allowed)
        yield Problem("value.sampler", message, "sampler", hint)
        return
    if name != DEFAULT and allowed is not None and not {name, known.method} & allowed:
        message = f'found the sampler "{name}", which models of the family {info.family.name} cannot work with'
        yield Problem("value.sampler", message, "sampler", f"this model takes {_listed(allowed)}")
    absent = [package for package in known.needs if importlib.util.find_spec(package) is None]
    if absent:
        message = f'the sampler "{name}" needs {" and ".join(absent)}, which {"are" if absent[1:] else "is"} not here'
        hint = 'pip install "graphflow-diffusion[samplers]"'
        yield Problem("missing.package", message, "sampler", hint)
    longest = int(info.configs["scheduler"].get("original_inference_steps") or 50)
    if known.method == "lcm" and steps is not None and steps > longest:
        message = f"found {steps} steps with the sampler lcm, expected at most {longest}"
        yield Problem("value.sampler_steps", message, "steps", "a latent consistency model needs 2 to 8")


def _own(info: ModelInfo) -> Sampler | None:
    """Return the sampler of the model's own scheduler, None where it is none of `SAMPLERS`."""
    cls = str(info.configs["scheduler"].get("_class_name"))
    return next((sampler for sampler in SAMPLERS.values() if sampler.scheduler == cls), None)


def _offer(name: str, allowed: frozenset[str] | None) -> str:
    known = [DEFAULT, *(name for name, sampler in SAMPLERS.items() if allowed is None or sampler.method in allowed)]
    return nearest(name, known) or f"known here: {_listed(allowed)}"


def _listed(allowed: frozenset[str] | None) -> str:
    names = ", ".join([DEFAULT, *(sorted(allowed) if allowed is not None else _METHODS)])
    return f"{names}; most of them also with a noise schedule ({', '.join(_ALL)})" if allowed is None else names


_PLAIN = ("DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
"""Schedulers that visit one timestep per step, spaced by ``timestep_spacing`` alone."""


def steps_between(info: ModelInfo, sampler: str, steps: int, start: float | None, end: float | None) -> int | None:
    """Count the steps of a schedule of ``steps`` between two shares; None where only the scheduler can.

    A share is one of the timesteps that the model was trained on, like ``denoising_start`` and ``denoising_end`` of the
    SDXL pipelines, and is rounded as they do.
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
    """Return the timesteps that a plain scheduler visits, for its ``timestep_spacing`` (Lin et al. 2023, table 2)."""
    whole = "Euler" not in name  # Euler takes fractions of a timestep
    spacing = config.get("timestep_spacing", "leading" if whole else "linspace")
    if spacing == "linspace":
        even = [number * (trained - 1) / max(steps - 1, 1) for number in range(steps)]
        return [round(timestep) for timestep in even] if whole else even
    if spacing == "trailing":
        return [round(trained - number * trained / steps) - 1 for number in range(steps)]
    offset = int(config.get("steps_offset", 0))
    return [number * (trained // steps) + offset for number in range(steps)]
