"""Bars on a terminal, drawn with rich: one for each running node, and one for the whole run."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, OverflowMethod, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from graphflow.cli.progress import WAITING, Progress, duration, warning_text
from graphflow.cli.table import display_width
from graphflow.events import (
    Event,
    RunStarted,
    StepCached,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
    StepWaiting,
    Warned,
)
from graphflow.planning.planner import Plan

__all__ = ["LiveProgress"]


@dataclass(slots=True)
class _Running:
    name: str
    total: int | None
    begun: float
    done: int = 0


class LiveProgress(Progress):
    """Running nodes as bars at the bottom; what is finished stays above them with a check mark and its seconds."""

    live = True

    def __init__(self, planned: Plan, console: Console | None = None) -> None:
        super().__init__(planned)
        self._sizes = [step.progress_steps or 1 for step in planned.steps]
        self._console = console or Console(stderr=True, highlight=False, no_color=bool(os.environ.get("NO_COLOR")))
        self._ascii = not (self._console.encoding or "").lower().startswith("utf")
        longest = max((display_width(step.name) for step in planned.steps), default=0)
        # names keep one width, so that nothing jumps while lines come and go
        self._name_width = max(5, min(longest, self._console.width * 2 // 5))
        self._overflow: OverflowMethod = "crop" if self._ascii else "ellipsis"
        self._running: dict[int, _Running] = {}
        self._behind: set[int] = set()
        self._counting = False
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._begun = time.perf_counter()
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.clear()
        self._live.stop()

    def line(self, text: str) -> None:
        """Write a line above the bars."""
        self._console.print(Text(text))

    def show(self, event: Event) -> None:
        """Show an event."""
        match event:
            case StepStarted():
                self._running[event.index] = _Running(event.step, event.total, time.perf_counter())
                self._live.refresh()
            case StepProgress():
                running = self._running.get(event.index)
                if running is not None:
                    running.done, running.total = event.done, event.total
                    self._counting = True
            case StepFinished():
                self._leave(event.index, "✓", "green", event.step, duration(event.seconds))
            case StepCached():
                self._leave(event.index, "✓", "green", event.step, "cached")
            case StepFailed():
                self._leave(event.index, "✗", "red", event.step, "failed")
            case Warned():
                self._console.print(Text(warning_text(event), style="yellow"))
            case StepWaiting():
                self._console.print(Text(f"… {event.step}: {WAITING}", style="dim"))
            case RunStarted():
                self._begun = time.perf_counter()

    def _leave(self, index: int, mark: str, style: str, name: str, ending: str) -> None:
        self._running.pop(index, None)
        self._behind.add(index)
        if self._ascii:
            mark = {"✓": "+", "✗": "x"}[mark]
        row = Table.grid(padding=(0, 1), expand=False)
        row.add_column(no_wrap=True)
        row.add_column(no_wrap=True, overflow=self._overflow, width=self._name_width)
        row.add_column(no_wrap=True, justify="right")
        row.add_row(Text(mark, style=style), Text(name), Text(ending, style="dim"))
        self._console.print(row)

    def _share(self) -> float:
        """Share of the work that is done: denoise steps count one each, like every other node."""
        highest = max(self._behind, default=-1)
        # what lies before a finished step and never ran was not needed
        done = float(
            sum(size for index, size in enumerate(self._sizes) if index <= highest and index not in self._running)
        )
        for index, running in self._running.items():
            done += self._sizes[index] * running.done / max(running.total or 1, 1)
        return done / max(sum(self._sizes), 1)

    def _render(self) -> RenderableType:
        now = time.perf_counter()
        grid = Table.grid(padding=(0, 1), expand=False)
        narrow = self._console.width < 60
        grid.add_column(no_wrap=True, overflow=self._overflow, width=self._name_width + 2)
        if not narrow:
            grid.add_column(width=min(32, self._console.width // 3))
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(no_wrap=True, justify="right")
        for running in self._running.values():
            counted = f"{running.done}/{running.total}" if running.total else ""
            bar = ProgressBar(
                total=running.total if running.total else None,
                completed=running.done,
                pulse=not running.total,
                animation_time=now - running.begun,
            )
            cells: list[RenderableType] = [Text(f"  {running.name}", style="bold")]
            if not narrow:
                cells.append(bar)
            grid.add_row(*cells, Text(counted), Text(duration(now - running.begun), style="dim"))
        share, elapsed = self._share(), now - self._begun
        clock = duration(elapsed)
        # before the first denoise step, time went into loading, which says nothing about the rest
        if self._counting and 0.02 < share < 1 and elapsed > 1:
            clock += f" of about {duration(elapsed / share)}"
        place = f"{len(self._behind)}/{self.steps}"
        cells = [Text("  total")] if narrow else [Text("  total"), ProgressBar(total=1.0, completed=share)]
        grid.add_row(*cells, Text(place), Text(clock, style="dim"))
        return Group(grid)
