"""How many threads torch computes with: no more than the process may keep busy."""

from __future__ import annotations

import os

import torch

from graphflow.machine.processor import usable_processors

__all__ = ["limit_threads"]


def limit_threads() -> None:
    """Take threads from torch that the process has no processors for.

    torch counts the processors of the machine, and not what a container may use of them; threads that the system holds
    back make all the others wait. Nothing is changed where OMP_NUM_THREADS is set, or the caller set no more threads.
    """
    usable = usable_processors()
    if usable is not None and "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable:
        torch.set_num_threads(usable)
