"""Order and cycles of a graph that is given as the sources of each node.

networkx could tell both, but importing it costs as much as half of the whole of `graphflow validate`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

__all__ = ["cycles", "topological_order"]


def topological_order(sources: Mapping[str, Collection[str]]) -> list[str]:
    """Sort nodes, each after its sources and else as they are given (Kahn 1962).

    ``sources`` maps each node to the nodes it takes values from, as often as it takes some. Nodes on a cycle are left
    out, and so is everything behind them.
    """
    waiting = {name: len(behind) for name, behind in sources.items()}
    consumers: dict[str, list[str]] = {}
    for name, behind in sources.items():
        for source in behind:
            consumers.setdefault(source, []).append(name)
    order = [name for name, count in waiting.items() if count == 0]
    for name in order:  # grows while it is walked
        for consumer in consumers.get(name, ()):
            waiting[consumer] -= 1
            if waiting[consumer] == 0:
                order.append(consumer)
    return order


def cycles(sources: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """Cycles with no node in common, such that nothing is left of a cycle without their nodes.

    Each is given in the direction of the edges, beginning with the node that stands first.
    """
    places = {name: place for place, name in enumerate(sources)}
    left = dict(sources)
    while True:
        for name in topological_order({name: [s for s in behind if s in left] for name, behind in left.items()}):
            del left[name]
        if not left:
            return
        # every node that is left has a source that is left: going back, a node comes again
        path: dict[str, int] = {}
        name = next(iter(left))
        while name not in path:
            path[name] = len(path)
            name = min((source for source in left[name] if source in left), key=places.__getitem__)
        cycle = list(path)[path[name] :][::-1]
        first = cycle.index(min(cycle, key=places.__getitem__))
        yield cycle[first:] + cycle[:first]
        for name in cycle:
            del left[name]
