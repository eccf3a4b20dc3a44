"""The order of steps: those that need one model together, so that models are loaded as seldom as can be.

The steps come in an order in which few values live at once (depth first). Of the steps that are ready, one that needs
the models of the step before goes first; where there is none, the one that comes first in that order. A step without a
model goes with the step that it prepares something for, or else with the one whose result it takes: a picture is loaded
when it is needed, and saved when it is there.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from graphflow.planning.step import Batches, Step

__all__ = ["grouped"]

Models = tuple[str, ...]


def grouped(steps: Sequence[Step], order: list[int], batches: Batches) -> list[int]:
    """Return the steps of ``order``, which is topological, in the order of the plan.

    The steps of a batch, which follow each other in ``order``, come after all that any of them needs.
    """
    models = {index: steps[index].node.models() for index in order}
    if len(set(models.values()) - {()}) < 2:
        return order
    sources = {
        index: {ref.step for each in batches.get(index, (index,)) for ref in steps[each].refs} for index in order
    }
    groups = _groups(order, models, sources)
    rank = {index: place for place, index in enumerate(order)}
    users: dict[int, list[int]] = {index: [] for index in order}
    for index in order:
        for source in sources[index]:
            users[source].append(index)
    missing = {index: len(sources[index]) for index in order}
    ready: dict[Models, list[int]] = {}
    waiting: list[tuple[int, int]] = []

    def add(index: int) -> None:
        heapq.heappush(ready.setdefault(groups[index], []), rank[index])
        heapq.heappush(waiting, (rank[index], index))

    for index in order:
        if not missing[index]:
            add(index)
    places: dict[int, int] = {}
    current: Models = ()
    while len(places) < len(order):
        if not ready.get(current):
            current = _next_group(current, ready, waiting, places, groups)
        index = order[heapq.heappop(ready[current])]
        places[index] = len(places)
        for user in users[index]:
            missing[user] -= 1
            if not missing[user]:
                add(user)
    return list(places)


def _groups(order: Sequence[int], models: Mapping[int, Models], sources: Mapping[int, set[int]]) -> dict[int, Models]:
    """Return the models that each step belongs to, its own or those of a neighbour."""
    groups: dict[int, Models] = dict(models)
    for index in reversed(order):
        if groups[index]:
            for source in sources[index]:
                if not models[source]:
                    groups[source] = groups[index]
    for index in order:
        if not groups[index]:
            groups[index] = next((groups[source] for source in sorted(sources[index]) if groups[source]), ())
    return groups


def _next_group(
    current: Models,
    ready: Mapping[Models, list[int]],
    waiting: list[tuple[int, int]],
    places: Mapping[int, int],
    groups: Mapping[int, Models],
) -> Models:
    """Return the models to go on with: those that share one with the last, else those of the first ready step."""
    sharing = [group for group, ranks in ready.items() if ranks and set(group) & set(current)]
    if sharing:
        return min(sharing, key=lambda group: ready[group][0])
    while waiting[0][1] in places:
        heapq.heappop(waiting)
    return groups[waiting[0][1]]
