"""Units: the steps that one device runs at once, a single one or as many of a batch as memory and devices allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from graphflow.machine.memory import free_memory
from graphflow.planning.planner import Plan, Step
from graphflow.planning.step import memory_of_batch
from graphflow.run.lookup import State
from graphflow.run.placement import Unit

__all__ = ["make_units"]


def make_units(plan: Plan, wanted: Iterable[Step], states: Sequence[State], devices: int) -> list[Unit]:
    """Divide the steps that are needed into units, in order.

    Of a batch only the steps that have to run are in one unit; they are shared out among the devices.
    """
    units: list[Unit] = []
    taken: set[int] = set()
    for step in wanted:
        if len(step.batch) < 2:
            units.append((step,))
            continue
        if step.index in taken:
            continue
        running = [plan.steps[each] for each in step.batch if states[each] == "run"]
        if states[step.index] == "run" and len(running) > 1:
            size = min(_fitting(plan, step, len(running)), math.ceil(len(running) / devices))
            units += [tuple(running[start : start + size]) for start in range(0, len(running), size)]
            taken.update(each.index for each in running)
        else:
            units.append((step,))
    return units


def _fitting(plan: Plan, step: Step, most: int) -> int:
    """Count how many steps equal to this one fit into the memory that there is, as one batch."""
    compute = plan.compute
    limit = free_memory(compute.device) if compute.memory_budget is None else compute.memory_budget
    count = most
    while count > 1 and limit is not None:
        need = memory_of_batch(step.node, step.input_types, count, compute)
        if need is None or need.total <= limit:
            break
        count -= 1
    return count
