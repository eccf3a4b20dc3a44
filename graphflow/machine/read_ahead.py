"""Files read ahead by the system before they are wanted, so that loading a model waits less for the disk."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from graphflow.machine.memory import device_memory

__all__ = ["read_ahead"]

CHUNK = 128 << 10
"""Bytes asked for at once. Linux reads no more for one request than it would by itself, and drops the rest of it."""

SHARE = 0.8
"""Of the memory that the process can have; more would push out of it what was read before."""

_asked: set[tuple[Path, int]] = set()
"""Files, and when they were written: what was read once in this process is with the models, or still in memory."""


def read_ahead(files: Iterable[Path]) -> threading.Thread | None:
    """Begin to read files into the system's memory, in the order in which they are wanted, and return at once.

    Those that were asked for before are left out, and from the first one on that does not fit all others. Returned is
    the thread that asks the system, or None where there is nothing to read or no way to ask for it.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    wanted: list[tuple[Path, int]] = []
    room = None
    for file in dict.fromkeys(files):
        with contextlib.suppress(OSError):  # whoever reads it says better what is wrong
            status = file.stat()
            if (file, status.st_mtime_ns) in _asked:
                continue
            room = (device_memory("cpu") or 0) * SHARE if room is None else room
            if status.st_size > room:
                break
            room -= status.st_size
            _asked.add((file, status.st_mtime_ns))
            wanted.append((file, status.st_size))
    if not wanted:
        return None
    # the system reads while it is asked for more, but makes the caller wait when too much is on its way
    thread = threading.Thread(target=_ask, args=(wanted,), daemon=True, name="read ahead")
    thread.start()
    return thread


def _ask(files: Iterable[tuple[Path, int]]) -> None:
    for file, size in files:
        with contextlib.suppress(OSError), file.open("rb", buffering=0) as opened:
            for start in range(0, size, CHUNK):
                os.posix_fadvise(opened.fileno(), start, CHUNK, os.POSIX_FADV_WILLNEED)
