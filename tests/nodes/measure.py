"""The memory that torch allocates while something runs, as its profiler records every allocation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def peak_of(work: Callable[[], Any]) -> int:
    """Bytes that ``work`` has allocated at its peak beyond what there was before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = work()
    del result
    results: Any = profile.profiler.kineto_results
    changes = sorted(
        ((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"),
        key=lambda change: change[0],
    )
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    assert peak > 0, "the profiler saw no allocation"
    return peak
