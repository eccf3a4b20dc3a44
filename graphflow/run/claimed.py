"""Claims on the steps of a unit, so that of several processes only one computes a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from graphflow.planning.planner import Step
from graphflow.run.placement import Unit
from graphflow.store.interface import Claim, Store

__all__ = ["PAUSE", "claimed"]

PAUSE = 0.05
"""Seconds between two looks at whether another process or worker is done, or the run was cancelled."""


@contextmanager
def claimed(
    unit: Unit, store: Store, *, waiting: Callable[[Step], None], stop_if_cancelled: Callable[[], None]
) -> Iterator[Unit]:
    """Hold the claims on those steps of a unit that no other process computes; gives these steps.

    A step by itself is waited for: ``waiting`` is called once. Never wait for a claim while holding one (deadlock): of
    several steps, those claimed elsewhere are left out, and run afterwards, one at a time.
    """
    with ExitStack() as claims:
        held = []
        for step in unit:
            claim = store.claim(step.key)
            if claim is None and len(unit) == 1:
                waiting(step)
                claim = _wait_for(step, store, stop_if_cancelled)
            if claim is not None:
                claims.callback(claim.release)
                held.append(step)
        yield tuple(held)


def _wait_for(step: Step, store: Store, stop_if_cancelled: Callable[[], None]) -> Claim:
    claim = None
    while claim is None:
        time.sleep(PAUSE)
        stop_if_cancelled()
        claim = store.claim(step.key)
    return claim
