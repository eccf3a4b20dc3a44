"""Workers: one thread for each device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

__all__ = ["run_workers"]

PAUSE = 0.05
"""Seconds between two looks at whether a worker is still alive, in which an interruption may arrive."""


def run_workers(devices: Iterable[str], work: Callable[[str], None], fail: Callable[[BaseException], None]) -> None:
    """Run ``work`` for each device in a thread of its own, and return when all have ended.

    ``fail`` receives what a worker raises. Python hands an interruption from the keyboard to this thread, which does
    nothing but wait: ``fail`` receives that too, and the workers are waited for.
    """

    def guarded(device: str) -> None:
        try:
            work(device)
        except BaseException as error:
            fail(error)

    workers = [threading.Thread(target=guarded, args=[device], name=f"graphflow-{device}") for device in devices]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            while worker.is_alive():
                worker.join(PAUSE)
    except BaseException as error:
        fail(error)
        for worker in workers:
            worker.join()
