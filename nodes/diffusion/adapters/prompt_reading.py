"""Prompts with weights, longer than a window, or from an earlier layer of the text encoder.

A CLIP text encoder reads a window of tokens, 77 for most, of which two mark its ends. A prompt of several windows is
encoded window by window, and the embeddings are concatenated along the tokens. Compel (Damian Stewart) applies weights;
it is imported only for a prompt with a weighted syntax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Protocol

import torch

from graphflow.nodes.diffusion.adapters.prompt_length import Reading, shown, too_long
from graphflow.nodes.diffusion.loading.components import quiet
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.a1111 import parse_a1111
from graphflow.nodes.diffusion.sampling.prompts import PromptReading

__all__ = ["WindowEncoder", "encode_windows", "pooled_text"]

_SENTENCE = frozenset({".</w>"})
_PHRASE = frozenset({".</w>", ",</w>", ";</w>", ":</w>"})
"""Tokens that end a phrase; `_SENTENCE` holds those that end a sentence."""


class WindowEncoder:
    """A text encoder with its tokenizer, for one window of tokens at a time.

    ``states`` picks the embeddings that guide the denoiser from the output of the network. Called like a text encoder
    of transformers, it returns them as the last hidden state, which is what Compel reads.
    """

    def __init__(
        self, network: Any, tokenizer: Any, window: int, device: str, states: Callable[[Any], torch.Tensor]
    ) -> None:
        self.network, self.tokenizer, self.window, self.states = network, tokenizer, window, states
        self.device, self.dtype = torch.device(device), network.dtype

    def __call__(  # noqa: D102  described by the class
        self, token_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> Any:
        output = self.network(token_ids.to(self.device), attention_mask=attention_mask, output_hidden_states=True)
        return SimpleNamespace(last_hidden_state=self.states(output))

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text, without the markers at its ends."""
        with quiet():
            found: list[int] = self.tokenizer(text, truncation=False, add_special_tokens=False).input_ids
        return found

    def encode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Encode the tokens of one window to embeddings (1, window, width)."""
        ids = [self.tokenizer.bos_token_id, *tokens, self.tokenizer.eos_token_id]
        ids += [self.tokenizer.pad_token_id] * (self.window - len(ids))
        states: torch.Tensor = self(torch.tensor([ids])).last_hidden_state
        return states

    def pooled(self, text: str) -> torch.Tensor:
        """Return the projected state (1, width) of the first window of a text, for a network with a projection."""
        with quiet():
            ids = self.tokenizer(
                text, padding="max_length", max_length=self.window, truncation=True, return_tensors="pt"
            ).input_ids
        found: torch.Tensor = self.network(ids.to(self.device))[0]
        return found


class _Read(Protocol):
    """A parsed prompt."""

    count: int
    """Number of windows that it fills."""

    def encode(self) -> torch.Tensor:
        """Return embeddings (1, count * window, width)."""


def encode_windows(
    encoders: Sequence[WindowEncoder], text: str, beside: str | None, reading: PromptReading, info: ModelInfo
) -> torch.Tensor:
    """Encode a prompt to embeddings (1, windows * window, width of all encoders side by side).

    It has as many windows as the longer of ``text`` and ``beside`` fills; windows past the text hold the empty prompt.
    Raises ValueError for a prompt that cannot be parsed and, where long prompts are refused, for one that does not fit
    a window.
    """
    reader = _Plain if reading.prompt_syntax == "plain" else _Weighted
    read: list[_Read] = [reader(encoder, text, reading, info) for encoder in encoders]
    others = [reader(encoder, beside, reading, info) for encoder in encoders] if beside is not None else []
    count = max(each.count for each in (*read, *others))
    rows = []
    for encoder, each in zip(encoders, read, strict=True):
        empty = [encoder.encode([])] * (count - each.count) if count > each.count else []
        rows.append(torch.cat([each.encode(), *empty], dim=1))
    return torch.cat(rows, dim=-1)


def pooled_text(text: str, reading: PromptReading) -> str:
    """Return the text from which the pooled embedding of a prompt is computed.

    As in Compel it is the text with its weight marks; in A1111's syntax it is the words alone.
    """
    if reading.prompt_syntax != "a1111":
        return text
    return " ".join(" ".join(words.strip() for words, _ in part) for part in parse_a1111(text))


class _Plain:
    """A prompt without a syntax for weights."""

    def __init__(self, encoder: WindowEncoder, text: str, reading: PromptReading, info: ModelInfo) -> None:
        self.encoder, tokens = encoder, encoder.tokens(text)
        room = encoder.window - 2
        if reading.long_prompts == "refuse" and len(tokens) > room:
            raise too_long(info, text, Reading(encoder.tokenizer, len(tokens), room))
        self.windows = list(_windows(encoder.tokenizer, tokens, room))
        self.count = len(self.windows)

    def encode(self) -> torch.Tensor:
        return torch.cat([self.encoder.encode(tokens) for tokens in self.windows], dim=1)


def _windows(tokenizer: Any, tokens: list[int], room: int) -> Iterator[list[int]]:
    """Yield the tokens of each window: cut after a sentence, else a phrase, else a word, as Compel does."""
    while len(tokens) > room:
        names = tokenizer.convert_ids_to_tokens(tokens[:room])
        word = frozenset(name for name in names if name.endswith("</w>"))
        cuts = (_last(names, ends) for ends in (_SENTENCE, _PHRASE, word))
        cut = next((place for place in cuts if place), room)
        yield tokens[:cut]
        tokens = tokens[cut:]
    yield tokens


def _last(names: Sequence[str], ends: frozenset[str]) -> int:
    """Count the tokens up to and including the last of ``ends``; 0 where there is none."""
    return max((place for place, name in enumerate(names, 1) if name in ends), default=0)


class _Weighted:
    """A prompt in a syntax that gives weights to words."""

    def __init__(self, encoder: WindowEncoder, text: str, reading: PromptReading, info: ModelInfo) -> None:
        from compel import Compel
        from compel.prompt_parser import Blend

        self.compel = Compel(
            tokenizer=encoder.tokenizer,
            text_encoder=encoder,
            truncate_long_prompts=False,
            device=str(encoder.device),
            model_max_length=encoder.window,
        )
        parse = _conjunction_of_a1111 if reading.prompt_syntax == "a1111" else _conjunction_of_compel
        self.conjunction = parse(text)
        self.count = 0
        for part in self.conjunction.prompts:
            counts = []
            for prompt in part.prompts if isinstance(part, Blend) else [part]:
                tokens = [len(encoder.tokens(piece.text)) for piece in prompt.children]
                if reading.long_prompts == "refuse" and sum(tokens) > encoder.window - 2:
                    words = " ".join(piece.text for piece in prompt.children)
                    raise too_long(info, words, Reading(encoder.tokenizer, sum(tokens), encoder.window - 2))
                counts.append(self._windows_of(prompt, encoder))
            self.count += max(counts)

    def encode(self) -> torch.Tensor:
        with quiet():
            embeds, _ = self.compel.build_conditioning_tensor_for_conjunction(self.conjunction)
        found: torch.Tensor = embeds
        return found

    def _windows_of(self, prompt: Any, encoder: WindowEncoder) -> int:
        pieces = prompt.children
        with quiet():
            ids, _, _ = self.compel.conditioning_provider.get_token_ids_and_expand_weights(
                [piece.text for piece in pieces], [piece.weight for piece in pieces], str(encoder.device)
            )
        return len(ids) // encoder.window


@lru_cache(maxsize=16)
def _conjunction_of_compel(text: str) -> Any:
    """Parse a prompt with Compel. Raises ValueError for what Compel would silently ignore."""
    from compel import Compel
    from compel.prompt_parser import Blend, PromptParser
    from pyparsing import ParseBaseException

    try:
        conjunction = Compel.parse_prompt_string(text)
        if ".and" in text or ".add" in text:  # parsed again, to the end: Compel stops reading after them
            PromptParser().conjunction.parse_string(text.replace(",", ", "), parse_all=True)
    except (PromptParser.ParsingException, PromptParser.UnrecognizedOperatorException, ParseBaseException) as error:
        raise ValueError(f'found a prompt that Compel cannot read, "{shown(text)}": {error}') from error
    if conjunction.lora_weights:
        raise ValueError(f'found a LoRA in the prompt "{shown(text)}", expected words and weights; leave it out')
    for part in conjunction.prompts:
        if not isinstance(part, Blend) and part.wants_cross_attention_control:
            raise ValueError(f'found .swap() in the prompt "{shown(text)}", which is not supported; write one of both')
    return conjunction


def _conjunction_of_a1111(text: str) -> Any:
    """Parse a prompt in A1111's syntax to Compel's form: each part between two BREAKs is a prompt of its own."""
    from compel.prompt_parser import Conjunction, FlattenedPrompt

    return Conjunction([FlattenedPrompt(part) for part in parse_a1111(text)])
