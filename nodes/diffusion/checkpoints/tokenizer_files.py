"""Tokenizer vocabularies for checkpoints in a single file.

Such a file holds none, and vocabularies are not ours to ship. All models of CLIP share one, and so do those of T5, so
any copy on this machine serves: in the folder beside the file, in the repositories of their origin, or in any pipeline
in the Hugging Face cache with the same class and number of words.

Models differ in the padding token and in the number of tokens that fit. Both are in our configurations
(``tokenizer_config.json``) and override those of the copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphflow import Problem
from graphflow.nodes.diffusion.checkpoints.location import hub_cache, model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import UnusableError, read_json
from graphflow.nodes.files.file_digest import file_digest

__all__ = ["find_tokenizer", "settings_of", "tokenizer_record", "tokenizer_source"]

_SETTINGS = ("pad_token", "model_max_length")

_FILES = {
    "CLIPTokenizer": ("vocab.json", "merges.txt"),
    "T5Tokenizer": ("spiece.model",),
}
_SOURCES = {
    "CLIPTokenizer": ("openai/clip-vit-large-patch14", ("vocab.json", "merges.txt", "tokenizer_config.json")),
    "T5Tokenizer": ("google/t5-v1_1-xxl", ("spiece.model", "special_tokens_map.json", "tokenizer_config.json")),
}
"""The repository with the vocabulary of each class of tokenizers, and the files needed from it."""


def find_tokenizer(reference: str, folder: Path, vocabulary: int) -> Path:
    """Find a folder with the vocabulary for the configuration in ``folder``, of ``vocabulary`` words.

    Raises UnusableError with a command that fetches one.
    """
    if _complete(folder):
        return folder
    cls = str(read_json(reference, folder / "tokenizer_config.json")["tokenizer_class"]).removesuffix("Fast")
    repository, files = _SOURCES.get(cls, ("", ()))
    for candidate in _candidates(repository):
        if _fits(candidate, cls, vocabulary):
            return candidate
    message = (
        f'the model "{reference}" is a single file, which holds no vocabulary, and no {cls} of {vocabulary} words was '
        f"found in the local cache {hub_cache()}"
    )
    command = f"hf download {repository} {' '.join(files)}"
    hint = f"fetch one once: {command}" if repository else "put a folder tokenizer/ in the folder beside the file"
    raise UnusableError(model_problem("missing.tokenizer", message, hint))


def settings_of(folder: Path) -> dict[str, Any]:
    """Return the settings that override those of the vocabulary's copy; none where ``folder`` has a vocabulary."""
    if _complete(folder):
        return {}
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    return {name: config[name] for name in _SETTINGS if name in config}


def tokenizer_record(folder: Path, settings: Mapping[str, Any]) -> list[Any]:
    """Return all of a tokenizer that determines a result, as JSON: names and digests of its files, and settings."""
    files = [path for path in sorted(folder.glob("*")) if path.suffix in (".json", ".txt", ".model", ".jinja")]
    record: list[Any] = [[file.name, file_digest(file)] for file in files]
    return [*record, dict(settings)] if settings else record


def tokenizer_source(problem: Problem) -> tuple[str, tuple[str, ...]] | None:
    """Return the repository and files that fix a missing tokenizer; None for any other problem."""
    if problem.code != "missing.tokenizer":
        return None
    return next((source for source in _SOURCES.values() if source[0] in problem.hint), None)


def _complete(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("vocab.json", "spiece.model", "tokenizer.json"))


def _candidates(repository: str) -> Iterator[Path]:
    cache = hub_cache()
    known = cache / f"models--{repository.replace('/', '--')}"
    others = sorted(cache.glob("models--*")) if cache.is_dir() else []
    for model in [known, *others]:
        for snapshot in sorted((model / "snapshots").glob("*")):
            if model == known:
                yield snapshot
            yield from sorted(snapshot.glob("tokenizer*"))


def _fits(folder: Path, cls: str, vocabulary: int) -> bool:
    if not all((folder / name).is_file() for name in _FILES[cls]):
        return False
    if cls == "CLIPTokenizer":
        vocab = folder / "vocab.json"
        return _words(vocab, vocab.stat().st_mtime_ns) == vocabulary
    # The words of a SentencePiece model cannot be counted without its library: T5's is recognised by name alone.
    return True


@lru_cache(maxsize=64)
def _words(vocab: Path, written: int) -> int:
    """Count the words of a vocabulary, 0 for a damaged one. ``written`` (ns) is a part of the cache key only."""
    try:
        return len(json.loads(vocab.read_bytes()))
    except (OSError, ValueError, TypeError):
        return 0
