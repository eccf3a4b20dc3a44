"""Stores of finished results, by key.

A store maps the key of a step to its outputs. It may forget anything at any time: a run is right without it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

from graphflow.types import size_of

__all__ = ["MemoryCache", "Store"]


class Store(Protocol):
    """What the scheduler asks of a store."""

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The outputs under ``key``, or None."""

    def put(self, key: str, outputs: Mapping[str, Any]) -> None:
        """Remember the outputs of a step."""


class MemoryCache:
    """Outputs kept in this process up to ``max_bytes``; what was used least recently goes first."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: OrderedDict[str, tuple[Mapping[str, Any], int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The outputs under ``key``, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: str, outputs: Mapping[str, Any]) -> None:
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

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.nbytes = 0
