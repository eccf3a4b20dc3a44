"""Smaller tiles, offered where a step does not fit into memory. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from graphflow import Node

__all__ = ["with_smaller_tiles"]


NodeType = TypeVar("NodeType", bound=Node)


def with_smaller_tiles(node: NodeType, *sizes: int) -> Iterator[NodeType]:
    """The node, which has a parameter ``tile_size``, with those of the sizes (pixels) that are smaller than its own."""
    given = node.model_dump()
    for size in sizes:
        if size < given["tile_size"]:
            yield type(node)(**{**given, "tile_size": size})
