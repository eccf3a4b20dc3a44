"""Text in PNG files, without decoding them: chunks as the PNG specification (third edition, W3C) has them."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator

__all__ = ["SIGNATURE", "same_but_for_text", "text_of", "with_text"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

LARGEST_TEXT = 64 << 20
"""Bytes of text that are unpacked at most: what a stranger packed small may be large."""

Bytes = bytes | mmap.mmap

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def with_text(data: bytes, keyword: str, text: str) -> bytes:
    """Return a PNG file with a text in it, compressed, in place of what it had under the keyword before."""
    body = keyword.encode("latin-1") + b"\0\1\0\0\0" + zlib.compress(text.encode(), 9)
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    kept = b"".join(
        data[start:end]
        for kind, start, end in _chunks(data)
        if kind not in _TEXTS or not data.startswith(keyword.encode() + b"\0", start + 8)
    )
    header = 25  # length, kind, 13 bytes and checksum of IHDR, which comes first
    return SIGNATURE + kept[:header] + chunk + kept[header:]


def text_of(data: Bytes, keyword: str) -> str | None:
    """Return the international text under a keyword in a PNG file; None where there is none.

    Of a mapped file little more is read than the text. Raises ValueError for a file that is cut off or no PNG, and for
    a text that is damaged or too large.
    """
    for kind, start, end in _chunks(data):
        if kind != b"iTXt":
            continue
        if end - start > LARGEST_TEXT:
            raise ValueError(f"its text is larger than {LARGEST_TEXT >> 20} MiB")
        body, checksum = data[start + 8 : end - 4], data[end - 4 : end]
        name, _, rest = body.partition(b"\0")
        if name != keyword.encode():
            continue
        if struct.pack(">I", zlib.crc32(kind + body)) != checksum:
            raise ValueError("its text is damaged: the checksum is another one")
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
    """Check whether two files are equal, or PNG files that are equal but for their texts."""
    if one == other:
        return True
    if not one.startswith(SIGNATURE) or not other.startswith(SIGNATURE):
        return False
    try:
        return _without_text(one) == _without_text(other)
    except ValueError:
        return False


def _without_text(data: bytes) -> list[bytes]:
    return [data[start:end] for kind, start, end in _chunks(data) if kind not in _TEXTS]


def _chunks(data: Bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, and where it begins and ends. Raises ValueError."""
    if data[: len(SIGNATURE)] != SIGNATURE:
        raise ValueError("it is no PNG file")
    place = len(SIGNATURE)
    while place < len(data):
        if place + 12 > len(data):
            raise ValueError("it ends in the middle")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise ValueError("it ends in the middle")
        yield kind, place, end
        place = end
        if kind == b"IEND":
            return
