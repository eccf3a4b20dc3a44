"""Stores of finished results, by key.

A store maps the key of a step to its outputs. It may forget anything at any time: a run is right without it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from graphflow.types import PortType, size_of

__all__ = ["UNSHARED", "Claim", "MemoryCache", "Store", "Warn"]

Warn = Callable[[str], None]
"""Receives a message about something legal but surprising."""


class Claim(Protocol):
    """The right to compute what belongs to a key, while nobody else does."""

    def release(self) -> None:
        """Give it back."""


class Store(Protocol):
    """A store, as the scheduler uses it."""

    def has(self, key: str) -> bool:
        """Check whether there are outputs under ``key``; `get` may still find them damaged, or gone."""

    def get(self, key: str, types: Mapping[str, PortType], warn: Warn) -> Mapping[str, Any] | None:
        """Return the outputs under ``key``, of these types, or None."""

    def put(self, key: str, outputs: Mapping[str, Any], warn: Warn) -> None:
        """Remember the outputs of a step."""

    def claim(self, key: str) -> Claim | None:
        """Begin to compute what belongs to ``key``; None while another process does."""


class MemoryCache:
    """Outputs kept in this process up to ``max_bytes``; what was used least recently goes first."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: OrderedDict[str, tuple[Mapping[str, Any], int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def has(self, key: str) -> bool:
        """Check whether there are outputs under ``key``."""
        return key in self._entries

    def get(
        self, key: str, types: Mapping[str, PortType] | None = None, warn: Warn | None = None
    ) -> Mapping[str, Any] | None:
        """Return the outputs under ``key``, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: str, outputs: Mapping[str, Any], warn: Warn | None = None) -> None:
        """Remember the outputs of a step, unless they alone are larger than the whole cache."""
        # an entry is never free, so that millions of plain values are bounded too
        size = 200 + sum(size_of(value) for value in outputs.values())
        if size > self.max_bytes:
            return
        with self._lock:
            if key in self._entries:
                self.nbytes -= self._entries.pop(key)[1]
            self._entries[key] = (dict(outputs), size)
            self.nbytes += size
            while self.nbytes > self.max_bytes:
                self.nbytes -= self._entries.popitem(last=False)[1][1]

    def claim(self, key: str) -> Claim:
        """Nobody else can compute for this store: it belongs to one process."""
        return UNSHARED

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.nbytes = 0


class _Unshared:
    def release(self) -> None:
        """There is nothing to give back."""


UNSHARED: Claim = _Unshared()
"""The claim where nobody else can compute, or could know of it."""
