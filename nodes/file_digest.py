"""What a file contains, as a hash, without reading it again while it has not changed."""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

__all__ = ["file_digest"]

HASHED_WHOLE = 256 << 20
"""Larger files (bytes) are known by a sample, size and time of change, so that planning stays quick."""

_SAMPLE = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 (hex) that identifies the content of a file; remembered in the process by size and time of change.

    A file in a Hugging Face cache is stored under its own hash, which is taken as it stands. Of a file larger than
    `HASHED_WHOLE` only size, time of change and the first and last mebibyte count. Raises OSError if it cannot be read.
    """
    status = path.stat()
    return _digest(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: str, size: int, changed: int) -> str:
    real = Path(path).resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    with real.open("rb") as file:
        if size <= HASHED_WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        record = hashlib.sha256(f"{size} {changed} ".encode())
        record.update(file.read(_SAMPLE))
        file.seek(-_SAMPLE, os.SEEK_END)
        record.update(file.read(_SAMPLE))
        return record.hexdigest()
