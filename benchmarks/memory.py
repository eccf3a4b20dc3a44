"""Values alive at once in a long chain of large values."""

from __future__ import annotations

import graphflow as gf
from benchmarks.pack import REGISTRY, Block, MakeBlock, NextBlock

LENGTH = 50
NBYTES = 20_000_000


def main() -> None:
    """Print how many values were alive at most."""
    workflow = gf.Workflow()
    handle = workflow.add("n0", MakeBlock(nbytes=NBYTES))
    for index in range(1, LENGTH):
        handle = workflow.add(f"n{index}", NextBlock(tag=index), block=handle)
    Block.peak = Block.alive
    workflow.run(registry=REGISTRY)
    print("Values alive at once")
    print("| chain | value | alive at most |")
    print("|---|---|---|")
    print(f"| {LENGTH} nodes | {NBYTES / 1e6:.0f} MB | **{Block.peak}** |")
