"""Names, dtypes and shapes of the tensors in a safetensors file, read from its header alone.

The format (https://github.com/huggingface/safetensors): eight bytes with the length of the header, little-endian; the
header, a JSON object; the data. So the first kilobytes describe a file of many gigabytes, and its size shows whether it
is truncated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["BITS", "DamagedError", "Header", "Shape", "read_header"]

Shape = tuple[int, ...]

_LARGEST_HEADER = 100_000_000
"""Bytes; the limit of the format itself."""

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits per number, by the format's name of its dtype."""


class DamagedError(Exception):
    """An error for a file that is truncated or not safetensors; its text continues the sentence "the file …"."""


@dataclass(frozen=True, slots=True)
class Header:
    """The content of a file's header: shapes and dtypes by tensor name, and free metadata."""

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]

    def starting(self, prefix: str) -> dict[str, Shape]:
        """Return the shapes of the tensors whose names start with a prefix, by their names without it."""
        return {name[len(prefix) :]: shape for name, shape in self.shapes.items() if name.startswith(prefix)}

    def holds(self, prefix: str) -> bool:
        """Return whether the name of any tensor starts with a prefix."""
        return any(name.startswith(prefix) for name in self.shapes)


def read_header(path: Path) -> Header:
    """Read the header of a file, cached until the file changes. Raises DamagedError, or OSError if it is unreadable."""
    status = path.stat()
    found = _read(path, status.st_size, status.st_mtime_ns)
    if isinstance(found, str):
        raise DamagedError(found)
    return found


@lru_cache(maxsize=256)
def _read(path: Path, size: int, written: int) -> Header | str:
    """Return the header, or the text of a DamagedError. ``written`` (ns) is a part of the cache key only."""
    with path.open("rb") as file:
        first = file.read(8)
        if len(first) < 8:
            return f"holds {len(first)} bytes, which is not even the start of a safetensors file"
        other = _other_format(first)
        if other:
            return other
        length = int.from_bytes(first, "little")
        if not 2 <= length <= _LARGEST_HEADER:
            return f"is no safetensors file: its header would be {length} bytes long"
        if 8 + length > size:
            return f"is cut off in its header: found {size} bytes, expected at least {8 + length}"
        text = file.read(length)
    return _parsed(text, 8 + length, size)


def _parsed(text: bytes, begin: int, size: int) -> Header | str:
    """Parse a header, or return the text of a DamagedError; its data begin at byte ``begin`` of ``size``."""
    try:
        entries = json.loads(text)
    except ValueError as error:
        return f"is no safetensors file: its header is no JSON: {error}"
    except RecursionError:
        return "is no safetensors file: its header is nested too deeply"
    if not isinstance(entries, dict):
        return "is no safetensors file: its header is no JSON object"
    metadata = entries.pop("__metadata__", {})
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    end = 0
    for name, entry in entries.items():
        checked = _tensor(entry)
        if checked is None:
            return f"is no safetensors file: its header describes the tensor {name[:80]!r} wrongly"
        dtypes[name], shapes[name], tensor_end = checked
        end = max(end, tensor_end)
    if begin + end > size:
        return f"is cut off: found {size:,} bytes, expected {begin + end:,}"
    known = {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    return Header(MappingProxyType(shapes), MappingProxyType(dtypes), MappingProxyType(known))


def _other_format(first: bytes) -> str | None:
    """Describe a file that begins like a common substitute for a safetensors file; None for any other."""
    if first[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return "is a pickle under the name of a safetensors file"
    if first[:8].lower().startswith((b"<!doctyp", b"<html")):
        return "is a web page, not a safetensors file: the download went wrong"
    if first.startswith(b"version "):
        return "is a pointer of Git LFS, not the file itself"
    return None


def _tensor(entry: Any) -> tuple[str, Shape, int] | None:
    """Return dtype, shape and end (bytes from the start of the data) of a tensor; None for a malformed entry."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        return None
    if not isinstance(shape, list) or not all(type(number) is int and number >= 0 for number in [*shape, begin, end]):
        return None
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is not None and (end - begin) * 8 != math.prod(shape) * bits:
        return None
    return str(dtype), tuple(shape), end
