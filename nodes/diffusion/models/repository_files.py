"""The files of a repository that a model needs: no others, and never a pickle.

Repositories hold the same weights several times: plain and in half precision, as pickles, for other frameworks, and in
one file beside the folders. A pipeline needs the folders of its components, with the JSON files and one set of
safetensors files of each.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from graphflow.nodes.diffusion.checkpoints.location import model_problem
from graphflow.nodes.diffusion.checkpoints.lora_file import USUAL_NAME
from graphflow.nodes.diffusion.checkpoints.model_files import UnusableError
from graphflow.nodes.diffusion.families import family_of

__all__ = ["INDEX", "component_names", "network_files", "only_lora", "pipeline_files"]

INDEX = "model_index.json"

_STEMS = ("diffusion_pytorch_model", "model")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


def component_names(index: Mapping[str, Any], wanted: Iterable[str] = ()) -> list[str]:
    """Return the components of ``model_index.json`` that GraphFlow loads: those ``wanted``, or those of its family.

    For an unknown family these are all of them.
    """
    named = {name for name, value in index.items() if isinstance(value, list) and len(value) == 2 and all(value)}
    family = family_of(index)
    if family and not wanted:
        whole = {*family.classes, *family.optional, *family.tokenizers, *family.schedulers}
        wanted = whole - set(family.prior)
    return sorted(named & set(wanted) if wanted else named)


def pipeline_files(reference: str, names: Collection[str], components: Iterable[str], variant: str | None) -> list[str]:
    """Choose the files of a pipeline from all ``names`` in its repository. Raises UnusableError for pickles only."""
    chosen = [INDEX]
    for component in components:
        inside = {name.removeprefix(f"{component}/") for name in names if name.startswith(f"{component}/")}
        chosen += [f"{component}/{name}" for name in _folder_files(reference, component, inside, variant)]
    return chosen


def network_files(reference: str, names: Collection[str], variant: str | None) -> list[str]:
    """Choose the files of a single network (a ControlNet, a VAE) at the root of a repository. Raises UnusableError."""
    return _folder_files(reference, "the repository", {name for name in names if "/" not in name}, variant)


def only_lora(reference: str, names: Iterable[str]) -> str:
    """Choose the file of a repository that is a LoRA. Raises UnusableError where that is not one file."""
    files = sorted(name for name in names if name.endswith(".safetensors"))
    if USUAL_NAME in files:
        return USUAL_NAME
    if len(files) == 1:
        return files[0]
    if files:
        listed = ", ".join(files[:8]) + (", …" if len(files) > 8 else "")
        message = f'the repository "{reference}" holds {len(files)} files, expected the name of one: {listed}'
        raise UnusableError(model_problem("model.choice", message, f"write {reference}/{files[0]}"))
    message = f'the repository "{reference}" holds no .safetensors file'
    raise UnusableError(model_problem("model.pickle_only", message, "choose another revision or copy of the model"))


def _folder_files(reference: str, what: str, names: set[str], variant: str | None) -> list[str]:
    names = {name for name in names if "/" not in name}
    configuration = {
        name for name in names if name.endswith((".json", ".txt", ".model", ".jinja")) and ".index." not in name
    }
    for wanted in dict.fromkeys((variant, None, "fp16")):
        for stem in _STEMS:
            weights = _weights(names, stem, wanted)
            if weights:
                return sorted(configuration | weights)
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    if pickles:
        message = (
            f'the weights {pickles[0]} of {what} of the model "{reference}" are pickles, which can run code when they '
            "are read; expected .safetensors"
        )
        raise UnusableError(model_problem("model.pickle_only", message, "choose another revision or copy of the model"))
    return sorted(configuration)


def _weights(names: set[str], stem: str, variant: str | None) -> set[str]:
    infix = f".{variant}" if variant else ""
    single = f"{stem}{infix}.safetensors"
    if single in names:
        return {single}
    index = f"{stem}.safetensors.index{infix}.json"
    shards = {
        name
        for name in names
        if re.fullmatch(
            rf"{re.escape(stem)}({re.escape(infix)}-\d+-of-\d+|-\d+-of-\d+{re.escape(infix)})\.safetensors", name
        )
    }
    return {index, *shards} if index in names and shards else set()
