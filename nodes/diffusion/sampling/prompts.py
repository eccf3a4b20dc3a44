"""Parameters that say how a prompt is read, and their checks before the run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field

from graphflow import Problem
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.a1111 import PromptError, parse_a1111

__all__ = ["ClipSkip", "LongPrompts", "PromptReading", "PromptSyntax", "check_prompts", "check_reading", "reading_of"]

CLIP_LAYERS = 12
"""Layers of a CLIP text encoder whose configuration does not say: the default of transformers."""

ClipSkip = Annotated[
    int | None,
    Field(
        ge=1,
        le=100,
        description='layers of the text encoder left out of the prompt: 1 takes the one before the last (A1111: "Clip '
        'skip 2")',
    ),
]
PromptSyntax = Annotated[
    Literal["plain", "compel", "a1111"],
    Field(description="what signs in prompts mean: nothing; weights as Compel or as A1111 writes them"),
]
LongPrompts = Annotated[
    Literal["refuse", "chunk"],
    Field(description="prompts longer than the text encoder's window: an error, or read in several windows"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReading:
    """The settings for reading a prompt, for families that have a choice (`Family.accepted_parameters`)."""

    clip_skip: int | None = None
    prompt_syntax: Literal["plain", "compel", "a1111"] = "plain"
    long_prompts: Literal["refuse", "chunk"] = "refuse"

    @property
    def varies(self) -> bool:
        """True if a prompt may fill more than one window."""
        return self.prompt_syntax != "plain" or self.long_prompts == "chunk"


class _Reads(Protocol):
    @property
    def clip_skip(self) -> int | None: ...
    @property
    def prompt_syntax(self) -> Literal["plain", "compel", "a1111"]: ...
    @property
    def long_prompts(self) -> Literal["refuse", "chunk"]: ...


def reading_of(node: _Reads) -> PromptReading:
    """Return the settings in the parameters of a node."""
    return PromptReading(clip_skip=node.clip_skip, prompt_syntax=node.prompt_syntax, long_prompts=node.long_prompts)


def check_reading(info: ModelInfo, node: _Reads) -> Iterator[Problem]:
    """Yield errors for layers that the text encoders do not have, and for a syntax whose package is absent."""
    if node.clip_skip is not None and "clip_skip" in info.family.accepted_parameters:
        configs = [info.configs[name] for name in info.family.text_encoders if name in info.configs]
        most = min(int(config.get("num_hidden_layers", CLIP_LAYERS)) for config in configs) - info.family.skipped_layers
        if node.clip_skip > most:
            message = f'found clip_skip {node.clip_skip}, expected at most {most} for the model "{info.reference}"'
            yield Problem("value.clip_skip", message, "clip_skip", "its text encoder has no more layers")
    if node.prompt_syntax != "plain" and importlib.util.find_spec("compel") is None:
        message = f'the prompt_syntax "{node.prompt_syntax}" needs compel, which is not here'
        yield Problem("missing.package", message, "prompt_syntax", 'pip install "graphflow-diffusion[compel]"')


def check_prompts(node: _Reads, values: Mapping[str, object]) -> Iterator[Problem]:
    """Yield errors for prompts (by port) that cannot be parsed, in A1111's syntax only: Compel needs torch."""
    for port, text in values.items() if node.prompt_syntax == "a1111" else ():
        try:
            parse_a1111(str(text))
        except PromptError as error:
            yield Problem("value.prompt", error.message, port, error.hint)
