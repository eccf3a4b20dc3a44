"""What the processor can do, and how much of it this process may use, read from Linux without importing anything heavy.

On other systems nothing is known: float32, and as many threads as torch takes by itself.
"""

from __future__ import annotations

import math
import os
import re
from functools import cache
from pathlib import Path

from graphflow.machine.control_group import control_groups

__all__ = ["computes_in_bfloat16", "usable_processors"]

BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags in /proc/cpuinfo of instructions that multiply matrices in bfloat16: two of x86, one of ARM."""


@cache
def computes_in_bfloat16(system: Path = Path("/")) -> bool:
    """Whether the processor has instructions for matrices in bfloat16. ``system`` is where /proc lies."""
    try:
        text = (system / "proc/cpuinfo").read_text()
    except OSError:
        return False
    told = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return told is not None and not BFLOAT16.isdisjoint(told[1].split())


def usable_processors(system: Path = Path("/")) -> int | None:
    """Processors that this process may keep busy, None where nobody tells.

    That is those it may run on (affinity, cpuset), and no more than the time that its control group and those around it
    are given (``cpu.max`` in version 2, ``cpu.cfs_quota_us`` in version 1), rounded up: a container of 1.5 processors
    gets more done with two threads than with one. ``system`` is where /proc and /sys lie.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    quotas = (_quota(group) for group in control_groups("cpu", system))
    return min([len(os.sched_getaffinity(0)), *(quota for quota in quotas if quota)])


def _quota(group: Path) -> int | None:
    try:
        if (group / "cpu.max").is_file():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text()
        if allowed == "max" or int(allowed) <= 0:  # -1 in version 1
            return None
        return max(1, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):
        return None
