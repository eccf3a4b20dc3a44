"""Output of a command: text to stdout or whole into a file; and the check that a folder can be written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from graphflow.errors import Problem, WorkflowError

__all__ = ["check_folder", "write_result"]


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


def check_folder(folder: Path) -> None:
    """Raise WorkflowError for a folder that cannot be written, before anything is computed."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        fault = f"{existing} is a file, expected a folder"
    elif not os.access(existing, os.W_OK):
        fault = f"the folder {existing} cannot be written"
    else:
        return
    raise WorkflowError([Problem("file.unwritable", fault, hint="choose another one with --out")])
