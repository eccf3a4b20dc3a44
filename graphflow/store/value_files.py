"""Values as files: the outputs of a step in one safetensors file, with their types and a checksum inside.

Tensors are stored as they are, in their own precision. What is no tensor stands as JSON in the header, so that a file
without tensors is written and read without torch. Values are plain ones (texts, numbers, true and false) and
dataclasses whose fields are tensors or plain values: `Image`, `Latent`, `Conditioning` and whatever else a node pack
passes on that is built so. Nothing that a file names is imported: it says which class a value was, and the reader
offers the classes that it expects.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["DamagedError", "decode", "encode"]

FORMAT = 1
"""Version of the form, in every file."""

_KEY = "graphflow"
_UNSUMMED = b"0" * 64
"""Stand-in for the checksum while it is taken."""

_PLAIN = (str, int, float, bool, type(None))


class DamagedError(Exception):
    """A file that does not hold what was written, and why."""


class _UnwritableError(Exception):
    """A value that no file can hold."""


def encode(outputs: Mapping[str, Any]) -> bytes | None:
    """Return the content of a file for named values; None where one of them cannot be written.

    Tensors are copied to the CPU.
    """
    tensors: dict[str, Any] = {}
    try:
        described = {name: _describe(value, tensors) for name, value in outputs.items()}
    except _UnwritableError:
        return None
    # the checksum comes first, so that its place is the first one in the file that looks like it
    record = {"sha256": _UNSUMMED.decode(), "format": FORMAT, "outputs": described}
    metadata = {_KEY: json.dumps(record)}
    if tensors:
        import safetensors.torch

        data = safetensors.torch.save(tensors, metadata)
    else:
        import safetensors

        data = safetensors.serialize({}, metadata)
    return data.replace(_UNSUMMED, hashlib.sha256(data).hexdigest().encode(), 1)


def decode(data: bytes, kinds: Iterable[type] = ()) -> dict[str, Any]:
    """Read the named values in a file; dataclasses must be among ``kinds``. Raises DamagedError."""
    record = _record(data)
    if record.get("format") != FORMAT:
        raise DamagedError(f"found format {record.get('format')!r}, expected {FORMAT}")
    classes = {_name_of(kind): kind for kind in kinds}
    try:
        described = record["outputs"]
        tensors: Mapping[str, Any] = {}
        if any("kind" in value for value in described.values()):
            import safetensors.torch

            tensors = safetensors.torch.load(data)
        return {name: _restore(value, classes, tensors) for name, value in described.items()}
    except DamagedError:
        raise
    except Exception as error:  # whatever a file that is not ours makes the readers say
        raise DamagedError(f"{type(error).__name__}: {error}") from error


def _record(data: bytes) -> dict[str, Any]:
    """Read the description of the values in the header, once the checksum was found right."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + length]
        if len(header) != length:
            raise DamagedError("it ends in the middle")
        record: dict[str, Any] = json.loads(json.loads(header)["__metadata__"][_KEY])
        expected = record["sha256"].encode()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError("its header cannot be read") from error
    hasher = hashlib.sha256(data[:8] + header.replace(expected, _UNSUMMED, 1))
    hasher.update(memoryview(data)[8 + length :])
    if hasher.hexdigest().encode() != expected:
        raise DamagedError("its checksum is wrong")
    return record


def _describe(value: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    if type(value) in _PLAIN:
        return {"plain": value}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise _UnwritableError
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if not field.init:
            raise _UnwritableError
        if hasattr(part, "detach") and hasattr(part, "dtype"):
            name = str(len(tensors))
            tensors[name] = part.detach().cpu().contiguous()
            fields[field.name] = {"tensor": name}
        elif type(part) in _PLAIN:
            fields[field.name] = {"plain": part}
        else:
            raise _UnwritableError
    return {"kind": _name_of(type(value)), "fields": fields}


def _restore(described: Mapping[str, Any], classes: Mapping[str, type], tensors: Mapping[str, Any]) -> Any:
    if "kind" not in described:
        return described["plain"]
    cls = classes.get(described["kind"])
    if cls is None:
        raise DamagedError(f"found a value of class {described['kind']}, expected {', '.join(classes) or 'none'}")
    return cls(
        **{
            name: tensors[part["tensor"]] if "tensor" in part else part["plain"]
            for name, part in described["fields"].items()
        }
    )


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
