"""A pool of loaded values under a budget of bytes per device, with least-recently-used eviction.

A value evicted from an accelerator is kept in the machine's memory while there is room, so that it can return without
being read again. Eviction only drops the reference of the pool: a step that still holds the value can go on using it,
and its memory is freed after that.
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
"""The device that receives values evicted from the others."""


def default_budget(device: str) -> int:
    """Return the bytes of models to keep on a device: 80 % of an accelerator's memory, half of the machine's."""
    if device.startswith("cuda"):
        return int((device_memory(device) or 0) * 0.8)
    whole = machine_memory()
    return 4 << 30 if whole is None else whole // 2


@dataclass(slots=True)
class _Entry:
    value: Any
    size: int
    copy: Callable[[Any, str], Any] | None
    """Function that copies the value to a device; None for a value that cannot be copied."""


class Pool:
    """A thread-safe store of loaded values by device and key. The same key on another device is the same value there.

    Values are loaded under the lock: diffusers and transformers patch torch for the whole process while they build a
    model, so two of them at once would interfere.
    """

    def __init__(self, budget: Callable[[str], int] = default_budget) -> None:
        self._budget = budget
        self._entries: OrderedDict[tuple[str, Hashable], _Entry] = OrderedDict()
        self._limits: dict[str, int] = {}
        self._lock = threading.RLock()
        self.loads = 0
        """Number of values loaded so far, without those that returned from the machine's memory."""

    def __len__(self) -> int:
        return len(self._entries)

    def nbytes(self, device: str) -> int:
        """Return the bytes held on a device."""
        with self._lock:
            return sum(entry.size for (held_on, _), entry in self._entries.items() if held_on == device)

    def limit(self, device: str, nbytes: int | None) -> None:
        """Limit a device to ``nbytes``, if that is below its budget, from the next `get` on; None removes the limit."""
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
        """Return the value under ``key``, loaded by ``load`` if it is absent. A value over the budget is kept alone.

        Room for ``expected`` bytes is made before it is loaded, and for its true ``size`` after. With ``copy``, which
        copies a value to a device, eviction from an accelerator moves it to the machine's memory, if there is room.
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
        """Move a value from the machine's memory back to its device; None where it is not there."""
        kept = self._entries.pop((HOST, key), None)
        if kept is None or kept.copy is None:
            return None
        self._evict(device, kept.size)
        entry = self._entries[device, key] = _Entry(kept.copy(kept.value, device), kept.size, kept.copy)
        return entry

    def _evict(self, device: str, wanted: int, besides: Hashable = None) -> None:
        """Evict values, least recently used first and never ``besides``, until ``wanted`` bytes more fit."""
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
        """Drop all values."""
        with self._lock:
            self._entries.clear()
