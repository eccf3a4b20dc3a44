"""Model references, and what the JSON files of a model tell without its weights. Imports no torch.

A reference is

- ``pocket``: a model that ships with GraphFlow;
- ``owner/name`` or ``owner/name@revision``: a model of the Hugging Face Hub that lies in the local cache
  (``HF_HUB_CACHE``, ``HF_HOME``); nothing is downloaded here;
- a folder in the layout of diffusers, relative to the current folder. One that exists wins over a hub id of that name.

`find_model` answers with a `ModelInfo` or with the `Problem` that keeps the model from being used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphflow import Problem, WorkflowError
from graphflow.errors import nearest
from graphflow.nodes.diffusion.families import Defaults, Family, supported_pipelines
from graphflow.nodes.file_digest import file_digest

__all__ = ["Component", "ModelInfo", "PocketModel", "find_model", "require_model"]


@dataclass(frozen=True, slots=True)
class PocketModel:
    """A model that ships inside the package, and what it is best run with."""

    folder: str
    space: str
    defaults: Defaults


POCKET_FOLDER = Path(__file__).parent / "pocket"

POCKET_MODELS: Mapping[str, PocketModel] = {
    "pocket": PocketModel(
        "base",
        "pocket",
        Defaults(
            steps=20, guidance_scale=3.0, image_to_image_steps=20, image_to_image_guidance_scale=3.0, strength=0.6
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Component:
    """One part of a model that has weights. ``variant`` is the infix of its files (``fp16``), None for plain names."""

    folder: Path
    variant: str | None
    files: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names and contents of its files: equal parts of two models have an equal digest."""
        record = [[file.name, file_digest(file)] for file in self.files]
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()


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
    prediction_type: str
    text_space: str
    """Which text encoders may stand for one another: CLIP by its width."""
    prompt_window: int
    """Tokens that the text encoder reads at once, the two markers at its ends included."""
    scheduler_config: Mapping[str, Any] = field(repr=False)
    components: Mapping[str, Component] = field(repr=False)
    defaults: Defaults = field(repr=False)

    @property
    def size_multiple(self) -> int:
        """What the width and height of a picture made from noise must be multiples of."""
        return math.lcm(self.family.size_multiple, self.pixels_per_cell)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything in the folder that determines a result; part of every cache key."""
        record: dict[str, Any] = {name: component.digest for name, component in self.components.items()}
        record["tokenizer"] = [[file.name, file_digest(file)] for file in sorted((self.folder / "tokenizer").glob("*"))]
        record["scheduler"] = dict(self.scheduler_config)
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def require_model(reference: str) -> ModelInfo:
    """What is known of a model. Raises WorkflowError (MissingError where it is only absent) if it cannot be used."""
    found = find_model(reference)
    if isinstance(found, Problem):
        raise WorkflowError.of([found])
    return found


def find_model(reference: str) -> ModelInfo | Problem:
    """What is known of a model, or why it cannot be used. Folders are read once, until they change."""
    pocket = POCKET_MODELS.get(reference)
    folder = POCKET_FOLDER / pocket.folder if pocket else _locate(reference)
    if isinstance(folder, Problem):
        return folder
    if not (folder / "model_index.json").is_file():
        return _without_index(reference, folder)
    return _read(reference, folder, tuple(_changed(folder / name) for name in _JSON_FILES))


# Finding a model on the disk ------------------------------------------------------------------------------------------


def _problem(code: str, message: str, hint: str = "") -> Problem:
    return Problem(code, message, field="model", hint=hint)


def _locate(reference: str) -> Path | Problem:
    if len(reference) > 1000 or not reference.isprintable():
        return _problem("missing.model", f'found "{reference[:60]}…", expected a model', nearest("", POCKET_MODELS))
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 - Path raises for an unknown user
    if path.suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin"):
        if path.suffix != ".safetensors":
            return _problem(
                "model.pickle_only",
                f'the model "{reference}" is a pickle file, which can run code when it is read; expected .safetensors',
                "look for a .safetensors version of it",
            )
        return _problem(
            "model.single_file",
            f'the model "{reference}" is a single file; expected "pocket", a hub id, or a folder of diffusers',
            "convert it once: StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)",
        )
    if reference and os.path.isdir(path):  # noqa: PTH112 - Path raises for a name that is too long
        return path.resolve()
    if re.match(r"[./~\\]|[A-Za-z]:", reference) or (reference.count("/") > 1 and "@" not in reference):
        return _problem(
            "missing.model", f'there is no model in the folder "{reference}"', f"it was looked for in {path.absolute()}"
        )
    match = re.fullmatch(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", reference)
    if match is None or ".." in reference:
        names = ", ".join(f'"{name}"' for name in POCKET_MODELS)
        return _problem(
            "missing.model",
            f'unknown model "{reference}", expected {names}, a hub id (owner/name@revision), or a folder that exists',
            nearest(reference, POCKET_MODELS),
        )
    return _in_hub_cache(reference, match["name"], match["revision"] or "main")


def hub_cache() -> Path:
    """The folder of the Hugging Face cache, found as huggingface_hub finds it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or Path(home) / "hub").expanduser()


def _in_hub_cache(reference: str, name: str, revision: str) -> Path | Problem:
    model = hub_cache() / f"models--{name.replace('/', '--')}"
    try:
        commit = (model / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    snapshot = model / "snapshots" / commit
    if snapshot.is_dir():
        return snapshot
    what = f'the revision "{revision}" of the model "{name}"' if model.is_dir() else f'the model "{name}"'
    option = f" --revision {revision}" if revision != "main" else ""
    # folders only: beside them many repositories hold the same weights again, in single files of several gigabytes
    wanted = ("model_index.json", "*/*.json", "*/*.txt", "*/*model.safetensors")
    included = " ".join(f'--include "{pattern}"' for pattern in wanted)
    return _problem(
        "missing.model",
        f"{what} is not in the local cache {hub_cache()}",
        f"download it once: hf download {name}{option} {included}",
    )


def _without_index(reference: str, folder: Path) -> Problem:
    if reference in POCKET_MODELS:
        message = f'the files of the model "{reference}" are not in {folder}'
        return _problem("missing.model", message, "install GraphFlow again")
    held = sorted(path.name for path in folder.iterdir())[:6] if folder.is_dir() else []
    return _problem(
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
)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


# Reading its JSON files -----------------------------------------------------------------------------------------------


class _UnusableError(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@lru_cache(maxsize=256)
def _read(reference: str, folder: Path, changed: tuple[int, ...]) -> ModelInfo | Problem:
    """``changed`` is not read: it makes the memory forget a folder that was written again."""
    try:
        return _model_info(reference, folder)
    except _UnusableError as unusable:
        return unusable.problem
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return _problem(
            "model.not_diffusers",
            f'the configuration of the model "{reference}" cannot be understood: {type(error).__name__}: {error}',
            f"look at the JSON files in {folder}",
        )


def _model_info(reference: str, folder: Path) -> ModelInfo:
    index = _json(reference, folder / "model_index.json")
    families = supported_pipelines()
    pipeline = index.get("_class_name")
    family = families.get(str(pipeline))
    if family is None:
        raise _UnusableError(
            _problem(
                "model.unsupported",
                f'the model "{reference}" is made for {pipeline}, expected one of {", ".join(families)}',
                "choose another model, or one converted to such a pipeline",
            )
        )
    for name, expected in family.classes.items():
        found = index.get(name)
        if not isinstance(found, list) or found[-1] != expected:
            shown = found[-1] if isinstance(found, list) else "nothing"
            raise _UnusableError(
                _problem("model.unsupported", f'the {name} of the model "{reference}" is {shown}, expected {expected}')
            )
    vae = _json(reference, folder / "vae" / "config.json")
    unet = _json(reference, folder / "unet" / "config.json")
    text_encoder = _json(reference, folder / "text_encoder" / "config.json")
    scheduler = _json(reference, folder / "scheduler" / "scheduler_config.json")
    components = {name: _component(reference, folder / name) for name in family.classes}
    channels = int(vae.get("latent_channels", 4))
    if unet["in_channels"] != channels:
        message = (
            f'the unet of the model "{reference}" takes {unet["in_channels"]} channels, expected the {channels} of its '
            "latents"
        )
        hint = "models for inpainting, depth and upscaling are not text-to-image models"
        raise _UnusableError(_problem("model.unsupported", message, hint))
    cell = 2 ** (len(vae["block_out_channels"]) - 1)
    sample = unet.get("sample_size") or 64
    rows, columns = sample if isinstance(sample, list) else (sample, sample)
    pocket = POCKET_MODELS.get(reference)
    factor = float(vae.get("scaling_factor", 0.18215))  # older Stable Diffusion folders leave it out
    return ModelInfo(
        reference=reference,
        folder=folder,
        family=family,
        space=pocket.space if pocket else _space(family, factor, channels, cell, components["vae"]),
        latent_channels=channels,
        pixels_per_cell=cell,
        native_width=int(columns) * cell,
        native_height=int(rows) * cell,
        prediction_type=str(scheduler.get("prediction_type", "epsilon")),
        text_space=f"clip-{text_encoder['hidden_size']}",
        prompt_window=int(text_encoder["max_position_embeddings"]),
        scheduler_config=scheduler,
        components=components,
        defaults=pocket.defaults if pocket else family.defaults,
    )


def _space(family: Family, factor: float, channels: int, cell: int, vae: Component) -> str:
    """The latent space of a VAE. Shapes cannot tell spaces apart; the scale of a family's own VAE can."""
    known = family.spaces.get((round(factor, 6), channels, cell))
    if known:
        return known
    for pocket in POCKET_MODELS.values():
        shipped = POCKET_FOLDER / pocket.folder / "vae"
        theirs = sorted(path for path in shipped.glob("*.safetensors"))
        ours = [path for path in vae.files if path.suffix == ".safetensors"]
        same_size = [path.stat().st_size for path in theirs] == [path.stat().st_size for path in ours]
        if theirs and same_size and [file_digest(path) for path in theirs] == [file_digest(path) for path in ours]:
            return pocket.space
    return f"vae-{vae.digest[:8]}"


def _json(reference: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _UnusableError(_incomplete(reference, path)) from None
    except (OSError, ValueError) as error:
        name = f"{path.parent.name}/{path.name}"
        raise _UnusableError(
            _problem("model.not_diffusers", f'{name} of the model "{reference}" cannot be read: {error}')
        ) from error
    if not isinstance(value, dict):
        raise _UnusableError(_problem("model.not_diffusers", f'{path} of the model "{reference}" holds no object'))
    return value


def _incomplete(reference: str, path: Path) -> Problem:
    return _problem(
        "missing.model_file",
        f'the model "{reference}" is incomplete: there is no {path.parent.name}/{path.name} in {path.parent.parent}',
        "download or save the model again, whole",
    )


def _component(reference: str, folder: Path) -> Component:
    """The weights of a component: plain files before variants, safetensors only."""
    config = folder / "config.json"
    for stem in ("diffusion_pytorch_model", "model"):
        for variant in (None, "fp16"):
            single = folder / (f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors")
            if single.exists():
                return Component(folder, variant, (config, single))
            shards = folder / (
                f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
            )
            if shards.exists():
                names = sorted(set(_json(reference, shards)["weight_map"].values()))
                for name in names:
                    if Path(name).name != name or not (folder / name).exists():
                        raise _UnusableError(_incomplete(reference, folder / Path(name).name))
                return Component(folder, variant, (config, shards, *(folder / name for name in names)))
    pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.ckpt"), *folder.glob("*.pt")])
    if pickled:
        raise _UnusableError(
            _problem(
                "model.pickle_only",
                f'the weights {folder.name}/{pickled[0].name} of the model "{reference}" are a pickle, which can run '
                "code when it is read; expected .safetensors",
                "choose a revision or a copy of the model with .safetensors files",
            )
        )
    raise _UnusableError(_incomplete(reference, folder / "*.safetensors"))
