"""Which step comes next, and on which device.

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
from graphflow.plan import Step

__all__ = ["Placement"]


class Placement:
    """Gives out steps to devices, each once, and none before those that it needs are done. Not thread-safe."""

    def __init__(self, steps: Sequence[Step], devices: Sequence[str], present: Collection[Ref] = ()) -> None:
        """``steps`` are in an order in which they could run; ``present`` are values that are there already."""
        self.left = len(steps)
        """How many steps are not done yet."""
        self._devices = tuple(devices)
        self._busy: set[str] = set()
        self._holds: dict[str, set[str]] = {device: set() for device in devices}
        self._made_on: dict[int, str] = {}
        self._steps = {step.index: step for step in steps}
        self._missing: dict[int, int] = {}
        self._waiting: dict[int, list[int]] = {}
        self._ready: dict[tuple[tuple[str, ...], str], list[int]] = {}
        self._in_order = iter(steps)
        if len(self._devices) > 1:
            self._connect(steps, present)

    def take(self, device: str) -> Step | None:
        """The step that the device is to run now; None while there is none for it."""
        if len(self._devices) == 1:
            return next(self._in_order, None)
        self._busy.discard(device)
        ranked = [
            (rank, ready[0], group) for group, ready in self._ready.items() if (rank := self._rank(device, group))
        ]
        if not ranked:
            return None
        _, index, group = min(ranked)
        heapq.heappop(self._ready[group])
        if not self._ready[group]:
            del self._ready[group]
        self._busy.add(device)
        self._holds[device] |= {*group[0]}
        self._made_on[index] = device
        return self._steps[index]

    def done(self, step: Step) -> None:
        """Tell that a step is done, so that those that waited for it may run."""
        self.left -= 1
        for user in self._waiting.pop(step.index, ()):
            self._missing[user] -= 1
            if not self._missing[user]:
                self._add(self._steps[user])

    def _connect(self, steps: Sequence[Step], present: Collection[Ref]) -> None:
        last_effect: dict[str, int] = {}
        for step in steps:
            needs = {
                value.step
                for value in step.inputs.values()
                if isinstance(value, Ref) and value.step in self._steps and value not in present
            }
            if step.node.effect:
                if step.folder in last_effect:
                    needs.add(last_effect[step.folder])
                last_effect[step.folder] = step.index
            self._missing[step.index] = len(needs)
            for need in needs:
                self._waiting.setdefault(need, []).append(step.index)
            if not needs:
                self._add(step)

    def _add(self, step: Step) -> None:
        """Put a step where a device finds it: with those of the same models, or whose inputs are in the same place."""
        models = step.node.models()
        homes = () if models else (self._made_on.get(value.step) for value in _refs(step))
        group = (models, next((home for home in homes if home), ""))
        heapq.heappush(self._ready.setdefault(group, []), step.index)

    def _rank(self, device: str, group: tuple[tuple[str, ...], str]) -> int:
        """How well a group of steps suits a free device: 1 is best, 0 means that it is to leave them alone."""
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


def _refs(step: Step) -> list[Ref]:
    return [value for value in step.inputs.values() if isinstance(value, Ref)]
