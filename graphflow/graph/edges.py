"""Checks that look across nodes: what may connect, who writes which file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphflow.errors import Problem
from graphflow.graph.flatten import FlatNode
from graphflow.node import Node
from graphflow.registry import Registry, converter_port
from graphflow.types import PLAIN_KINDS, PortType, accepts, type_name

__all__ = ["check_claims", "check_edge"]


def check_edge(
    target: PortType, source: PortType, registry: Registry, origin: str, *, coarse: bool = False
) -> Problem | None:
    """An error where ``source`` cannot get to ``target``; a warning where it can only through pixels.

    A converter is asked about the value that arrives; its parameters come from the types and are not the user's. On a
    port of a ``coarse`` node no converter is put: the node sees to the value itself.
    """
    if accepts(target, source):
        return None
    route = registry.route(source, target)
    if route is None:
        hint = _givers(target, registry)
        if target.kind is source.kind and target.space != source.space:
            hint = "the two latent spaces cannot be converted; decode to an image in between"
        return Problem("type.mismatch", f"found {source} from {origin}, expected {target}", hint=hint)
    arrives = converter_port(route[0])
    for problem in () if coarse else route[0].check({arrives: source}):
        if problem.field == arrives and problem.severity == "error":
            return problem
    if source.kind is target.kind and len(route) > 1:
        steps = " + ".join(node.type_id for node in route)
        return Problem(
            "type.hop",
            f"found {source} from {origin}, expected {target}: converted by {steps}",
            hint="the two latent spaces are different; the picture goes through pixels and changes a little",
            severity="warning",
        )
    return None


def _givers(target: PortType, registry: Registry) -> str:
    """A hint that names node types whose output would fit."""
    if target.kind in PLAIN_KINDS:
        return f"write the value itself, or connect a node that gives {target}"
    names = [
        type_id
        for type_id, node_class in registry.items()
        if any(kind.kind is target.kind for kind in node_class.signature().outputs.values())
    ]
    return f"{type_name(target.kind)} is what {', '.join(sorted(names)[:6])} give" if names else ""


def check_claims(nodes: Iterable[tuple[str, Node, FlatNode]]) -> Iterator[Problem]:
    """Two nodes that would write one file."""
    owners: dict[str, str] = {}
    for name, node, flat in nodes:
        for claim in node.claims() if node.effect else ():
            key = claim.casefold()
            if key in owners:
                yield Problem(
                    "file.claimed_twice",
                    f"writes '{claim}', which '{owners[key]}' writes too",
                    hint="give one of them another name",
                ).at(node=name, position=flat.position())
            else:
                owners[key] = name
