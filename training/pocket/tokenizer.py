"""The CLIP tokenizer of the pocket model: a byte-pair encoding in which every word of the captions is one token."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

LENGTH = 32
"""Positions of the text encoder, start and end marks included."""
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def build(words: list[str], folder: Path) -> CLIPTokenizer:
    """Trains the merges on the words, saves the tokenizer's files in the folder and returns the tokenizer.

    Unknown words still have tokens: all 256 byte symbols, inside and at the end of a word, are in the vocabulary.
    Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json, and vocab.json and merges.txt for programs
    that read the older files.
    """
    trained = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=100_000, min_frequency=1, end_of_word_suffix=WORD_END, show_progress=False)
    trained.train_from_iterator(sorted(set(words)) * 2, trainer)
    learned = json.loads(trained.to_str())["model"]["merges"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in learned]
    symbols = sorted(ByteLevel.alphabet())
    entries = symbols + [symbol + WORD_END for symbol in symbols] + [merge.replace(" ", "") for merge in merges]
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys([*entries, START, END]))}
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        **special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(str(folder))
    # The library's own file, which loads faster; its configuration is written again: it leaves fields out.
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return CLIPTokenizer.from_pretrained(str(folder))


def encode(tokenizer: CLIPTokenizer, captions: list[str]) -> list[list[int]]:
    """Token numbers of each caption, padded to `LENGTH`."""
    ids: list[list[int]] = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True)["input_ids"]
    return ids
