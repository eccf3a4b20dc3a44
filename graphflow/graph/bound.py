"""Graph: a workflow bound to its node types, as plain data. `graphflow.graph.binder` makes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graphflow.document.inputs import Unbound
from graphflow.document.library import Library
from graphflow.document.workflow import WorkflowDocument
from graphflow.errors import Problem
from graphflow.fetching import Fetcher
from graphflow.file_answers import cached_answers
from graphflow.graph.flatten import Edge, FlatNode
from graphflow.node import Node
from graphflow.registry import Registry
from graphflow.types import PLAIN_KINDS, PortType

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["BoundNode", "Constant", "Graph", "Loaded", "largest_weights", "type_of_constant"]


class Constant(NamedTuple):
    """A value known before the run, on a port."""

    value: Any

    @property
    def plain(self) -> bool:
        """True for a text, a number, or true or false, which stand in a file and in a key as they are."""
        return isinstance(self.value, (str, int, float, bool))


@dataclass(slots=True)
class BoundNode:
    """A node instance with its ports connected and its types known."""

    name: str
    node: Node
    inputs: dict[str, Edge | Constant]
    flat: FlatNode
    input_types: dict[str, PortType] = field(default_factory=dict)
    output_types: Mapping[str, PortType] = field(default_factory=dict)
    complete: bool = True
    """False where a fault of its own was already reported, so that its hooks are not asked."""


@dataclass
class Graph:
    """A workflow that can be planned: a directed acyclic graph of bound nodes. ``order`` is topological."""

    document: WorkflowDocument
    registry: Registry
    nodes: Mapping[str, BoundNode]
    order: list[str]
    outputs: dict[str, Edge]
    warnings: list[Problem]
    called: dict[str, str]
    library: Library
    """The library in which the called workflows were found."""
    fetcher: Fetcher = field(default_factory=lambda: Fetcher(checking=True))
    """The fetcher that its nodes used; a plan has the nodes that they expand into use it too."""

    @cached_property
    def digraph(self) -> nx.DiGraph[str]:
        """The graph for networkx, to be looked at with all that it can do.

        Each node has its `BoundNode` under "bound", and each edge the (output, port) pairs that it joins under "ports".
        """
        import networkx as nx

        digraph: nx.DiGraph[str] = nx.DiGraph()
        for name in self.order:
            digraph.add_node(name, bound=self.nodes[name])
            for port, source in self.nodes[name].inputs.items():
                if isinstance(source, Edge):
                    if not digraph.has_edge(source.source, name):
                        digraph.add_edge(source.source, name, ports=[])
                    digraph.edges[source.source, name]["ports"].append((source.output, port))
        return digraph

    def bound(self, name: str) -> BoundNode:
        """Return the bound node of that name."""
        return self.nodes[name]

    def __iter__(self) -> Iterator[BoundNode]:
        return (self.nodes[name] for name in self.order)

    def __len__(self) -> int:
        return len(self.order)


@cached_answers()
def largest_weights(graphs: Iterable[Graph]) -> int | None:
    """Return the bytes of the largest file of weights that the nodes of some graphs read, None where no model runs."""
    nodes = [bound.node for graph in graphs for bound in graph]
    if not any(node.models() for node in nodes):
        return None
    files = {file for node in nodes for file in node.weight_files()}
    return max((file.stat().st_size for file in files if file.is_file()), default=0)


@dataclass(slots=True)
class Loaded:
    """A file given for a workflow input: the plan puts the loading node in its place."""

    loader: type[Node]
    path: str
    folder: Path | None = None
    """Folder in which the path starts and stays; None: it is trusted."""
    node: Node | None = None

    @property
    def type(self) -> PortType:
        """Type of what is loaded."""
        node = self.node
        outputs = self.loader.signature().outputs if node is None else node.output_types({})
        return next(iter(outputs.values()))


_PLAIN_TYPES = {kind: PortType(kind) for kind in PLAIN_KINDS}


def type_of_constant(value: Any) -> PortType:
    """Return the static type of a value that is there already."""
    plain = _PLAIN_TYPES.get(type(value))
    if plain is not None:
        return plain
    if isinstance(value, (Unbound, Loaded)):
        return value.type
    return PortType(
        type(value),
        space=getattr(value, "space", None),
        model=getattr(value, "model", None),
        width=getattr(value, "width", None),
        height=getattr(value, "height", None),
        batch=len(value) if hasattr(value, "nbytes") and hasattr(value, "__len__") else None,
        noise=getattr(value, "noise", None),
    )
