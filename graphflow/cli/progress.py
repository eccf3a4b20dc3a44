"""What a person sees of a run: live bars on a terminal, plain lines elsewhere, JSON lines for programs.

All of them are listeners to the engine's events; rich is imported only for the live bars.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import IO, Any, Self

from graphflow.cli.report import count, tell, visible
from graphflow.errors import Problem, WorkflowError
from graphflow.events import (
    Event,
    FileSaved,
    RunFinished,
    RunStarted,
    StepCached,
    StepFailed,
    StepFinished,
    StepStarted,
    Warned,
    to_dict,
)
from graphflow.plan import Plan

__all__ = ["JsonLines", "PathPrinter", "Progress", "duration", "progress_for", "warning_text"]


def progress_for(planned: Plan, *, quiet: bool) -> Progress:
    """The progress display that fits stderr."""
    if quiet:
        return Progress(planned)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from graphflow.cli.live import LiveProgress

        return LiveProgress(planned)
    return PlainProgress(planned)


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
            case Warned():
                self.line(warning_text(event))


class PathPrinter:
    """Writes the path of each saved file to stdout at once, or with ``hold`` when it is released."""

    def __init__(self, *, hold: bool) -> None:
        self._held: list[str] | None = [] if hold else None

    def __call__(self, event: Event) -> None:
        """Take an event."""
        if isinstance(event, FileSaved):
            if self._held is None:
                print(event.path, flush=True)
            else:
                self._held.append(event.path)

    def release(self) -> None:
        """Write what was held back while the bars had the terminal."""
        for path in self._held or ():
            print(path, flush=True)
        self._held = None


class JsonLines:
    """Writes each event as one line of JSON, to a file or with ``-`` to stdout."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self._target == "-":
            sys.stdout.flush()
            self._stream = sys.stdout.buffer
        else:
            try:
                self._stream = open(self._target, "wb")  # noqa: PTH123 - may be a pipe or a device; __exit__ closes it
            except OSError as error:
                reason = str(error.strerror or error).lower()
                raise WorkflowError([Problem("file.unwritable", f"cannot write {self._target}: {reason}")]) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None and self._target != "-":
            self._stream.close()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        import orjson

        data: dict[str, Any] = {**to_dict(event), "time": round(time.time(), 3)}
        assert self._stream is not None  # listeners are called between __enter__ and __exit__
        self._stream.write(orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE))
        self._stream.flush()


def warning_text(event: Warned) -> str:
    """A warning of the plan says itself where it belongs; one of a running node is given its name."""
    message = visible(event.message)
    if "warning: " in message.partition("\n")[0]:
        return message
    return f"node '{event.step}': warning: {message}" if event.step else f"warning: {message}"
