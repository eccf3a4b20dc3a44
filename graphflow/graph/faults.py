"""The faults of a graph, collected while it is bound, each at its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from graphflow.document.inputs import LiteralValue
from graphflow.document.workflow import INPUT_KINDS
from graphflow.errors import Problem
from graphflow.graph.flatten import FlatNode

__all__ = ["Faults", "declare_hint"]


class Faults:
    """Problems in the order in which they were found."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self.problems = list(problems)

    @property
    def fatal(self) -> bool:
        """True if a problem that was found so far is an error."""
        return any(problem.severity == "error" for problem in self.problems)

    def add(self, flat: FlatNode, problem: Problem) -> None:
        """Add a problem of a node, at the place of its field, or of the workflow input that the value came through."""
        bound = flat.fields.get(problem.field or "")
        position = None
        if isinstance(bound, LiteralValue):
            position = bound.origin
            if bound.via:
                problem = replace(problem, message=f"{problem.message} (from the input '{bound.via}')")
        if position is None:
            position = flat.position(problem.field, key=problem.code == "field.unknown")
        self.problems.append(problem.at(node=flat.name, position=position))


def declare_hint(kinds: Iterable[type]) -> str:
    """Suggest the type of an input for values of some kinds."""
    fitting = set(kinds)
    names = [name for name, kind in INPUT_KINDS.items() if kind in fitting]
    return f"declare the input as {', '.join(names[:-1])}{' or ' if names[1:] else ''}{names[-1]}" if names else ""
