"""Models in two repositories: a decoder, and the prior that predicts its image embeddings (Kandinsky 2.2).

A decoder of the Hugging Face Hub names its prior in the front matter of its README, under ``prior:``. Without that the
reference of the prior is that of the decoder with "decoder" replaced by "prior".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphflow import Problem
from graphflow.nodes.diffusion.checkpoints.location import locate, model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import UnusableError, read_json
from graphflow.nodes.diffusion.families import Family

__all__ = ["prior_reference", "with_prior"]

_README_LIMIT = 1 << 20
"""Characters of a README that are read."""


def prior_reference(reference: str, folder: Path) -> str | None:
    """Return the reference of a decoder's prior; None where neither its README nor its name gives it."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_README_LIMIT)
    except OSError:
        text = ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    named = re.search(r"^prior:\s*\n\s*-\s*(\S+)\s*$", front[1], re.MULTILINE) if front else None
    if named:
        return named[1].strip("\"'")
    head, separator, tail = reference.rpartition("decoder")
    if not separator:
        return None
    # a revision is that of the decoder's repository, so it is dropped
    return f"{head}prior{tail.partition('@')[0]}"


def with_prior(
    reference: str, folder: Path, family: Family, index: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return the index of a decoder with the parts of its prior, and the folder of each. Raises UnusableError."""
    name = prior_reference(reference, folder)
    if name is None:
        message = f'the model "{reference}" is a decoder, and nothing tells where its prior is'
        hint = 'name the prior in the README.md of its folder ("prior:" and "- name" between two lines "---")'
        raise UnusableError(model_problem("model.prior", message, hint))
    found = locate(name)
    if isinstance(found, Problem):
        message = f'the model "{reference}" needs a prior: {found.message}'
        raise UnusableError(replace(found, message=message))
    prior = read_json(name, found / "model_index.json")
    parts = {part: found / own for part, own in family.prior.items()}
    return {**index, **{part: prior.get(own) for part, own in family.prior.items()}}, parts
