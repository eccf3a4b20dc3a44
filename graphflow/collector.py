"""Python's cyclic garbage collector, kept out of the way while graphs are built."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused_collection"]


@contextmanager
def paused_collection() -> Iterator[None]:
    """Switch the cyclic collector off for a while.

    Building a graph makes many objects and no garbage, but every few hundred of them the collector walks what is there:
    at 20,000 nodes that was half of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_freeze_count() == 0:
                # what was made counts as old from now on; else each generation would walk it once more
                gc.freeze()
                gc.unfreeze()
            gc.enable()
