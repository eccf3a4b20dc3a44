"""What the JSON files of a pipeline tell without its weights. Imports no torch.

`find_model` answers with a `ModelInfo` or with the `Problem` that keeps the model from being used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphflow import Problem, WorkflowError
from graphflow.nodes.diffusion.families import Defaults, Family, Task, pipelines_for, supported_pipelines
from graphflow.nodes.diffusion.model_files import Component, UnusableError, changed, component_in, read_json
from graphflow.nodes.diffusion.model_reference import locate, model_problem
from graphflow.nodes.diffusion.pocket_models import POCKET, POCKET_FOLDER
from graphflow.nodes.file_digest import file_digest

__all__ = ["ModelInfo", "find_model", "require_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model as its folder shows it. Sizes in pixels, unless they say cells."""

    reference: str
    folder: Path
    family: Family
    space: str
    latent_channels: int
    pixels_per_cell: int
    native_width: int
    native_height: int
    text_space: str
    """Which text encoders may stand for one another: CLIP by its width, and which of its states are taken."""
    prompt_window: int
    """Tokens that the text encoder reads at once, the two markers at its ends included."""
    configs: Mapping[str, Mapping[str, Any]] = field(repr=False)
    """What the JSON file of each component says; "pipeline" is ``model_index.json``."""
    components: Mapping[str, Component] = field(repr=False)
    tokenizer: Path = field(repr=False)
    defaults: Mapping[Task, Defaults] = field(repr=False)

    @property
    def prediction_type(self) -> str:
        """What the denoiser was trained to tell, as diffusers names it: "epsilon", "v_prediction"."""
        return str(self.configs["scheduler"].get("prediction_type", "epsilon"))

    @property
    def max_noise_level(self) -> int:
        """The strongest noise that a super-resolution model may put on the small picture."""
        return int(self.configs["pipeline"].get("max_noise_level", 350))

    @property
    def size_multiple(self) -> int:
        """What the width and height of a picture made from noise must be multiples of."""
        return math.lcm(self.family.size_multiple, self.pixels_per_cell)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything in the folder that determines a result; part of every cache key."""
        record: dict[str, Any] = {name: component.digest for name, component in self.components.items()}
        record["tokenizer"] = [[file.name, file_digest(file)] for file in sorted(self.tokenizer.glob("*"))]
        record |= {name: dict(self.configs[name]) for name in self.family.schedulers}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def require_model(reference: str, task: Task | None = None) -> ModelInfo:
    """What is known of a model. Raises WorkflowError (MissingError where it is only absent) if it cannot be used."""
    found = find_model(reference, task)
    if isinstance(found, Problem):
        raise WorkflowError.of([found])
    return found


def find_model(reference: str, task: Task | None = None) -> ModelInfo | Problem:
    """What is known of a model, or why it cannot be used, for a task if one is given.

    Folders are read once, until they change.
    """
    folder = locate(reference)
    if isinstance(folder, Problem):
        return folder
    if not (folder / "model_index.json").is_file():
        return _without_index(reference, folder)
    return _read(reference, folder, task, tuple(changed(folder / name) for name in _JSON_FILES))


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


_JSON_FILES = (
    "model_index.json",
    "vae/config.json",
    "unet/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "low_res_scheduler/scheduler_config.json",
)


@lru_cache(maxsize=256)
def _read(reference: str, folder: Path, task: Task | None, written: tuple[int, ...]) -> ModelInfo | Problem:
    """``written`` is not read: it makes the memory forget a folder that was written again."""
    try:
        return _model_info(reference, folder, task)
    except UnusableError as unusable:
        return unusable.problem
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return model_problem(
            "model.not_diffusers",
            f'the configuration of the model "{reference}" cannot be understood: {type(error).__name__}: {error}',
            f"look at the JSON files in {folder}",
        )


def _model_info(reference: str, folder: Path, task: Task | None) -> ModelInfo:
    index = read_json(reference, folder / "model_index.json")
    families = supported_pipelines()
    family = families.get(str(index.get("_class_name")))
    if family is None or (task and task not in family.tasks):
        expected = ", ".join(pipelines_for(task) if task else tuple(families))
        message = f'the model "{reference}" is made for {index.get("_class_name")}, expected {expected}'
        hint = "choose another model; `graphflow nodes` shows the default of each node"
        raise UnusableError(model_problem("model.unsupported", message, hint))
    _check_classes(reference, family, index)
    pocket = POCKET.get(reference)
    parts = {name: folder / name for name in (*family.classes, "tokenizer")}
    if pocket:
        parts |= {name: POCKET_FOLDER / owner / name for name, owner in pocket.shared.items()}
    configs = {name: read_json(reference, parts[name] / "config.json") for name in family.classes}
    configs |= {name: read_json(reference, folder / name / "scheduler_config.json") for name in family.schedulers}
    components = {name: component_in(reference, parts[name]) for name in family.classes}
    vae, unet, text_encoder = (configs[name] for name in ("vae", "unet", "text_encoder"))
    channels = int(vae.get("latent_channels", 4))
    wanted = family.unet_channels(channels)
    if unet["in_channels"] != wanted:
        message = (
            f'the unet of the model "{reference}" takes {unet["in_channels"]} channels, expected the {wanted} of '
            f"{family.unet_input}"
        )
        raise UnusableError(model_problem("model.unsupported", message, "it is a model for something else"))
    cell = 2 ** (len(vae["block_out_channels"]) - 1)
    sample = unet.get("sample_size") or 64
    rows, columns = sample if isinstance(sample, list) else (sample, sample)
    factor = float(vae.get("scaling_factor", 0.18215))  # older Stable Diffusion folders leave it out
    return ModelInfo(
        reference=reference,
        folder=folder,
        family=family,
        space=(pocket.space if pocket else None) or _space(family, factor, channels, cell, components["vae"]),
        latent_channels=channels,
        pixels_per_cell=cell,
        native_width=int(columns) * cell,
        native_height=int(rows) * cell,
        text_space=f"{family.text_states}-{text_encoder['hidden_size']}",
        prompt_window=int(text_encoder["max_position_embeddings"]),
        configs={**configs, "pipeline": index},
        components=components,
        tokenizer=parts["tokenizer"],
        defaults=pocket.defaults if pocket else family.tasks,
    )


def _check_classes(reference: str, family: Family, index: Mapping[str, Any]) -> None:
    for name, expected in family.classes.items():
        found = index.get(name)
        if not isinstance(found, list) or found[-1] != expected:
            shown = found[-1] if isinstance(found, list) else "nothing"
            message = f'the {name} of the model "{reference}" is {shown}, expected {expected}'
            raise UnusableError(model_problem("model.unsupported", message))


def _space(family: Family, factor: float, channels: int, cell: int, vae: Component) -> str:
    """The latent space of a VAE. Shapes cannot tell spaces apart; the scale of a family's own VAE can."""
    known = family.spaces.get((round(factor, 6), channels, cell))
    pocket = _space_of_pocket(vae)
    return pocket or known or f"vae-{vae.digest[:8]}"


def _space_of_pocket(vae: Component) -> str | None:
    """The space of an embedded model with the same VAE; files of another size are not read."""
    ours = [path for path in vae.files if path.suffix == ".safetensors"]
    for pocket in POCKET.values():
        theirs = sorted((POCKET_FOLDER / pocket.folder / "vae").glob("*.safetensors"))
        same_size = [path.stat().st_size for path in theirs] == [path.stat().st_size for path in ours]
        if theirs and same_size and [file_digest(path) for path in theirs] == [file_digest(path) for path in ours]:
            return pocket.space
    return None
