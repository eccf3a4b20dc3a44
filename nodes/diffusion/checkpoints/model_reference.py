"""References to models: one string for a base model and its changes.

::

    BASE [ + vae:REFERENCE] [ + lora:REFERENCE[*WEIGHT]]…

``stabilityai/stable-diffusion-xl-base-1.0 + lora:nerijs/pixel-art-xl*0.9`` is one string, so that any node can take it
and latents can carry it as the name of the VAE that decodes them. Parts are separated by a plus sign with spaces around
it. Their order is free; LoRAs are added in the order in which they are written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from graphflow import Problem, nearest

__all__ = ["MAX_LORA_WEIGHT", "LoraReference", "ModelReference", "parse_reference"]

SEPARATOR = " + "
MAX_LORA_WEIGHT = 10.0
"""The largest weight of either sign. Usual ones are from -2 to 2; larger ones are mostly misplaced decimal points."""

_WORDS = ("vae", "lora")


@dataclass(frozen=True, slots=True)
class LoraReference:
    """A low-rank change of weights (Hu et al. 2021) and its factor: 0 is off, 1 is as trained."""

    reference: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A base model, the VAE that replaces its own, and the LoRAs that are added to it."""

    base: str
    vae: str | None = None
    loras: tuple[LoraReference, ...] = ()


@lru_cache(maxsize=1024)
def parse_reference(text: str) -> ModelReference | tuple[Problem, ...]:
    """Parse a reference, or return all problems with its form. Nothing on the disk is read."""
    base, *parts = text.split(SEPARATOR)
    problems: list[Problem] = []
    vaes: list[str] = []
    loras: list[LoraReference] = []
    if parts and not base.strip():
        problems.append(_problem(text, "no model before the first plus sign", "put a model first"))
    for part in parts:
        word, colon, reference = part.strip().partition(":")
        reference = reference.strip()
        if word not in _WORDS or not colon:
            hint = nearest(word, _WORDS) or "write vae:REFERENCE or lora:REFERENCE*WEIGHT"
            problems.append(_problem(text, f'the part "{part[:60]}", expected vae:… or lora:…', hint))
        elif not reference:
            problems.append(_problem(text, f"{word}: without a name", f"write {word}: and a hub id or a file"))
        elif word == "vae":
            vaes.append(reference)
        else:
            _add_lora(text, reference, loras, problems)
    if len(vaes) > 1:
        problems.append(_problem(text, f"{len(vaes)} VAEs, expected at most 1", "leave all but one out"))
    twice = sorted({lora.reference for lora in loras if sum(lora.reference == other.reference for other in loras) > 1})
    repeated = "add its weights up and name it once"
    problems += [_problem(text, f'the LoRA "{name}" more than once', repeated) for name in twice]
    return tuple(problems) if problems else ModelReference(base, vaes[0] if vaes else None, tuple(loras))


def _add_lora(text: str, part: str, loras: list[LoraReference], problems: list[Problem]) -> None:
    reference, star, number = part.rpartition("*")
    if not star:
        loras.append(LoraReference(part))
        return
    expected = f"a number from -{MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}"
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not abs(weight) <= MAX_LORA_WEIGHT:
        problems.append(
            _problem(text, f'the LoRA weight "{number.strip()}", expected {expected}', "write it like lora:file*0.8")
        )
    elif not reference.strip():
        problems.append(_problem(text, "lora: without a name", "write lora: and a hub id or a file"))
    else:
        loras.append(LoraReference(reference.strip(), weight))


def _problem(text: str, found: str, hint: str) -> Problem:
    shown = text if len(text) <= 120 else text[:119] + "…"
    return Problem("model.reference", f'the model "{shown}": found {found}', field="model", hint=hint)
