"""Claims: processes that share a folder agree that only one of them works on a key.

A claim is a lock on one byte of a file, at a place that the key gives, so that any number of keys needs one file,
nothing is left behind, and the system takes a claim back when its process ends, however it ends. Where the system has
no such locks (Windows), everything may be claimed, and two processes may do the same work.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["KeyClaim", "claim_in"]

_PLACES = 2**62
"""Number of places; files may not be longer. Two keys in one place would only wait for each other."""

_files: dict[Path, _LockFile] = {}
_guard = threading.Lock()


class KeyClaim:
    """A claim that is held until it is released."""

    def __init__(self, file: _LockFile, place: int) -> None:
        self._file, self._place = file, place

    def release(self) -> None:
        """Give it back."""
        self._file.unlock(self._place)


def claim_in(path: Path, key: str) -> KeyClaim | None:
    """Claim a key (hex digits) in the file of locks at ``path``; None where another process or thread holds it.

    Raises OSError where the file cannot be made.
    """
    with _guard:
        # one open file for each path and process: to close a second one would give the locks of the first back
        file = _files.get(path)
        if file is None:
            file = _files[path] = _LockFile(path)
    place = int(key[:16], 16) % _PLACES
    return KeyClaim(file, place) if file.lock(place) else None


class _LockFile:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        self._held: set[int] = set()
        self._process = os.getpid()
        self._threads = threading.Lock()

    def lock(self, place: int) -> bool:
        with self._threads:
            if self._process != os.getpid():  # a fork has the set of its parent, but none of its locks
                self._held, self._process = set(), os.getpid()
            if place in self._held:
                return False
            if fcntl is not None:
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                except (BlockingIOError, PermissionError):
                    return False
                except OSError:
                    pass  # a file system without locks: whoever asks may compute
            self._held.add(place)
            return True

    def unlock(self, place: int) -> None:
        with self._threads:
            if place in self._held:
                self._held.discard(place)
                if fcntl is not None:
                    with contextlib.suppress(OSError):
                        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)
