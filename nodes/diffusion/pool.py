"""Loaded things, kept under a budget of bytes for each device; what was used least recently goes first.

The pool forgets, it does not destroy: whoever still holds an evicted value may go on using it, and its memory is free
once nobody does.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch

__all__ = ["Pool", "default_budget"]

Value = TypeVar("Value")


def default_budget(device: str) -> int:
    """Bytes of models kept on a device: 80 % of an accelerator's memory, half of the machine's for the CPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(torch.device(device)).total_memory * 0.8)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 << 30


class Pool:
    """A thread-safe store of loaded values by device and key.

    Loading happens under the lock: while diffusers and transformers build a model they patch torch for the whole
    process, so two of them at once would disturb each other.
    """

    def __init__(self, budget: Callable[[str], int] = default_budget) -> None:
        self._budget = budget
        self._entries: OrderedDict[tuple[str, Hashable], tuple[Any, int]] = OrderedDict()
        self._limits: dict[str, int] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def nbytes(self, device: str) -> int:
        """Bytes held for a device."""
        with self._lock:
            return sum(size for (held_on, _), (_, size) in self._entries.items() if held_on == device)

    def limit(self, device: str, nbytes: int | None) -> None:
        """Keep less on a device than the budget allows, from the next `get` on; None takes that back."""
        with self._lock:
            self._limits.pop(device, None)
            if nbytes is not None:
                self._limits[device] = nbytes

    def get(self, device: str, key: Hashable, load: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """The value under ``key``, loaded by ``load`` if it is not there. A value over the budget is kept alone."""
        with self._lock:
            entry = self._entries.get((device, key))
            if entry is not None:
                self._entries.move_to_end((device, key))
                self._evict(device)
                value: Value = entry[0]
                return value
            value = load()
            self._entries[device, key] = (value, size(value))
            self._evict(device)
            return value

    def _evict(self, device: str) -> None:
        budget, held = self._budget(device), self.nbytes(device)
        budget = min(budget, self._limits.get(device, budget))
        mine = [name for name in self._entries if name[0] == device]
        for name in mine[:-1]:
            if held <= budget:
                return
            held -= self._entries.pop(name)[1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
