"""Files written into the output folder: their names, and writing that leaves a whole file or none."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from graphflow import Context, Problem
from graphflow.record import holds_record, same_but_for_text, with_record

__all__ = ["check_name", "save_files"]

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def save_files(
    contents: Sequence[bytes], stem: str, suffix: str, *, overwrite: bool, metadata: bool, context: Context
) -> None:
    """Write one file, or for several contents ``stem-0``, ``stem-1`` and so on, and report their paths to the context.

    With ``metadata`` PNG files hold the record of what made them. Raises ValueError for a name that leads out of the
    output folder.
    """
    root = context.output_folder.resolve()
    for index, content in enumerate(contents):
        wanted = root / (f"{stem}-{index}{suffix}" if len(contents) > 1 else stem + suffix)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if not wanted.parent.resolve().is_relative_to(root):
            raise ValueError(f'the name "{stem}{suffix}" leads out of the output folder {root} [path.outside]')
        if metadata and context.provenance is not None and suffix.lower() == ".png":
            record = {**context.provenance, "item": index}
            content = with_record(content, record)
        path = _place(content, wanted, overwrite)
        if not metadata and holds_record(path):
            context.warn(f"{path} was there already, with the workflow in it; delete it and run again")
        context.saved(path)


def check_name(name: str) -> Iterator[Problem]:
    """Report a name that is no plain relative path inside of the output folder."""
    parts = name.split("/")
    fault, code = "", "path.form"
    if not name:
        fault = "is empty"
    elif name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name):
        fault, code = "is not a relative path with forward slashes", "path.outside"
    elif ".." in parts:
        fault, code = "leads out of the output folder", "path.outside"
    elif any(not part or part == "." for part in parts):
        fault = 'has an empty part or "."'
    elif re.search(r'[\0-\x1f\x7f<>:"|?*]', name):
        fault = "has a character that file names cannot hold everywhere"
    elif any(_RESERVED.fullmatch(part) for part in parts):
        fault = "is a reserved name on Windows"
    elif any(part != part.strip() or part.endswith(".") for part in parts):
        fault = "has a part that begins or ends with a space, or ends with a full stop"
    elif any(len(part.encode("utf-8", "surrogatepass")) > 200 for part in parts):
        fault = "has a part of more than 200 bytes"
    elif not name.isprintable():
        fault = "has a character that cannot be shown"
    if fault:
        message = f'the name "{name[:80]}" {fault}; expected a relative path inside of the output folder'
        yield Problem(code, message, field="name", hint='write it like "sketch" or "drafts/sketch"')


def _place(data: bytes, wanted: Path, overwrite: bool) -> Path:
    """Put data under the wanted name or the next free one; a reader never sees half of it. Returns the path."""
    handle, name = tempfile.mkstemp(dir=wanted.parent, prefix=".graphflow-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        if overwrite:
            return temporary.replace(wanted)
        return _link(temporary, data, wanted)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, data: bytes, wanted: Path) -> Path:
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        try:
            os.link(temporary, path)  # fails where the name is taken, also by someone who was quicker
            return path
        except FileExistsError:
            with contextlib.suppress(OSError):
                # the same picture may carry another record; what is no file, such as a pipe, may have no end
                if path.is_file() and same_but_for_text(path.read_bytes(), data):
                    return path
            number += 1
        except OSError:  # a file system without hard links
            return _create(data, wanted, number)


def _create(data: bytes, wanted: Path, number: int) -> Path:
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        try:
            with path.open("xb") as file:
                file.write(data)
            return path
        except FileExistsError:
            with contextlib.suppress(OSError):
                if path.is_file() and same_but_for_text(path.read_bytes(), data):
                    return path
            number += 1


def _umask() -> int:
    """Return the process's mask for new files, read without changing it where the system has it in a file."""
    with contextlib.suppress(OSError):
        match = re.search(r"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        if match:
            return int(match[1], 8)
    return 0o022
