"""Malicious pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Creates:
    """An object that, when its pickle is read, creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Shell(Creates):
    """The same through a shell."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.path}",)
