"""Text that is a command's result: to stdout, or whole into a file."""

from __future__ import annotations

import sys
from pathlib import Path

from graphflow.errors import Problem, WorkflowError

__all__ = ["write_result"]


def write_result(text: str, path: Path | None) -> None:
    """Write to ``path`` and print the path, or write to stdout. Raises WorkflowError where a file cannot be written."""
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return
    from graphflow.files import write_atomically

    try:
        print(write_atomically(path, text.encode()))
    except OSError as error:
        reason = str(error.strerror or error).lower()
        raise WorkflowError([Problem("file.unwritable", f"cannot write {path}: {reason}")]) from None
