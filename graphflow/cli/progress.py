"""The display of a run where there is no terminal, and the base of every display."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from graphflow.cli.report import count, tell, visible
from graphflow.events import (
    Event,
    FileSaved,
    RunFinished,
    RunStarted,
    StepCached,
    StepFailed,
    StepFinished,
    StepStarted,
    StepWaiting,
    Warned,
)
from graphflow.planning.planner import Plan

__all__ = ["WAITING", "PlainProgress", "Progress", "duration", "warning_text"]

WAITING = "another process computes it, its result is waited for"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3:05``, ``1:02:03``."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Keeps count, and shows nothing but warnings."""

    live = False

    def __init__(self, planned: Plan) -> None:
        self.steps = len(planned.steps)
        self.finished = 0
        self.cached = 0
        self.seconds = 0.0
        self.files: list[str] = []
        self._begun = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, StepFinished):
            self.finished += 1
        elif isinstance(event, StepCached):
            self.cached += 1
        elif isinstance(event, FileSaved):
            self.files.append(event.path)
        elif isinstance(event, RunFinished):
            self.seconds = event.seconds
        self.show(event)

    def show(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Warned):
            self.line(warning_text(event))

    def line(self, text: str) -> None:
        """Write a line."""
        tell(text)

    def summary(self, files: int) -> str:
        """One line about a run that went well."""
        parts = [count(self.finished, "step") + " run"]
        if self.cached:
            parts.append(f"{self.cached} from the cache")
        parts.append(count(files, "file") + " saved")
        return f"done in {duration(self.seconds)}: " + ", ".join(parts)

    def interruption(self) -> str:
        """One line about a run that was stopped."""
        saved = "nothing was saved" if not self.files else "saved: " + ", ".join(self.files)
        return f"interrupted after {self.finished + self.cached} of {count(self.steps, 'step')}; {saved}"


class PlainProgress(Progress):
    """A line for each step that begins or ends; for logs."""

    def show(self, event: Event) -> None:
        """Show an event."""
        match event:
            case RunStarted():
                self.line(f"running {count(event.steps, 'step')}")
            case StepStarted():
                size = f", {count(event.total, 'step')}" if event.total else ""
                self.line(f"start   {event.step} ({event.type}{size})")
            case StepFinished():
                self.line(f"done    {event.step} in {duration(event.seconds)}")
            case StepCached():
                self.line(f"cached  {event.step}")
            case StepFailed():
                self.line(f"failed  {event.step}")
            case StepWaiting():
                self.line(f"wait    {event.step}: {WAITING}")
            case Warned():
                self.line(warning_text(event))


def warning_text(event: Warned) -> str:
    """Print a warning; one of a running node is given its name, one of the plan says itself where it belongs."""
    message = visible(event.message)
    if "warning: " in message.partition("\n")[0]:
        return message
    return f"node '{event.step}': warning: {message}" if event.step else f"warning: {message}"
