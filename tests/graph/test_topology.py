"""Order and cycles, against networkx."""

from __future__ import annotations

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from graphflow.graph.topology import cycles, topological_order
from tests.helpers.engine_pack import REGISTRY, Add, Number

NAMES = [f"n{index}" for index in range(8)]
GRAPHS = st.fixed_dictionaries({name: st.sets(st.sampled_from(NAMES), max_size=3) for name in NAMES})


def digraph_of(sources: dict[str, set[str]]) -> nx.DiGraph[str]:
    digraph: nx.DiGraph[str] = nx.DiGraph()
    digraph.add_nodes_from(sources)
    digraph.add_edges_from((source, name) for name, behind in sources.items() for source in behind)
    return digraph


@given(GRAPHS)
def test_the_order_is_topological_and_leaves_out_just_what_cycles_hold_back(sources: dict[str, set[str]]) -> None:
    order = topological_order(sources)
    digraph = digraph_of(sources)
    in_cycles = {node for cycle in nx.simple_cycles(digraph) for node in cycle}
    held_back = in_cycles.union(*(nx.descendants(digraph, node) for node in in_cycles))
    assert sorted(order) == sorted(set(sources) - held_back)
    places = {name: place for place, name in enumerate(order)}
    assert all(places[source] < places[name] for name in order for source in sources[name])


@given(GRAPHS)
def test_cycles_are_real_disjoint_and_all_that_has_to_be_cut(sources: dict[str, set[str]]) -> None:
    digraph = digraph_of(sources)
    found = list(cycles(sources))
    for cycle in found:
        assert all(digraph.has_edge(*edge) for edge in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        assert cycle[0] == min(cycle, key=list(sources).index)
    nodes = [node for cycle in found for node in cycle]
    assert len(nodes) == len(set(nodes))
    digraph.remove_nodes_from(nodes)
    assert nx.is_directed_acyclic_graph(digraph)


def test_a_graph_can_be_looked_at_with_networkx() -> None:
    workflow = gf.Workflow()
    one = workflow.add("one", Number(value=1))
    workflow.add("sum", Add(), left=one, right=one)
    graph = gf.bind(workflow, registry=REGISTRY)
    assert nx.is_directed_acyclic_graph(graph.digraph)
    assert graph.digraph.nodes["sum"]["bound"] is graph.bound("sum")
    assert graph.digraph.edges["one", "sum"]["ports"] == [("value", "left"), ("value", "right")]
