"""Where a model lies on the disk. Imports no torch.

A reference is

- a name of `POCKET`: a model that ships with GraphFlow;
- ``owner/name`` or ``owner/name@revision``: a model of the Hugging Face Hub that lies in the local cache
  (``HF_HUB_CACHE``, ``HF_HOME``); nothing is downloaded here;
- a folder, relative to the current one. One that exists wins over a hub id of that name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from graphflow import Problem
from graphflow.errors import nearest
from graphflow.nodes.diffusion.pocket_models import POCKET, POCKET_FOLDER

__all__ = ["hub_cache", "in_hub_cache", "locate", "model_problem"]


PIPELINE_FILES = ("model_index.json", "*/*.json", "*/*.txt", "*/*model.safetensors")
"""Of a pipeline the folders only: beside them many repositories hold the same weights again, in single files."""


def model_problem(code: str, message: str, hint: str = "") -> Problem:
    """A problem with the parameter ``model``."""
    return Problem(code, message, field="model", hint=hint)


def locate(reference: str, files: tuple[str, ...] = PIPELINE_FILES) -> Path | Problem:
    """The folder of a model, or why there is none. ``files`` are patterns of what has to be downloaded of it."""
    if reference in POCKET:
        folder = POCKET_FOLDER / POCKET[reference].folder
        if folder.is_dir():
            return folder
        message = f'the files of the model "{reference}" are not in {folder}'
        return model_problem("missing.model", message, "install GraphFlow again")
    if len(reference) > 1000 or not reference.isprintable():
        return model_problem("missing.model", f'found "{reference[:60]}…", expected a model', nearest("", POCKET))
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 - Path raises for an unknown user
    if path.suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin"):
        if path.suffix != ".safetensors":
            return model_problem(
                "model.pickle_only",
                f'the model "{reference}" is a pickle file, which can run code when it is read; expected .safetensors',
                "look for a .safetensors version of it",
            )
        return model_problem(
            "model.single_file",
            f'the model "{reference}" is a single file; expected "pocket", a hub id, or a folder of diffusers',
            "convert it once: StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)",
        )
    if reference and os.path.isdir(path):  # noqa: PTH112 - Path raises for a name that is too long
        return path.resolve()
    if re.match(r"[./~\\]|[A-Za-z]:", reference) or (reference.count("/") > 1 and "@" not in reference):
        return model_problem(
            "missing.model", f'there is no model in the folder "{reference}"', f"it was looked for in {path.absolute()}"
        )
    match = re.fullmatch(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?", reference)
    if match is None or ".." in reference:
        names = ", ".join(f'"{name}"' for name in POCKET)
        return model_problem(
            "missing.model",
            f'unknown model "{reference}", expected {names}, a hub id (owner/name@revision), or a folder that exists',
            nearest(reference, POCKET),
        )
    return in_hub_cache(match["name"], match["revision"] or "main", files)


def hub_cache() -> Path:
    """The folder of the Hugging Face cache, found as huggingface_hub finds it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or Path(home) / "hub").expanduser()


def in_hub_cache(name: str, revision: str, files: tuple[str, ...]) -> Path | Problem:
    """The folder of a revision of a repository in the local cache; ``files`` are what has to be downloaded of it."""
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
    included = " ".join(f'--include "{pattern}"' for pattern in files)
    return model_problem(
        "missing.model",
        f"{what} is not in the local cache {hub_cache()}",
        f"download it once: hf download {name}{option} {included}",
    )
