"""Placement: the step that comes next, and its device.

On one device the steps run in the order of the plan. On several, a device that is free takes the first step that is
ready and whose models it holds already. Failing that, one of models that no device holds yet, unless a device that
holds fewer is free too; at last one that belongs to a device that is busy, which costs a load and saves the waiting. A
step without a model belongs where its inputs were made. Steps with an effect keep their order within their folder, so
that files get the same names on any number of devices.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from graphflow.node import Ref
from graphflow.planning.planner import Step

__all__ = ["Placement", "Unit"]


Unit = tuple[Step, ...]
"""Steps that one device runs at once."""


class Placement:
    """Gives out units to devices, each once, and none before those that it needs are done. Not thread-safe."""

    def __init__(self, units: Sequence[Unit], devices: Sequence[str], present: Collection[Ref] = ()) -> None:
        """``units`` are in an order in which they could run; ``present`` are values that are there already."""
        self.left = len(units)
        """Number of units that are not done yet."""
        self._devices = tuple(devices)
        self._units = units
        self._in_order = iter(units)
        self._busy: set[str] = set()
        self._holds: dict[str, set[str]] = {device: set() for device in devices}
        self._made_on: dict[int, str] = {}
        self._missing: list[int] = []
        self._waiting: dict[int, list[int]] = {}
        self._ready: dict[tuple[tuple[str, ...], str], list[int]] = {}
        self._several = len(devices) > 1
        if self._several:
            self._connect(present)

    def take(self, device: str) -> Unit | None:
        """Take the unit that the device is to run next; None while there is nothing for it."""
        if not self._several:
            return next(self._in_order, None)
        self._busy.discard(device)
        ranked = [
            (rank, ready[0], group) for group, ready in self._ready.items() if (rank := self._rank(device, group))
        ]
        if not ranked:
            return None
        _, number, group = min(ranked)
        heapq.heappop(self._ready[group])
        if not self._ready[group]:
            del self._ready[group]
        self._busy.add(device)
        self._holds[device] |= {*group[0]}
        self._made_on |= {step.index: device for step in self._units[number]}
        return self._units[number]

    def done(self, unit: Unit) -> None:
        """Report that the steps of a unit are done, so that those that waited for them may run."""
        self.left -= 1
        for step in unit if self._several else ():
            for user in self._waiting.pop(step.index, ()):
                self._missing[user] -= 1
                if not self._missing[user]:
                    self._add(user)

    def _connect(self, present: Collection[Ref]) -> None:
        known = {step.index for unit in self._units for step in unit}
        last_effect: dict[str, int] = {}
        for number, unit in enumerate(self._units):
            needs = {value.step for step in unit for value in step.refs if value not in present} & known
            for step in unit:
                if step.node.effect:
                    if step.folder in last_effect:
                        needs.add(last_effect[step.folder])
                    last_effect[step.folder] = step.index
            self._missing.append(len(needs))
            for need in needs:
                self._waiting.setdefault(need, []).append(number)
            if not needs:
                self._add(number)

    def _add(self, number: int) -> None:
        """Put a unit where a device finds it: with those of the same models, or whose inputs are in the same place."""
        step = self._units[number][0]
        models = step.node.models()
        homes = () if models else (self._made_on.get(value.step) for value in step.refs)
        group = (models, next((home for home in homes if home), ""))
        heapq.heappush(self._ready.setdefault(group, []), number)

    def _rank(self, device: str, group: tuple[tuple[str, ...], str]) -> int:
        """Rank how well a group of units suits a free device: 1 is best, 0 means that it is to leave them alone."""
        models, home = group
        if not models:
            if home in ("", device):
                return 1
            return 3 if home in self._busy else 0
        owners = [each for each in self._devices if self._holds[each].issuperset(models)]
        if device in owners:
            return 1
        if owners:
            return 3 if all(each in self._busy for each in owners) else 0
        fewest = min(
            (each for each in self._devices if each not in self._busy), key=lambda each: len(self._holds[each])
        )
        return 2 if len(self._holds[device]) <= len(self._holds[fewest]) else 0
