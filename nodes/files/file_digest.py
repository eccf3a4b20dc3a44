"""Hashes of files, taken again only once a file has changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from graphflow import cache_folder, file_answer, write_atomically

__all__ = ["REMEMBERED_FROM", "file_digest"]

REMEMBERED_FROM = 8 << 20
"""Hashes of files of so many bytes or more are remembered on the disk: those of smaller ones are quickly taken."""


@file_answer
def file_digest(path: Path) -> str:
    """SHA-256 (hex) of the content of a file. Raises OSError if it cannot be read.

    It is remembered as long as size and time of change stay what they are, in the process and for large files in
    GraphFlow's cache folder, so that gigabytes of weights are read once. A file in a Hugging Face cache is stored under
    its own hash, which is taken as it stands.
    """
    status = path.stat()
    return _digest(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: str, size: int, changed: int) -> str:
    real = Path(path).resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    if size < REMEMBERED_FROM:
        return _hashed(real)
    state = [str(real), size, changed]
    side = cache_folder() / "digests" / f"{hashlib.sha256(str(real).encode()).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(side.read_bytes())
        if kept["file"] == state and re.fullmatch(r"[0-9a-f]{64}", kept["sha256"]):
            return str(kept["sha256"])
    digest = _hashed(real)
    with contextlib.suppress(OSError):  # where nothing can be kept it is taken again
        write_atomically(side, json.dumps({"file": state, "sha256": digest}).encode())
    return digest


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
