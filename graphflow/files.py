"""Paths that strangers wrote, files that a reader never sees half of, and records of files."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from graphflow.environment import CACHE_VARIABLE

__all__ = [
    "cache_folder",
    "file_record",
    "is_file",
    "real_path",
    "recorded_name",
    "write_atomically",
]


def cache_folder() -> Path:
    """``$GRAPHFLOW_CACHE``, or ``graphflow`` in the cache folder of the user (XDG)."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    # the XDG base directory specification takes absolute paths only
    shared = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(shared) if Path(shared).is_absolute() else Path.home() / ".cache") / "graphflow"


def is_file(path: Path) -> bool:
    """Check whether there is such a file; a path that cannot be one (too long, a NUL in it) is none."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for some of these


def real_path(path: Path) -> Path:
    """Return the absolute path with links followed; one that leads in a circle ends inside of it, and is no file."""
    return Path(os.path.realpath(path))  # Path.resolve raises for circles


def write_atomically(path: Path, data: bytes) -> Path:
    """Write ``data`` to ``path``, replacing what is there only once all of it is on the disk; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def file_record(path: Path, root: Path) -> dict[str, Any]:
    """Describe a saved file for a record: its path below ``root`` (or absolute), size in bytes, SHA-256 (hex).

    Raises OSError if it cannot be read.
    """
    with path.open("rb") as file:
        return {
            "path": recorded_name(path, root),
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            "size": path.stat().st_size,
        }


def recorded_name(path: Path, root: Path) -> str:
    """Name of a saved file in a record: its path below ``root``, or its absolute path."""
    absolute, base = path.resolve(), root.resolve()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)
