"""Text in PNG files, without decoding them: chunks as the PNG specification (third edition, W3C) has them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

__all__ = ["SIGNATURE", "same_but_for_text", "text_of", "with_text"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

LARGEST_TEXT = 64 << 20
"""Bytes of text that are unpacked at most: what a stranger packed small may be large."""

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def with_text(data: bytes, keyword: str, text: str) -> bytes:
    """A PNG file with a text in it, compressed, in place of what it had under the keyword before."""
    body = keyword.encode("latin-1") + b"\0\1\0\0\0" + zlib.compress(text.encode(), 9)
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    kept = b"".join(
        whole
        for kind, body, whole in _chunks(data)
        if kind not in _TEXTS or body.partition(b"\0")[0] != keyword.encode()
    )
    header = 25  # length, kind, 13 bytes and checksum of IHDR, which comes first
    return SIGNATURE + kept[:header] + chunk + kept[header:]


def text_of(data: bytes, keyword: str) -> str | None:
    """The international text under a keyword in a PNG file; None where there is none.

    Raises ValueError for a file that is cut off or no PNG, and for a text that is damaged or too large.
    """
    for kind, body, _ in _chunks(data):
        name, _, rest = body.partition(b"\0")
        if kind != b"iTXt" or name != keyword.encode():
            continue
        compressed, parts = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
        if len(parts) < 3:
            raise ValueError("its text is damaged")
        if not compressed:
            return parts[2].decode()
        unpacker = zlib.decompressobj()
        try:
            found = unpacker.decompress(parts[2], LARGEST_TEXT)
        except zlib.error as error:
            raise ValueError(f"its text is damaged: {error}") from None
        if unpacker.unconsumed_tail:
            raise ValueError(f"its text is larger than {LARGEST_TEXT >> 20} MiB")
        return found.decode()
    return None


def same_but_for_text(one: bytes, other: bytes) -> bool:
    """Whether two files are equal, or PNG files that are equal but for their texts."""
    if one == other:
        return True
    if not one.startswith(SIGNATURE) or not other.startswith(SIGNATURE):
        return False
    try:
        return _without_text(one) == _without_text(other)
    except ValueError:
        return False


def _without_text(data: bytes) -> list[bytes]:
    return [whole for kind, _, whole in _chunks(data) if kind not in _TEXTS]


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, body and whole of each chunk. Raises ValueError."""
    if not data.startswith(SIGNATURE):
        raise ValueError("it is no PNG file")
    place = len(SIGNATURE)
    while place < len(data):
        if place + 12 > len(data):
            raise ValueError("it ends in the middle")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise ValueError("it ends in the middle")
        yield kind, data[place + 8 : end - 4], data[place:end]
        place = end
        if kind == b"IEND":
            return
