from __future__ import annotations

from collections.abc import Mapping

from graphflow import Conditioning, Context, PortType, Text
from graphflow.nodes.diffusion.model_info import require_model
from graphflow.nodes.diffusion.model_node import ModelNode

__all__ = ["EncodePrompt"]


class EncodePrompt(ModelNode, version=1):
    """Turn a prompt into the embeddings that guide a model.

    The text encoder reads a window of tokens (77 for Stable Diffusion); a longer prompt raises ValueError and is never
    cut. The result is float (1, tokens, width).
    """

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Conditioning for models with the same kind of text encoder."""
        info = self.known
        return {"conditioning": PortType(Conditioning, info.text_space if info else None)}

    def run(self, *, text: Text, context: Context) -> Conditioning:
        """Encode one prompt."""
        return Conditioning(self.adapter(context).encode_prompt(text), require_model(self.model).text_space)
