from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping

from graphflow import Compute, Conditioning, Context, Field, Memory, PortType, Problem, Text
from graphflow.nodes.diffusion.memory.steps import prompt_memory
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.prompts import (
    ClipSkip,
    LongPrompts,
    PromptReading,
    PromptSyntax,
    check_prompts,
    check_reading,
    reading_of,
)
from graphflow.nodes.diffusion.shared.adapters import PromptAdapter
from graphflow.nodes.diffusion.shared.model_node import ModelNode

__all__ = ["EncodePrompt"]


class EncodePrompt(ModelNode, version=1):
    """Turn a prompt into the embeddings that guide a model.

    The text encoder reads a window of tokens (77 for Stable Diffusion, two of which mark its ends). A longer prompt is
    never cut: it raises ValueError, or is read in several windows. A prompt and a negative prompt must fill equally
    many: give each the other's text at ``beside``, and the shorter one is filled up with the empty prompt. Of several
    text encoders the one with the longest window (T5 and Qwen3: 256 or 512) must read it all; where CLIP reads
    only its beginning, a warning says so. The result is float (1, tokens, width); for models that want it, a pooled
    vector (1, width) comes with it.
    """

    negative: bool = Field(
        False, description="the text tells what a picture should not show: for an empty one some models take zeros"
    )
    clip_skip: ClipSkip = None
    prompt_syntax: PromptSyntax = "plain"
    long_prompts: LongPrompts = "refuse"

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Conditioning for models with the same kind of text encoder."""
        info = self.model_info()
        return {"conditioning": PortType(Conditioning, info.text_space if info else None)}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report a model that is guided by what its prior imagines, and what `check_reading` finds."""
        if info.family.prior:
            message = f'the model "{info.reference}" is not guided by an encoded prompt but by an imagined picture'
            yield Problem("model.unsupported", message, "model", "use DenoisePrior")
        yield from check_reading(info, self)

    def check_values(self, values: Mapping[str, str | int | float | bool]) -> Iterator[Problem]:
        """Report what `check_prompts` finds."""
        yield from check_prompts(self, values)

    def identity(self) -> str:
        """Return the digest of the model's files, and the version of Compel where it is used."""
        if self.prompt_syntax == "plain":
            return super().identity()
        return f"{super().identity()} compel {importlib.metadata.version('compel')}"

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """Return the text encoders."""
        return [name for name in info.family.text_encoders if name in info.components]

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """Estimate the text encoder."""
        info = self.model_info()
        return prompt_memory(info, compute) if info else None

    def run(self, *, text: Text, beside: Text | None = None, context: Context) -> Conditioning:
        """Encode one prompt."""
        backend: PromptAdapter = self.adapter(context)
        reading = reading_of(self)
        if reading == PromptReading():
            encoded = backend.encode_prompt(text, negative=self.negative, warn=context.warn)
        else:
            encoded = backend.read_prompt(text, reading, beside=beside, negative=self.negative)
        return Conditioning(encoded.embeds, self.require_model_info().text_space, encoded.pooled, encoded.mask)
