"""Look-up of what is done already: for each step of a plan, whether it has to run.

The steps are looked at backward from the wanted values, so what only a known result needs is not needed at all. Nothing
is read but the names of files in the store, and the files that saving steps wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from graphflow.node import Ref
from graphflow.planning.planner import Plan
from graphflow.run.receipts import find_receipt
from graphflow.store.interface import Store, Warn

__all__ = ["LookUp", "look_up"]

State = Literal["run", "cached", "unneeded"]


@dataclass(slots=True)
class LookUp:
    """The state of each step by its index, and the files of saving steps that are done."""

    states: list[State]
    files: dict[int, list[Path]] = field(default_factory=dict)


def look_up(
    plan: Plan,
    store: Store | None,
    output_folder: Path,
    warn: Warn = lambda message: None,
    *,
    lost: Collection[str] = (),
    present: Mapping[Ref, object] | None = None,
    finished: Collection[int] = (),
) -> LookUp:
    """Look a plan up in a store.

    ``lost`` are keys that the store has in name only. In the middle of a run, ``present`` are the values that are there
    and ``finished`` the steps with an effect that are done.
    """
    states: list[State] = ["run"] * len(plan.steps)
    found = LookUp(states)
    if store is None and not present:
        return found
    present = present or {}
    steps_needed = {ref.step for ref in plan.results.values() if ref not in present}
    for step in reversed(plan.steps):
        index, node = step.index, step.node
        if node.effect:
            if index in finished:
                states[index] = "unneeded"
                continue
            files = find_receipt(store, step, output_folder / step.folder, warn) if store is not None else None
            if files is not None:
                states[index] = "cached"
                found.files[index] = files
                continue
        elif index not in steps_needed:
            states[index] = "unneeded"
            continue
        elif store is not None and node.cached and step.key not in lost and store.has(step.key):
            states[index] = "cached"
            continue
        steps_needed.update([ref.step for ref in step.refs if ref not in present])
    return found
