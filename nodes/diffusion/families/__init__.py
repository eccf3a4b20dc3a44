"""The families of pipelines that GraphFlow runs: all facts about each that need no torch.

A family is one `Family` in a module of this package and one adapter, a class that satisfies `Adapter` and the protocols
of the family's tasks. The adapter imports torch and diffusers; it is imported when a step runs, never to validate a
workflow. A distribution offers families of its own with::

    [project.entry-points."graphflow.families"]
    my_pack = "my_package.my_families"

Every `Family` that is an attribute of that module is one of them. They precede the built-in ones, so that a pack can
run a pipeline with an adapter of its own.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from graphflow import NodeDefinitionError
from graphflow.nodes.diffusion.families.family import (
    PROMPT_PARAMETERS,
    Config,
    Defaults,
    Family,
    LoraLayout,
    Shapes,
    SingleFileLayout,
    Task,
    Tasks,
    TextEncoder,
    TokenMemory,
    begun_steps,
    cut_steps,
)
from graphflow.nodes.diffusion.families.flux import FLUX, FLUX_SCHNELL
from graphflow.nodes.diffusion.families.kandinsky import KANDINSKY
from graphflow.nodes.diffusion.families.sd3 import SD3
from graphflow.nodes.diffusion.families.sdxl import SDXL, SDXL_REFINER
from graphflow.nodes.diffusion.families.stable_diffusion import STABLE_DIFFUSION
from graphflow.nodes.diffusion.families.upscalers import LATENT_UPSCALER, UPSCALER
from graphflow.nodes.diffusion.families.z_image import Z_IMAGE, Z_IMAGE_TURBO
from graphflow.registry import import_packs

__all__ = [
    "BUILT_IN",
    "ENTRY_POINT_GROUP",
    "PROMPT_PARAMETERS",
    "Config",
    "Defaults",
    "Family",
    "LoraLayout",
    "Shapes",
    "SingleFileLayout",
    "Task",
    "Tasks",
    "TextEncoder",
    "TokenMemory",
    "adapter_record",
    "all_families",
    "begun_steps",
    "class_of",
    "cut_steps",
    "families_for",
    "family_of",
]

ENTRY_POINT_GROUP = "graphflow.families"

BUILT_IN: tuple[Family, ...] = (
    STABLE_DIFFUSION,
    SDXL,
    SDXL_REFINER,
    KANDINSKY,
    SD3,
    FLUX,
    FLUX_SCHNELL,
    Z_IMAGE,
    Z_IMAGE_TURBO,
    LATENT_UPSCALER,
    UPSCALER,
)


@cache
def all_families() -> tuple[Family, ...]:
    """Return the families of packs and then the built-in ones, read once per process.

    Raises NodeDefinitionError for a pack that cannot be imported, and for two families of one name.
    """
    families = (*_families_of_packs(), *BUILT_IN)
    names: dict[str, Family] = {}
    for family in families:
        known = names.setdefault(family.name, family)
        if known is not family:
            raise NodeDefinitionError(
                f"two families are called '{family.name}', run by {known.adapter} and {family.adapter}; give one of "
                "them another name"
            )
    return families


def _families_of_packs() -> Iterator[Family]:
    for module in import_packs(ENTRY_POINT_GROUP, "the families"):
        found = {id(value): value for value in vars(module).values() if isinstance(value, Family)}
        yield from (family for family in found.values() if not any(family is each for each in BUILT_IN))


def family_of(index: Mapping[str, Any], config_of: Callable[[str], Config] | None = None) -> Family | None:
    """Find the family of a ``model_index.json``: the first with its pipeline and no component that it lacks.

    If no family fits, it is the first with that pipeline; None for a pipeline of no family. ``config_of`` returns the
    configuration of a component; without it the first is returned of families that differ in configurations only.
    """
    pipeline = str(index.get("_class_name"))
    candidates = [family for family in all_families() if pipeline in family.pipelines]
    for family in candidates:
        if all(class_of(index, name) for name in family.classes) and (
            config_of is None or all(_has(config_of(name), values) for name, values in family.distinguished_by.items())
        ):
            return family
    return candidates[0] if candidates else None


def _has(config: Config, values: Config) -> bool:
    """Return whether a configuration has some values; an absent entry counts as False."""
    return all(config.get(key, False) == value for key, value in values.items())


def class_of(index: Mapping[str, Any], component: str) -> str | None:
    """Return the class of a component in a ``model_index.json``, None where it has none."""
    found = index.get(component)
    return str(found[-1]) if isinstance(found, list) and found and found[-1] is not None else None


@cache
def _digest_of_module(name: str) -> str | None:
    """Return the SHA-256 (hex) of the file of a module, without importing it; None where it has none."""
    spec = importlib.util.find_spec(name)
    file = Path(spec.origin) if spec and spec.origin else None
    return hashlib.sha256(file.read_bytes()).hexdigest() if file and file.is_file() else None


def adapter_record(family: Family) -> dict[str, Any]:
    """Return the record of a family's adapter in cache keys, which is empty for a built-in one.

    Changes of a built-in adapter change the versions of the nodes; those of a pack's do not, so its file is a part of
    the key.
    """
    if any(family is each for each in BUILT_IN):
        return {}
    return {"adapter": [family.name, family.adapter, _digest_of_module(family.adapter.partition(":")[0])]}


def families_for(*tasks: Task) -> tuple[str, ...]:
    """Return the names of the families that can do one of some tasks; without a task those of all families."""
    return tuple(family.name for family in all_families() if family.does_any(tasks))
