"""Loaded things, kept under a budget of bytes for each device; what was used least recently goes first.

What goes from an accelerator is kept in the machine's memory while there is room for it, so that it comes back without
being read again. The pool forgets, it does not destroy: whoever still holds an evicted value may go on using it where
it is, and its memory is free once nobody does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from graphflow.machine.memory import device_memory, machine_memory

__all__ = ["Pool", "default_budget"]

Value = TypeVar("Value")

HOST = "cpu"
"""The device that what others have no room for goes to."""


def default_budget(device: str) -> int:
    """Bytes of models kept on a device: 80 % of an accelerator's memory, half of the machine's for the CPU."""
    if device.startswith("cuda"):
        return int((device_memory(device) or 0) * 0.8)
    whole = machine_memory()
    return 4 << 30 if whole is None else whole // 2


@dataclass(slots=True)
class _Entry:
    value: Any
    size: int
    copy: Callable[[Any, str], Any] | None
    """Makes a copy of the value on a device; None for what cannot be copied."""


class Pool:
    """A thread-safe store of loaded values by device and key. The same key on another device is the same value there.

    Loading happens under the lock: while diffusers and transformers build a model they patch torch for the whole
    process, so two of them at once would disturb each other.
    """

    def __init__(self, budget: Callable[[str], int] = default_budget) -> None:
        self._budget = budget
        self._entries: OrderedDict[tuple[str, Hashable], _Entry] = OrderedDict()
        self._limits: dict[str, int] = {}
        self._lock = threading.RLock()
        self.loads = 0
        """How many values were loaded so far; one that came back from the machine's memory was not."""

    def __len__(self) -> int:
        return len(self._entries)

    def nbytes(self, device: str) -> int:
        """Bytes held for a device."""
        with self._lock:
            return sum(entry.size for (held_on, _), entry in self._entries.items() if held_on == device)

    def limit(self, device: str, nbytes: int | None) -> None:
        """Keep less on a device than the budget allows, from the next `get` on; None takes that back."""
        with self._lock:
            self._limits.pop(device, None)
            if nbytes is not None:
                self._limits[device] = nbytes

    def get(
        self,
        device: str,
        key: Hashable,
        load: Callable[[], Value],
        size: Callable[[Value], int],
        *,
        expected: int = 0,
        copy: Callable[[Value, str], Value] | None = None,
    ) -> Value:
        """The value under ``key``, loaded by ``load`` if it is not there. A value over the budget is kept alone.

        Room for ``expected`` bytes is made before it is loaded, and for its true ``size`` after. With ``copy``, which
        makes a copy on a device, it goes to the machine's memory when an accelerator has no more room for it.
        """
        with self._lock:
            entry = self._entries.get((device, key))
            if entry is None:
                entry = self._come_back(device, key)
            if entry is None:
                self._evict(device, expected)
                value = load()
                self.loads += 1
                entry = _Entry(value, size(value), copy)
                self._entries[device, key] = entry
            self._entries.move_to_end((device, key))
            self._evict(device, 0, besides=key)
            found: Value = entry.value
            return found

    def _come_back(self, device: str, key: Hashable) -> _Entry | None:
        """A value that had gone to the machine's memory, on its device again."""
        kept = self._entries.pop((HOST, key), None)
        if kept is None or kept.copy is None:
            return None
        self._evict(device, kept.size)
        entry = self._entries[device, key] = _Entry(kept.copy(kept.value, device), kept.size, kept.copy)
        return entry

    def _evict(self, device: str, wanted: int, besides: Hashable = None) -> None:
        """Let values go, those used least recently first, until ``wanted`` bytes more fit."""
        budget, held = self._budget(device), self.nbytes(device) + wanted
        budget = min(budget, self._limits.get(device, budget))
        for name in [name for name in self._entries if name[0] == device and name[1] != besides]:
            if held <= budget:
                return
            entry = self._entries.pop(name)
            held -= entry.size
            if device != HOST and entry.copy is not None and entry.size <= self._room():
                self._evict(HOST, entry.size)
                self._entries[HOST, name[1]] = _Entry(entry.copy(entry.value, HOST), entry.size, entry.copy)

    def _room(self) -> int:
        budget = self._budget(HOST)
        return min(budget, self._limits.get(HOST, budget))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
