from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from graphflow import Context, Field, Image, Node, PortType, Problem

__all__ = ["SaveImage"]

_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_OWN_SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class SaveImage(Node, version=1, effect=True, saves=True):
    """Write pictures into the output folder.

    A file appears whole or not at all, and nothing is ever lost: where the same picture is there already it is left
    alone, where another one is, the next free name is taken (``sketch-2.png``), also by two runs at once. The pictures
    of a batch are ``name-0``, ``name-1`` and so on.
    """

    name: str = Field("image", description="path in the output folder; the suffix may be left out")
    format: Literal["png", "jpeg", "webp"] | None = Field(None, description="default: by the suffix, or png")
    quality: int = Field(95, ge=1, le=100, description="of JPEG and WebP; PNG is lossless")
    overwrite: bool = Field(False, description="replace another picture of this name")

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """A name that is no plain path inside of the output folder."""
        return _check_name(self.name, self.format)

    def claims(self) -> tuple[str, ...]:
        """The file, as it is called for a single picture."""
        stem, suffix = self._split()
        return (stem + suffix,)

    def run(self, *, image: Image, context: Context) -> None:
        """Write each picture and tell its path. Raises ValueError for a name outside of the output folder."""
        for problem in _check_name(self.name, self.format):
            raise ValueError(f"{problem.message} [{problem.code}]")
        stem, suffix = self._split()
        root = context.output_folder.resolve()
        for index in range(len(image)):
            wanted = root / (f"{stem}-{index}{suffix}" if len(image) > 1 else stem + suffix)
            wanted.parent.mkdir(parents=True, exist_ok=True)
            if not wanted.parent.resolve().is_relative_to(root):
                raise ValueError(f'the name "{self.name}" leads out of the output folder {root} [path.outside]')
            context.saved(_place(self._encoded(image, index), wanted, self.overwrite))

    def _split(self) -> tuple[str, str]:
        """Path without suffix, and suffix."""
        suffix = PurePosixPath(self.name).suffix
        if suffix.lower() in _SUFFIXES:
            return self.name.removesuffix(suffix), suffix
        return self.name, _OWN_SUFFIX[self.format or "png"]

    def _encoded(self, image: Image, index: int) -> bytes:
        import io

        kind = _SUFFIXES[self._split()[1].lower()]
        buffer = io.BytesIO()
        image.to_pil(index).save(buffer, format=kind.upper(), **({} if kind == "png" else {"quality": self.quality}))
        return buffer.getvalue()


def _check_name(name: str, format: str | None) -> Iterator[Problem]:
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
        return
    suffix = PurePosixPath(name).suffix.lower()
    if format and _SUFFIXES.get(suffix, format) != format:
        message = f'found the format {format} for the name "{name}", expected {_SUFFIXES[suffix]}'
        yield Problem("value.format", message, field="format", hint="leave out the suffix or the format")


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
                if path.stat().st_size == len(data) and path.read_bytes() == data:
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
                if path.read_bytes() == data:
                    return path
            number += 1


def _umask() -> int:
    """The process's mask for new files, read without changing it where the system tells."""
    with contextlib.suppress(OSError):
        match = re.search(r"^Umask:\s*([0-7]+)", Path("/proc/self/status").read_text(), re.MULTILINE)
        if match:
            return int(match[1], 8)
    return 0o022
