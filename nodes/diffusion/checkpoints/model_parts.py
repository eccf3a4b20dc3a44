"""The parts of a reference that change a model: another VAE, LoRAs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphflow import Problem
from graphflow.nodes.diffusion.checkpoints.location import locate, model_problem
from graphflow.nodes.diffusion.checkpoints.lora_file import LoraFile, open_lora
from graphflow.nodes.diffusion.checkpoints.model_files import (
    AppliedLora,
    Component,
    UnusableError,
    component_in,
    read_json,
)
from graphflow.nodes.diffusion.checkpoints.model_reference import LoraReference, ModelReference, parse_reference
from graphflow.nodes.diffusion.checkpoints.single_file import vae_of_file
from graphflow.nodes.diffusion.families import Family

__all__ = [
    "part_files",
    "part_names",
    "part_problem",
    "peft_is_installed",
    "scaling_factor",
    "single_parts",
    "with_loras",
    "with_vae",
]


def with_vae(
    model: str, reference: str, own: Component, cls: str, config: Mapping[str, Any]
) -> tuple[Component, dict[str, Any]]:
    """Return the VAE that replaces a model's ``own`` (of class ``cls``), and its configuration.

    Latents keep their space, so scaling factor, shift, channels and pixels per cell must be equal. Raises
    UnusableError.
    """
    if cls != "AutoencoderKL":
        message = f'the model "{model}" has a {cls}, which no other VAE can stand in for'
        raise UnusableError(model_problem("model.vae", message, "leave the part vae: out"))
    found = locate(reference, "VAE")
    if isinstance(found, Problem):
        raise UnusableError(found)
    if found.is_file():
        return vae_of_file(reference, found, own.files[0]), dict(config)
    if not (found / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in found.iterdir())[:6]) or "nothing"
        message = f'the folder of the VAE "{reference}" has no config.json (it holds {held}); expected an AutoencoderKL'
        raise UnusableError(
            model_problem("model.vae", message, "give the folder that holds config.json and the weights")
        )
    theirs = read_json(reference, found / "config.json")
    if theirs.get("_class_name") != "AutoencoderKL":
        message = f'the VAE "{reference}" is {theirs.get("_class_name")}, expected AutoencoderKL'
        raise UnusableError(model_problem("model.vae", message, "choose another VAE"))
    for what, ours, other in zip(_KIND, _kind_of(config), _kind_of(theirs), strict=True):
        if ours != other:
            message = f'the VAE "{reference}" makes another kind of latents: found {what} {other:g}, expected {ours:g}'
            hint = f'choose a VAE that was made for the family of "{model}"'
            raise UnusableError(model_problem("model.vae", message, hint))
    return component_in(reference, found), theirs


def scaling_factor(autoencoder: Mapping[str, Any]) -> float:
    """Return the scaling factor in the configuration of an autoencoder; older Stable Diffusion folders leave it out."""
    return float(autoencoder.get("scaling_factor") or 0.18215)


_KIND = ("a scaling factor of", "a shift of", "channels:", "pixels a cell:")


def _kind_of(config: Mapping[str, Any]) -> tuple[float, float, float, float]:
    factor, shift = round(scaling_factor(config), 5), float(config.get("shift_factor") or 0)
    return factor, shift, int(config.get("latent_channels", 4)), 2 ** (len(config["block_out_channels"]) - 1)


def with_loras(
    model: str,
    loras: tuple[LoraReference, ...],
    family: Family,
    pipeline: str,
    classes: Mapping[str, str],
    components: Mapping[str, Component],
    configs: Mapping[str, Mapping[str, Any]],
) -> dict[str, Component]:
    """Return the components of a model with LoRAs added to those that they change. Raises UnusableError.

    A LoRA with weight 0 is checked like any other and then left out, so that the result shares the base's digests.
    """
    layout = family.lora
    if layout is None:
        message = f'the model "{model}" is made for {pipeline}, for which there are no LoRAs'
        raise UnusableError(model_problem("model.lora", message, "leave the part lora: out"))
    changed = dict(components)
    for lora in loras:
        file: LoraFile = open_lora(lora.reference)
        problem = file.misfit(model, family, classes, components, configs)
        if problem:
            raise UnusableError(problem)
        if lora.weight == 0:
            continue
        if not peft_is_installed():
            message = f'the LoRA "{lora.reference}" needs the package peft, which is not installed'
            raise UnusableError(model_problem("missing.peft", message, 'pip install "graphflow-diffusion[lora]"'))
        applied = AppliedLora(file.path, lora.weight, layout)
        for name, component in changed.items():
            if file.changes(name):
                changed[name] = replace(component, loras=(*component.loras, applied))
    return changed


def peft_is_installed() -> bool:
    """Return whether peft is installed, which diffusers needs for LoRAs."""
    return importlib.util.find_spec("peft") is not None


def single_parts(parsed: ModelReference) -> tuple[str, ...]:
    """Return one reference per part, each the base with that part alone, so that each can be checked on its own."""
    parts = [f"vae:{parsed.vae}"] if parsed.vae else []
    parts += [f"lora:{lora.reference}*{lora.weight:g}" for lora in parsed.loras]
    return tuple(f"{parsed.base} + {part}" for part in parts)


def part_problem(reference: str) -> Problem | None:
    """Return the problem with the parts of a reference, whatever its base; None where there is none."""
    parsed = parse_reference(reference)
    if not isinstance(parsed, ModelReference):
        return parsed[0]
    try:
        for lora in parsed.loras:
            open_lora(lora.reference)
    except UnusableError as unusable:
        return unusable.problem
    found = locate(parsed.vae, "VAE") if parsed.vae else None
    return found if isinstance(found, Problem) else None


def part_names(parsed: ModelReference) -> list[tuple[str, str]]:
    """Return the base and the parts of a reference, each with its noun in messages: model, VAE or LoRA."""
    vae = [(parsed.vae, "VAE")] if parsed.vae else []
    return [(parsed.base, "model"), *vae, *((lora.reference, "LoRA") for lora in parsed.loras)]


def part_files(parsed: ModelReference) -> tuple[Path, ...]:
    """Return the files or folders of the parts of a reference, without those that are missing."""
    found = [locate(name, noun) for name, noun in part_names(parsed)[1:]]
    return tuple(path for path in found if isinstance(path, Path))
