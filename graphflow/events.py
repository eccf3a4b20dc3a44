"""Events of a run, as frozen dataclasses: the only way progress leaves the engine.

The terminal bars, the JSON lines and a caller's callback are three listeners. Listeners are called one at a time, in
the thread that runs the step, and must be quick; an exception in one ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

__all__ = [
    "Event",
    "FileSaved",
    "Listener",
    "RunFinished",
    "RunStarted",
    "StepCached",
    "StepFailed",
    "StepFinished",
    "StepProgress",
    "StepStarted",
    "StepWaiting",
    "Warned",
    "to_dict",
]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins. ``steps`` is how many steps the plan has, ``progress_steps`` the sum of what their bars count."""

    steps: int
    progress_steps: int


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins on a device; ``total`` is what its bar will count, None where it is one piece."""

    index: int
    step: str
    type: str
    total: int | None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class StepProgress:
    """``done`` of ``total`` parts of a step are finished."""

    index: int
    step: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StepCached:
    """The values of a step came from the store, or the files that it saves are there."""

    index: int
    step: str
    type: str


@dataclass(frozen=True, slots=True)
class StepWaiting:
    """Another process computes the same step; its result is waited for."""

    index: int
    step: str
    type: str


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step ended after ``seconds``."""

    index: int
    step: str
    type: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StepFailed:
    """A step raised; the run ends."""

    index: int
    step: str
    type: str
    error: str


@dataclass(frozen=True, slots=True)
class FileSaved:
    """A file was written."""

    step: str
    path: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something legal but surprising."""

    step: str | None
    message: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over; ``outcome`` is "done", "failed" or "interrupted"."""

    outcome: str
    seconds: float
    ran: int
    cached: int


Event: TypeAlias = (
    RunStarted
    | StepStarted
    | StepProgress
    | StepCached
    | StepWaiting
    | StepFinished
    | StepFailed
    | FileSaved
    | Warned
    | RunFinished
)
Listener: TypeAlias = Callable[[Event], None]

_NAMES: dict[type, str] = {
    RunStarted: "run_started",
    StepStarted: "started",
    StepProgress: "progress",
    StepCached: "cached",
    StepWaiting: "waiting",
    StepFinished: "finished",
    StepFailed: "failed",
    FileSaved: "saved",
    Warned: "warning",
    RunFinished: "run_finished",
}


def to_dict(event: Event) -> dict[str, Any]:
    """Return an event as a flat JSON object with its name under "event"."""
    return {"event": _NAMES[type(event)], **asdict(event)}
