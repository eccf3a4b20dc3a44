"""Token counts of prompts against the windows of text encoders: a pipeline would silently cut the rest off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from graphflow.nodes.diffusion.loading.components import load_tokenizer, quiet
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.shared.adapters import Warn

__all__ = ["Reading", "chat_tokenizer", "reading", "shown", "tokenizers_for", "too_long"]


class Reading(NamedTuple):
    """A text's length under a tokenizer; the numbers of tokens exclude the markers at the ends."""

    tokenizer: Any
    tokens: int
    window: int


def reading(info: ModelInfo, text: str, tokenizer: str, window: int) -> Reading:
    """Count a text's tokens under a tokenizer, and those that a ``window`` holds, given with the markers included."""
    loaded = load_tokenizer(info, tokenizer)
    markers = loaded.num_special_tokens_to_add()
    with quiet():
        tokens = len(loaded(text, truncation=False).input_ids) - markers
    return Reading(loaded, tokens, min(window, loaded.model_max_length) - markers)


def too_long(info: ModelInfo, text: str, found: Reading) -> ValueError:
    """Return the error to raise for a text whose end no text encoder would read."""
    way = ', or set long_prompts to "chunk"' if "long_prompts" in info.family.accepted_parameters else ""
    return ValueError(
        f'found a prompt of {found.tokens} tokens, expected at most {found.window} for the model "{info.reference}": '
        f'"{shown(text)}"; shorten it, for its end would be cut off{way}'
    )


def tokenizers_for(info: ModelInfo, text: str, warn: Warn) -> Mapping[str, Any]:
    """Return the tokenizers of a model with several text encoders, by component name.

    Those with shorter windows read the beginning of the text only, which is reported to ``warn``. Raises ValueError for
    a text that is longer than the longest window.
    """
    readings = {}
    for name, encoder in info.family.text_encoders.items():
        if encoder.tokenizer in info.tokenizers:
            readings[name] = reading(info, text, encoder.tokenizer, encoder.window_of(info.configs[name]))
    longest = max(readings.values(), key=lambda found: found.window)
    if longest.tokens > longest.window:
        raise too_long(info, text, longest)
    cut = {encoder: found for encoder, found in readings.items() if found.tokens > found.window}
    if cut:
        first = next(iter(cut.values()))
        whole = [encoder for encoder in readings if encoder not in cut]
        warn(
            f"{' and '.join(cut)} read{'' if len(cut) > 1 else 's'} only the first {first.window} of the "
            f'{first.tokens} tokens of a prompt, {" and ".join(whole)} the whole of it: "{shown(text)}"'
        )
    return {info.family.text_encoders[name].tokenizer: found.tokenizer for name, found in readings.items()}


def chat_tokenizer(info: ModelInfo, text: str, encoder: str = "text_encoder", **template: Any) -> Any:
    """Return the tokenizer of a language model that reads a prompt as a user's message in a chat.

    ``template`` are arguments of the chat template, which adds tokens of its own. Raises ValueError for a prompt that
    does not fit in the window beside them.
    """
    record = info.family.text_encoders[encoder]
    tokenizer = load_tokenizer(info, record.tokenizer)

    def in_chat(content: str) -> Reading:
        messages = [{"role": "user", "content": content}]
        whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **template)
        return reading(info, whole, record.tokenizer, record.window_of(info.configs[encoder]))

    found, around = in_chat(text), in_chat("").tokens
    if found.tokens > found.window:
        raise too_long(info, text, found._replace(tokens=found.tokens - around, window=found.window - around))
    return tokenizer


def shown(text: str) -> str:
    """Return a text for a message, shortened to 60 characters."""
    return text if len(text) <= 60 else text[:59] + "…"
