"""Nodes that do nothing, as somebody else would write them."""

from __future__ import annotations

from graphflow import Node, Registry


class Start(Node, version=1):
    """Give a number."""

    value: int = 0

    def run(self) -> int:
        """Give it."""
        return self.value


class Step(Node, version=1):
    """Hand a number on."""

    tag: int = 0

    def run(self, *, value: int) -> int:
        """Hand it on."""
        return value


class Block:
    """Memory that counts how many of its kind are alive."""

    alive = 0
    peak = 0

    def __init__(self, nbytes: int) -> None:
        self.data = bytearray(nbytes)
        Block.alive += 1
        Block.peak = max(Block.peak, Block.alive)

    def __del__(self) -> None:
        Block.alive -= 1


class MakeBlock(Node, version=1):
    """Make a block."""

    nbytes: int = 1

    def run(self) -> Block:
        """Make it."""
        return Block(self.nbytes)


class NextBlock(Node, version=1):
    """Make a block as large as the given one."""

    tag: int = 0

    def run(self, *, block: Block) -> Block:
        """Make it."""
        return Block(len(block.data))


REGISTRY = Registry([Start, Step, MakeBlock, NextBlock])
