"""A run in a process of its own, that others kill or race: `python -m benchmarks.worker STORE LOG STEPS`.

A chain of steps that each take a while and give a text of 100 kB that depends on the one before. What happens is
appended to LOG as it happens, one line an event; the last line of stdout is a digest of the last text.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import graphflow as gf
from graphflow import events

LENGTH = 100_000
SECONDS = 0.02


class Scramble(gf.Node, version=1):
    """A text made of the one before."""

    tag: int = 0

    def run(self, *, text: str = "") -> str:
        """Make it."""
        time.sleep(SECONDS)
        seed = hashlib.sha256(f"{self.tag}{text}".encode()).hexdigest()
        return (seed * (LENGTH // len(seed) + 1))[:LENGTH]


REGISTRY = gf.Registry([Scramble])


def workflow(steps: int) -> gf.Workflow:
    """A chain, in two branches that share its first half."""
    built = gf.Workflow()
    handle = built.add("s0", Scramble())
    half = handle
    for index in range(1, steps):
        source = half if index == steps * 3 // 4 else handle
        handle = built.add(f"s{index}", Scramble(tag=index), text=source)
        if index == steps // 2:
            half = handle
    built.output("last", handle)
    return built


def main() -> None:
    """Run it."""
    folder, log, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def told(event: events.Event) -> None:
        if isinstance(event, (events.StepStarted, events.StepFinished)):
            os.write(descriptor, f"{type(event).__name__} {event.step}\n".encode())
        if isinstance(event, events.Warned):
            os.write(descriptor, f"Warned {event.message}\n".encode())

    print("ready", flush=True)
    run = workflow(steps).run(registry=REGISTRY, cache=gf.DiskStore(folder), listeners=[told])
    print(hashlib.sha256(run["last"].encode()).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
