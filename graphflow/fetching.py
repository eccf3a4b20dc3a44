"""Fetching: nodes that read what lies elsewhere get it before the run, each of them once, if they may.

A graph that is bound to be run has its nodes fetch. One that is only checked does not, unless it is checked for a run
without the network: then looking for what is missing asks nobody either.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.environment import is_offline
from graphflow.errors import Problem
from graphflow.node import Node

__all__ = ["Fetcher"]


class Fetcher:
    """Has nodes fetch. Of equal nodes the first one is asked and stands for the others, so that they read the same."""

    def __init__(self, *, offline: bool = False, checking: bool = False) -> None:
        self.offline = offline or is_offline()
        self.active = self.offline or not checking
        self._asked: dict[tuple[type[Node], str], tuple[Node, Sequence[Problem]]] = {}

    def fetch(self, node: Node) -> tuple[Node, Sequence[Problem]]:
        """Return the node that stands for ``node``, and what it found wrong or surprising."""
        if not node.fetches or not self.active:
            return node, ()
        key = (type(node), node.model_dump_json())
        known = self._asked.get(key)
        if known is None:
            known = self._asked[key] = (node, [*node.fetch(offline=self.offline)])
        return known
