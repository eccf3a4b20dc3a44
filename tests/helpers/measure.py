"""The memory that torch allocates while something runs, as its profiler records every allocation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graphflow import Compute, Image, Node, Workflow, execute, plan

LOWEST, HIGHEST = 0.7, 2.0
"""Limits of an estimate, as shares of the measured peak."""


def check_estimate(estimate: int, real: int) -> None:
    """Check that an estimate of memory, in bytes, is near the measured peak."""
    assert LOWEST <= estimate / real <= HIGHEST, f"estimate {estimate / 1e6:.2f} MB, measured {real / 1e6:.2f} MB"


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


def run_on(node: Node, compute: Compute, image: Image) -> torch.Tensor:
    """Pixels of what a coarse node makes of a picture, computed as ``compute`` says, which is not checked."""
    workflow = Workflow()
    fields: dict[str, Any] = {"prompt": "a red ball"} if "prompt" in node.signature().inputs else {}
    workflow.output("out", workflow.add("node", node, image=workflow.input("image", "image"), **fields))
    made: Image = execute(plan(workflow.bind({"image": image}), compute=compute)).results["out"]
    return made.pixels
