"""Order and cycles of a graph that is given as the sources of each node.

networkx does what is seldom needed, and is imported for that alone: its import costs as much as half of the whole of
`graphflow validate`, and an acyclic graph needs no more than the twelve lines of `topological_order`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["cycles", "topological_order"]


def topological_order(sources: Mapping[str, Collection[str]]) -> list[str]:
    """The nodes, each after its sources and else as they are given (Kahn 1962).

    ``sources`` maps each node to the distinct nodes it takes values from. Nodes on a cycle are left out, and so is
    everything behind them.
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
    """One cycle out of each strongly connected part, in the direction of the edges, first the node given first."""
    import networkx as nx

    digraph: nx.DiGraph[str] = nx.DiGraph((source, name) for name, behind in sources.items() for source in behind)
    places = {name: place for place, name in enumerate(sources)}
    for component in nx.strongly_connected_components(digraph):
        first = min(component, key=places.__getitem__)
        if len(component) > 1 or digraph.has_edge(first, first):
            yield [edge[0] for edge in nx.find_cycle(digraph.subgraph(component), first)]
