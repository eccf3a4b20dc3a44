"""The location of a model on the disk.

A reference is

- a name of `POCKET`: a model that ships with GraphFlow;
- ``owner/name`` or ``owner/name@revision``: a model of the Hugging Face Hub in the local cache (``HF_HUB_CACHE``,
  ``HF_HOME``); nothing is downloaded here;
- ``owner/name/file.safetensors`` or ``owner/name@revision/file.safetensors``: one file of such a model;
- a folder or a .safetensors file, relative to the current folder. One that exists takes precedence over a hub id.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from graphflow import Problem, nearest
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET, POCKET_FOLDER

__all__ = [
    "HubReference",
    "hub_cache",
    "hub_reference",
    "in_hub_cache",
    "locate",
    "model_problem",
    "pickle_problem",
    "pull_command",
]

_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def model_problem(code: str, message: str, hint: str = "") -> Problem:
    """Return a problem with the parameter ``model``."""
    return Problem(code, message, field="model", hint=hint)


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository of the Hugging Face Hub at a revision, or one file of it (a path inside the repository)."""

    repository: str
    revision: str = "main"
    file: str | None = None


def hub_reference(reference: str) -> HubReference | None:
    """Parse a reference as one to the Hub, without checking that it exists; None where it has not that form."""
    if ".." in reference or reference.startswith("."):
        return None
    name, of_file = r"(?P<name>[\w.-]+/[\w.-]+)", r"/(?P<file>[\w./ ()+-]+\.safetensors)"
    match = re.fullmatch(rf"{name}(@(?P<revision>refs/\w+/[\w.-]+|[\w.-]+))?{of_file}", reference)
    match = match or re.fullmatch(rf"{name}(@(?P<revision>[\w./-]+))?(?P<file>)", reference)
    if match is None:
        return None
    return HubReference(match["name"], match["revision"] or "main", match["file"] or None)


def pull_command(reference: str) -> str:
    """Return the command that fetches a model, for messages."""
    return f'graphflow models pull "{reference}"'


def locate(reference: str, noun: str = "model") -> Path | Problem:
    """Find the folder or the .safetensors file of a model, or the problem with it; ``noun`` names it in messages."""
    if reference in POCKET:
        folder = POCKET_FOLDER / POCKET[reference].folder
        if folder.is_dir():
            return folder
        message = f'the files of the {noun} "{reference}" are not in {folder}'
        return model_problem("missing.model", message, "install GraphFlow again")
    if len(reference) > 1000 or not reference.isprintable():
        return model_problem("missing.model", f'found "{reference[:60]}…", expected a {noun}', nearest("", POCKET))
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 - Path raises for an unknown user
    if path.suffix in _PICKLES:
        return pickle_problem(f'the {noun} "{reference}"', reference)
    if reference and os.path.isdir(path):  # noqa: PTH112 - Path raises for a name that is too long
        return path.resolve()
    if path.suffix == ".safetensors" and os.path.isfile(path):  # noqa: PTH113 - as above
        return path.absolute()
    hub = hub_reference(reference)
    if path.suffix == ".safetensors" and (hub is None or hub.file is None):
        return model_problem(
            "missing.model", f'there is no file "{reference}"', f"it was looked for in {path.absolute().parent}"
        )
    if re.match(r"[./~\\]|[A-Za-z]:", reference) or (reference.count("/") > 1 and hub is None):
        return model_problem(
            "missing.model",
            f'there is no {noun} in the folder "{reference}"',
            f"it was looked for in {path.absolute()}",
        )
    if hub is None:
        names = ", ".join(f'"{name}"' for name in POCKET)
        return model_problem(
            "missing.model",
            f'unknown {noun} "{reference}", expected {names}, a hub id (owner/name@revision), a folder or a '
            ".safetensors file that exists",
            nearest(reference, POCKET),
        )
    return in_hub_cache(hub, noun, reference)


def pickle_problem(what: str, path: str) -> Problem:
    """Return the problem of weights in a pickle, with a command that converts them; ``what`` names them."""
    source = Path(path)
    # transformers names a pickle pytorch_model, and a safetensors file of the same weights model
    name = "model" if source.stem == "pytorch_model" else source.stem
    target = str(source.with_name(f"{name}.safetensors"))
    script = (
        "import torch, safetensors.torch as s; "
        f"d = torch.load({path!r}, map_location='cpu', weights_only=True); d = d.get('state_dict', d); "
        "s.save_file({k: v.clone().contiguous() for k, v in d.items() if isinstance(v, torch.Tensor)}, "
        f"{target!r}, metadata={{'format': 'pt'}})"
    )
    return model_problem(
        "model.pickle_only",
        f"{what} is a pickle file, which can run code when it is read; expected .safetensors",
        "look for a revision or a copy of the model with .safetensors files, or convert it without running its code: "
        f'python -c "{script}"',
    )


def hub_cache() -> Path:
    """Return the folder of the Hugging Face cache, from the same environment variables as huggingface_hub."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or Path(home) / "hub").expanduser()


def in_hub_cache(hub: HubReference, noun: str, reference: str) -> Path | Problem:
    """Find a snapshot in the local cache, or the file of it that ``hub`` names; a problem where it is missing."""
    model = hub_cache() / f"models--{hub.repository.replace('/', '--')}"
    try:
        commit = (model / "refs" / hub.revision).read_text().strip()
    except OSError:
        commit = hub.revision
    snapshot = model / "snapshots" / commit
    found = snapshot / hub.file if hub.file else snapshot
    if found.is_dir() or (hub.file and found.is_file()):
        return found
    what = f'the {noun} "{hub.repository}"'
    if snapshot.is_dir():
        what = f'the file "{hub.file}" of {what}'
    elif model.is_dir():
        what = f'the revision "{hub.revision}" of {what}'
    return model_problem(
        "missing.model",
        f"{what} is not in the local cache {hub_cache()}",
        f"download it once: {pull_command(reference)}",
    )
