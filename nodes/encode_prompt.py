from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphflow import Compute, Conditioning, Context, Field, Memory, PortType, Problem, Text
from graphflow.nodes.diffusion.families.adapters import Adapter
from graphflow.nodes.diffusion.model_info import ModelInfo
from graphflow.nodes.diffusion.model_node import ModelNode
from graphflow.nodes.diffusion.step_memory import prompt_memory

__all__ = ["EncodePrompt"]


class EncodePrompt(ModelNode, version=1):
    """Turn a prompt into the embeddings that guide a model.

    The text encoder reads a window of tokens (77 for Stable Diffusion); a longer prompt raises ValueError and is never
    cut. Of several text encoders the one with the longest window (T5 in SD3 and FLUX: 256 or 512) must read it all;
    where CLIP reads only its beginning, a warning tells so. The result is float (1, tokens, width); for models
    that want it, a pooled vector (1, width) comes with it.
    """

    negative: bool = Field(
        False, description="the text tells what a picture should not show: for an empty one some models take zeros"
    )

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Conditioning for models with the same kind of text encoder."""
        info = self.known
        return {"conditioning": PortType(Conditioning, info.text_space if info else None)}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """A model that is guided by what its prior imagines."""
        if info.family.prior:
            message = f'the model "{info.reference}" is not guided by an encoded prompt but by an imagined picture'
            yield Problem("model.unsupported", message, "model", "use DenoisePrior")

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """The text encoder."""
        info = self.known
        return prompt_memory(info, compute) if info else None

    def run(self, *, text: Text, context: Context) -> Conditioning:
        """Encode one prompt."""
        backend: Adapter = self.adapter(context)
        embeds, pooled = backend.encode_prompt(text, negative=self.negative, warn=context.warn)
        return Conditioning(embeds, self.required.text_space, pooled)
