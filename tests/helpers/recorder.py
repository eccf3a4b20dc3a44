"""A run's context for a node that is called by itself."""

from __future__ import annotations

from pathlib import Path

from graphflow import Context


class Recorder(Context):
    """A context that remembers what a node reported."""

    def __init__(self, folder: Path) -> None:
        self.output_folder = folder
        self.files: list[Path] = []
        self.warnings: list[str] = []
        self.progress: list[tuple[int, int]] = []

    def step(self, done: int, total: int) -> None:
        self.progress.append((done, total))

    def saved(self, path: Path) -> None:
        self.files.append(path)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
