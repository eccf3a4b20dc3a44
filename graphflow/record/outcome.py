"""The outcome of a run: values, files, and a record of each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Outcome", "StepRecord"]


class StepRecord(NamedTuple):
    """End of one step: "ran", "cached", "unneeded", or "not reached" where the run ended before it."""

    name: str
    state: str
    seconds: float = 0.0
    device: str = ""
    """Device on which it ran."""


@dataclass(slots=True)
class Outcome:
    """Result of a run: the kept values by name, the files it saved, and a record of each step."""

    results: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
