"""Ctrl-C and SIGTERM during a run.

A node that only computes is interrupted where it stands. One that writes (`effect`) is allowed to finish its file, and
the run ends right after it; a second Ctrl-C ends that too.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from graphflow.events import Event, RunFinished, StepFailed, StepFinished, StepStarted

__all__ = ["Interruption"]


class Interruption:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, or into ``cancel`` while something is being written.

    It is a listener, so that it knows what is running.
    """

    def __init__(self, writers: frozenset[int] = frozenset()) -> None:
        self.cancel = threading.Event()
        self._writers = writers
        self._holding = False
        self._previous: dict[int, Any] = {}

    def __call__(self, event: Event) -> None:
        """Follow which step is running."""
        if isinstance(event, StepStarted):
            self._holding = event.index in self._writers
        elif isinstance(event, (StepFinished, StepFailed)):
            self._holding = False
        elif isinstance(event, RunFinished):
            self._holding = True  # the record of the run is written whole

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # a shell that starts us in the background with signals ignored means it
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.cancel.is_set()
        self.cancel.set()
        if again or not self._holding:
            raise KeyboardInterrupt
