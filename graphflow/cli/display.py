"""The choice of a display: live bars on a terminal, plain lines elsewhere, nothing where quiet is asked for."""

from __future__ import annotations

import os
import sys

from graphflow.cli.progress import PlainProgress, Progress
from graphflow.planning.planner import Plan

__all__ = ["progress_for"]


def progress_for(planned: Plan, *, quiet: bool) -> Progress:
    """Choose the progress display that fits stderr."""
    if quiet:
        return Progress(planned)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from graphflow.cli.live import LiveProgress  # rich is imported only where it draws

        return LiveProgress(planned)
    return PlainProgress(planned)
