"""Pipelines described by their JSON files, without reading the weights.

`find_model` returns a `ModelInfo`, or the `Problem` that makes the model unusable.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphflow import Problem, WorkflowError, file_answer
from graphflow.nodes.diffusion.checkpoints.location import locate, model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import (
    Component,
    UnusableError,
    component_in,
    mtime_ns,
    read_json,
    variant_warning,
)
from graphflow.nodes.diffusion.checkpoints.model_parts import (
    part_files,
    part_problem,
    scaling_factor,
    single_parts,
    with_loras,
    with_vae,
)
from graphflow.nodes.diffusion.checkpoints.model_reference import ModelReference, parse_reference
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET, POCKET_FOLDER
from graphflow.nodes.diffusion.checkpoints.prior import with_prior
from graphflow.nodes.diffusion.checkpoints.single_file import open_single_file
from graphflow.nodes.diffusion.checkpoints.tokenizer_files import find_tokenizer, settings_of, tokenizer_record
from graphflow.nodes.diffusion.families import (
    Defaults,
    Family,
    Task,
    Tasks,
    adapter_record,
    class_of,
    families_for,
    family_of,
)
from graphflow.nodes.files.file_digest import file_digest

__all__ = ["ModelInfo", "find_model", "find_problems", "model_digest", "require_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model described by its files. Sizes are in pixels, unless they say cells."""

    reference: str
    folder: Path
    family: Family
    space: str
    latent_channels: int
    pixels_per_cell: int
    native_width: int
    native_height: int
    text_space: str
    """Name of the embeddings that guide the denoiser: the kind of its text encoders, and their width. Prompts of models
    with the same name are interchangeable."""
    prompt_window: int
    """Tokens that every text encoder reads at once, the markers at the ends included."""
    configs: Mapping[str, Mapping[str, Any]] = field(repr=False)
    """The content of the JSON file of each component; "pipeline" is ``model_index.json``."""
    components: Mapping[str, Component] = field(repr=False)
    tokenizers: Mapping[str, Path] = field(repr=False)
    """The folder of each tokenizer."""
    tokenizer_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """Settings that override those of a tokenizer's files, where these belong to another model."""
    defaults: Mapping[Task, Defaults] = field(repr=False)

    @property
    def max_noise_level(self) -> int:
        """The highest noise level that a super-resolution model can add to the small picture."""
        return int(self.configs["pipeline"].get("max_noise_level", 350))

    @property
    def size_multiple(self) -> int:
        """Required divisor of the width and height of a picture made from noise, in pixels."""
        return math.lcm(self.family.size_multiple, self.pixels_per_cell)

    @property
    def image_multiple(self) -> int:
        """Required divisor of the width and height of a picture that is encoded, in pixels."""
        return math.lcm(self.family.image_multiple, self.pixels_per_cell)

    @property
    def tasks(self) -> frozenset[Task]:
        """The tasks that the model can do."""
        return frozenset(self.family.tasks)

    @property
    def zeros_for_no_negative(self) -> bool:
        """True if a negative prompt that is not given is zeros, not an encoded empty text."""
        return bool(self.configs["pipeline"].get("force_zeros_for_empty_prompt", False))

    @property
    def denoiser(self) -> Mapping[str, Any]:
        """The configuration of the denoiser."""
        return self.configs[self.family.denoiser]

    @property
    def autoencoder(self) -> Mapping[str, Any]:
        """The configuration of the autoencoder."""
        return self.configs[self.family.autoencoder]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything in the folder that determines a result; part of every cache key."""
        record: dict[str, Any] = {name: component.digest for name, component in self.components.items()}
        for name, folder in self.tokenizers.items():
            record[name] = tokenizer_record(folder, self.tokenizer_settings.get(name, {}))
        record |= {name: dict(self.configs[name]) for name in self.family.schedulers}
        record |= adapter_record(self.family)
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def require_model(reference: str, tasks: Tasks = ()) -> ModelInfo:
    """Describe a model. Raises WorkflowError (MissingError where it is only absent) if it cannot be used."""
    found = find_model(reference, tasks)
    if isinstance(found, Problem):
        raise WorkflowError.of([found])
    return found


@file_answer
def model_digest(reference: str, tasks: Tasks = ()) -> str:
    """Return the `ModelInfo.digest` of a model. Raises WorkflowError as `require_model`."""
    return require_model(reference, tasks).digest


def find_model(reference: str, tasks: Tasks = ()) -> ModelInfo | Problem:
    """Describe a model that can do one of some tasks, or return the problem that makes it unusable.

    Descriptions are cached until the files change.
    """
    try:
        return _found(reference, tasks)
    except UnusableError as unusable:
        return unusable.problem


def find_problems(reference: str, tasks: Tasks = ()) -> tuple[Problem, ...]:
    """Return all problems that make a model unusable, and warnings about it."""
    parsed = parse_reference(reference)
    if not isinstance(parsed, ModelReference):
        return parsed
    base = find_model(parsed.base, tasks)
    problems = [base] if isinstance(base, Problem) else []
    for part in single_parts(parsed):
        found = part_problem(part) if isinstance(base, Problem) else find_model(part, tasks)
        problems += [found] if isinstance(found, Problem) else []
    if isinstance(base, ModelInfo):
        warning = variant_warning(parsed.base, base.components)
        problems += [warning] if warning else []
    return tuple(problems)


@file_answer
def _found(reference: str, tasks: Tasks) -> ModelInfo:
    """Describe a model with all of its parts. Raises UnusableError."""
    parsed = parse_reference(reference)
    if not isinstance(parsed, ModelReference):
        raise UnusableError(parsed[0])
    place = locate(parsed.base)
    if isinstance(place, Problem):
        raise UnusableError(place)
    # The cache key: times of the configuration, and of files that the reference names.
    folder = place.with_suffix("") if place.is_file() else place
    named = folder / "model_index.json", place, *part_files(parsed)
    return _read(reference, parsed, place, tasks, (*_configurations(folder), *map(mtime_ns, named)))


def _configurations(folder: Path) -> list[tuple[str, int]]:
    """List the JSON files one folder down, with their modification times (ns).

    It uses `os.scandir`, since a run calls it dozens of times and `Path.glob` takes several times as long.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError), os.scandir(entry) as files:
                found += [(file.path, mtime_ns(file)) for file in files if file.name.endswith(".json")]
    return sorted(found)


def _without_index(reference: str, folder: Path) -> Problem:
    if reference in POCKET:
        return model_problem(
            "model.unsupported",
            f'the model "{reference}" is a single network, expected one that makes pictures',
            "choose another model",
        )
    held = sorted(path.name for path in folder.iterdir())[:6] if folder.is_dir() else []
    return model_problem(
        "model.not_diffusers",
        f'the folder of the model "{reference}" has no model_index.json (it holds {", ".join(held) or "nothing"}); '
        "expected a model in the layout of diffusers",
        "give the folder that holds model_index.json, unet, vae, text_encoder, tokenizer and scheduler",
    )


@lru_cache(maxsize=256)
def _read(reference: str, parsed: ModelReference, place: Path, tasks: Tasks, written: tuple[Any, ...]) -> ModelInfo:
    """Describe a model. ``written`` (ns) is a part of the cache key only.

    Raises UnusableError, which is not cached: a model may be fixed or fetched at any time.
    """
    try:
        return _laid_over(replace(_model_info(parsed.base, place, tasks), reference=reference), parsed)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        problem = model_problem(
            "model.not_diffusers",
            f'the configuration of the model "{reference}" cannot be understood: {type(error).__name__}: {error}',
            f"look at the JSON files in {place}",
        )
        raise UnusableError(problem) from error


def _model_info(reference: str, place: Path, tasks: Tasks) -> ModelInfo:
    """Describe a model in a folder, or in a checkpoint of one file. Raises UnusableError."""
    single = open_single_file(reference, place) if place.is_file() else None
    folder = single.folder if single else place
    if not (folder / "model_index.json").is_file():
        raise UnusableError(_without_index(reference, folder))
    index = read_json(reference, folder / "model_index.json")
    family = _family(reference, folder, index, tasks)
    if single:
        index = single.index(index, family)
    prior: dict[str, Path] = {}
    if family.prior:
        index, prior = with_prior(reference, folder, family, index)
    weights = _classes(reference, family, index)
    encoders = {encoder.tokenizer: name for name, encoder in family.text_encoders.items() if name in weights}
    pocket = POCKET.get(reference)
    parts = {name: folder / name for name in (*weights, *encoders, *family.schedulers)} | prior
    if pocket:
        parts |= {name: POCKET_FOLDER / owner / name for name, owner in pocket.shared.items()}
    configs = {name: read_json(reference, parts[name] / _config_file(name)) for name in (*weights, *family.schedulers)}
    components = {
        name: single.component(name, cls, family, configs[name]) if single else component_in(reference, parts[name])
        for name, cls in weights.items()
    }
    tokenizers = {name: parts[name] for name in encoders}
    settings: dict[str, dict[str, Any]] = {}
    if single:
        settings = {name: settings_of(path) for name, path in tokenizers.items()}
        words = {name: int(configs[encoder]["vocab_size"]) for name, encoder in encoders.items()}
        tokenizers = {name: find_tokenizer(reference, path, words[name]) for name, path in tokenizers.items()}
    autoencoder, denoiser = configs[family.autoencoder], configs[family.denoiser]
    channels = int(autoencoder.get("latent_channels", 4))
    _check_channels(reference, family, denoiser["in_channels"], channels)
    cell = family.pixels_per_cell(autoencoder)
    sample = denoiser.get("sample_size") or family.sample_size
    rows, columns = sample if isinstance(sample, list) else (sample, sample)
    component, key = family.text_width
    return ModelInfo(
        reference=reference,
        folder=folder,
        family=family,
        space=(pocket.space if pocket else None)
        or _space(family, autoencoder, channels, cell, components[family.autoencoder]),
        latent_channels=channels,
        pixels_per_cell=cell,
        native_width=int(columns) * cell,
        native_height=int(rows) * cell,
        text_space=f"{family.encoder_kind}-{configs[component][key]}",
        prompt_window=min(
            encoder.window_of(configs[name]) for name, encoder in family.text_encoders.items() if name in configs
        ),
        configs={**configs, "pipeline": index},
        components=components,
        tokenizers=tokenizers,
        tokenizer_settings=settings,
        defaults=pocket.defaults if pocket else family.tasks,
    )  # fmt: skip


def _family(reference: str, folder: Path, index: Mapping[str, Any], tasks: Tasks) -> Family:
    """Find the family of a pipeline. Raises UnusableError for none, and for one that can do none of the tasks."""
    family = family_of(index, lambda name: read_json(reference, folder / name / _config_file(name)))
    if family is None or not family.does_any(tasks):
        made_for = f"of the family {family.name}" if family else f"made for {index.get('_class_name')}"
        expected = ", ".join(families_for(*tasks))
        message = f'the model "{reference}" is {made_for}, expected one of the families {expected}'
        hint = "choose another model; `graphflow nodes` shows the default of each node"
        raise UnusableError(model_problem("model.unsupported", message, hint))
    return family


def _check_channels(reference: str, family: Family, found: object, latent_channels: int) -> None:
    """Raise UnusableError for a denoiser whose channels are not those of the family, as in an inpainting model."""
    expected = family.denoiser_channels(latent_channels)
    if found != expected:
        message = (
            f'the {family.denoiser} of the model "{reference}" takes {found} channels, expected the {expected} of '
            f"{family.channels_text}"
        )
        raise UnusableError(model_problem("model.unsupported", message, "it is a model for something else"))


def _config_file(component: str) -> str:
    """Return the name of the JSON file in the folder of a component."""
    return "scheduler_config.json" if component.endswith("scheduler") else "config.json"


def _laid_over(info: ModelInfo, parsed: ModelReference) -> ModelInfo:
    """Apply the VAE and the LoRAs of a reference to a model. Raises UnusableError."""
    components, configs = dict(info.components), dict(info.configs)
    index = configs["pipeline"]
    classes = {name: class_of(index, name) or "" for name in components}
    if parsed.vae:
        name = info.family.autoencoder
        own = components[name]
        components[name], configs[name] = with_vae(parsed.base, parsed.vae, own, classes[name], configs[name])
    if parsed.loras:
        components = with_loras(
            parsed.base, parsed.loras, info.family, str(index["_class_name"]), classes, components, configs
        )
    return replace(info, components=components, configs=configs)


def _classes(reference: str, family: Family, index: Mapping[str, Any]) -> dict[str, str]:
    """Return the class of each component with weights. Raises UnusableError for an unexpected one."""
    present = {name: cls for name, cls in family.optional.items() if class_of(index, name)}
    expected = {**family.classes, **present}
    for name, cls in expected.items():
        found = class_of(index, name)
        if found != cls:
            message = f'the {name} of the model "{reference}" is {found or "nothing"}, expected {cls}'
            raise UnusableError(model_problem("model.unsupported", message))
    return expected


def _space(family: Family, autoencoder: Mapping[str, Any], channels: int, cell: int, component: Component) -> str:
    """Return the latent space of an autoencoder, which its scaling factor identifies within a family."""
    if isinstance(family.spaces, str):
        return family.spaces
    # One that also shifts and scales each channel has a space of its own, whatever its factor.
    plain = autoencoder.get("latents_mean") is None
    known = family.spaces.get((round(scaling_factor(autoencoder), 6), channels, cell)) if plain else None
    return _space_of_pocket(component) or known or f"vae-{component.digest[:8]}"


def _space_of_pocket(vae: Component) -> str | None:
    """Return the space of the embedded model with the same VAE, None where there is none.

    Only files of equal size are read.
    """
    ours = [path for path in vae.files if path.suffix == ".safetensors"]
    for pocket in POCKET.values():
        theirs = sorted((POCKET_FOLDER / pocket.folder / "vae").glob("*.safetensors"))
        same_size = [path.stat().st_size for path in theirs] == [path.stat().st_size for path in ours]
        if theirs and same_size and [file_digest(path) for path in theirs] == [file_digest(path) for path in ours]:
            return pocket.space
    return None
