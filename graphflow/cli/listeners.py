"""Listeners to a run for programs: the paths of saved files, and every event as a line of JSON."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import IO, Any, Self

from graphflow.errors import Problem, WorkflowError
from graphflow.events import Event, FileSaved, to_dict

__all__ = ["JsonLines", "PathPrinter"]


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
