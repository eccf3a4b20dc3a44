"""Headers of image files, read without decoding: format, size, orientation, and that the end is there.

Reads PNG, JPEG, WebP, GIF and BMP with nothing but the standard library, so that a workflow is checked without Pillow.
A decoder may still find damage inside of the picture; `graphflow.nodes.LoadImage` reports that when it runs.
"""

from __future__ import annotations

import functools
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from graphflow import Problem

__all__ = ["MAXIMUM_PIXELS", "ImageHeader", "inspect_image", "parse_image"]

MAXIMUM_PIXELS = 178_956_970
"""Larger images are refused as decompression bombs; Pillow draws the line here too."""

_EXPECTED = "expected an image (PNG, JPEG, WebP, GIF or BMP)"

Bytes = bytes | mmap.mmap


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size in pixels as the picture is shown, that is, with ``orientation`` (EXIF, 1 to 8) already applied."""

    format: str
    width: int
    height: int
    orientation: int = 1


class _TruncatedError(Exception):
    """The file ends before its format does."""


class _MalformedError(Exception):
    """The signature is that of an image, what follows is not."""


def inspect_image(path: str) -> ImageHeader | Problem:
    """Return the header of a file, or the problem with it. Remembered until the file changes."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        hint = "check the name; a path in a workflow starts in its folder"
        return Problem("missing.file", f"there is no file {path}", hint=hint)
    return _inspect(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _inspect(path: str, size: int, changed: int) -> ImageHeader | Problem:
    name = Path(path).name
    if not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "not a regular file"
        return Problem("file.not_an_image", f"{name} is {what}, {_EXPECTED}")
    if size == 0:
        hint = "was its download cut short?"
        return Problem("file.not_an_image", f"{name} is empty (0 bytes), {_EXPECTED}", hint=hint)
    try:
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return parse_image(data, name)
    except (OSError, ValueError) as error:
        return Problem("missing.file", f"{name} cannot be read: {error}", hint="check who may read it")


def parse_image(data: Bytes, name: str) -> ImageHeader | Problem:
    """Return the header in the bytes of a whole file, or the problem with them; ``name`` is for messages."""
    start = bytes(data[:16])
    match = next((entry for entry in _FORMATS if re.match(entry[0], start, re.DOTALL)), None)
    if match is None:
        return _not_an_image(data, name)
    _, kind, parse = match
    try:
        header = parse(data)
    except (_TruncatedError, struct.error, IndexError):
        message = f"{name} is a {kind} file that ends too early (after {len(data)} bytes)"
        return Problem("file.truncated", message, hint="copy or download it again")
    except _MalformedError as fault:
        message = f"{name} begins like a {kind} file, but {fault}; {_EXPECTED}"
        return Problem("file.not_an_image", message, hint="save it again with another program")
    if header.width * header.height > MAXIMUM_PIXELS:
        message = f"{name} has {header.width} x {header.height} pixels, expected at most {MAXIMUM_PIXELS} in all"
        hint = "make it smaller first; a small file with that many pixels is a decompression bomb"
        return Problem("file.too_large", message, hint=hint)
    return header


def _checked(format: str, width: int, height: int, orientation: int = 1) -> ImageHeader:
    if width < 1 or height < 1:
        raise _MalformedError(f"its size is {width} x {height}")
    if orientation in (5, 6, 7, 8):  # these turn the picture by a quarter
        width, height = height, width
    return ImageHeader(format, width, height, orientation)


def _need(data: Bytes, end: int) -> None:
    if end > len(data):
        raise _TruncatedError


# The formats ----------------------------------------------------------------------------------------------------------


def _png(data: Bytes) -> ImageHeader:
    """Chunks of length, type, data and checksum, from IHDR to IEND (PNG, 3rd edition, section 5)."""
    position, orientation = 8, 1
    width = height = None
    while True:
        _need(data, position + 12)
        length, kind = struct.unpack_from(">I4s", data, position)
        _need(data, position + 12 + length)
        if width is None or height is None:
            if kind != b"IHDR" or length != 13:
                raise _MalformedError("it does not start with an IHDR chunk")
            width, height = struct.unpack_from(">II", data, position + 8)
        elif kind == b"eXIf":
            orientation = _exif_orientation(bytes(data[position + 8 : position + 8 + length]))
        elif kind == b"IEND":
            return _checked("PNG", width, height, orientation)
        position += 12 + length


_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""Inside of the coded picture: any marker but stuffed zeros, fill bytes and restarts."""

_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers; the other three are tables."""


def _jpeg(data: Bytes) -> ImageHeader:
    """Segments of marker and length from SOI to EOI (ITU-T T.81, annex B); anything after EOI is ignored."""
    position, orientation, size = 2, 1, None
    while True:
        _need(data, position + 2)
        if data[position] != 0xFF:
            raise _MalformedError("a segment does not start with a marker")
        marker = data[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        position += 2
        if marker == 0xD9:
            if size is None:
                raise _MalformedError("it holds no picture")
            return _checked("JPEG", *size, orientation)
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers that stand alone
            continue
        _need(data, position + 2)
        (length,) = struct.unpack_from(">H", data, position)
        if length < 2:
            raise _MalformedError("a segment has no length")
        _need(data, position + length)
        if marker in _JPEG_SIZES and size is None:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = (width, height)
        elif marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = _exif_orientation(bytes(data[position + 8 : position + length]))
        position += length
        if marker == 0xDA:
            following = _JPEG_MARKER.search(data, position)
            if following is None:
                raise _TruncatedError
            position = following.start()


def _webp(data: Bytes) -> ImageHeader:
    """Read a RIFF container whose first chunk is VP8, VP8L or VP8X (RFC 9649)."""
    (riff_size,) = struct.unpack_from("<I", data, 4)
    end = 8 + riff_size
    _need(data, end)
    kind = bytes(data[12:16])
    _need(data, 30)
    orientation = 1
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        position = 12
        while position + 8 <= end:
            name, length = struct.unpack_from("<4sI", data, position)
            _need(data, position + 8 + length)
            if name == b"EXIF":
                orientation = _exif_orientation(bytes(data[position + 8 : position + 8 + length]))
            position += 8 + length + length % 2
    elif kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise _MalformedError("its VP8 frame has no start code")
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        if data[20] != 0x2F:
            raise _MalformedError("its VP8L frame has no signature")
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        raise _MalformedError(f"its first chunk is {kind!r}")
    return _checked("WebP", width, height, orientation)


def _gif(data: Bytes) -> ImageHeader:
    """Read a screen, then blocks until the trailer (GIF89a). A first frame that sticks out makes the picture larger."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _palette(flags)
    frames = 0
    while True:
        _need(data, position + 1)
        block = data[position]
        if block == 0x3B:
            if not frames:
                raise _MalformedError("it holds no picture")
            return _checked("GIF", width, height)
        if block == 0x21:
            position += 2
        elif block == 0x2C:
            left, top, wide, high, local = struct.unpack_from("<HHHHB", data, position + 1)
            if not frames:
                width, height = max(width, left + wide), max(height, top + high)
            frames += 1
            position += 11 + _palette(local)
        else:
            raise _MalformedError(f"it has a block of unknown kind {block}")
        while True:  # sub-blocks: a length byte and that many bytes, up to a length of 0
            _need(data, position + 1)
            length = data[position]
            position += 1 + length
            if length == 0:
                break


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: Bytes) -> ImageHeader:
    """Read a file header, then a bitmap header with the size of the pixels."""
    file_size, offset, header_size = struct.unpack_from("<I4xII", data, 2)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif 40 <= header_size <= 256:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise _MalformedError(f"its header has {header_size} bytes")
    if compression in (0, 3, 6):  # plain pixels, rows filled up to 4 bytes
        _need(data, offset + (width * bits + 31) // 32 * 4 * abs(height) if width > 0 else 0)
    _need(data, min(file_size, 14 + header_size) if compression in (0, 3, 6) else file_size)
    return _checked("BMP", width, abs(height))


def _exif_orientation(exif: bytes) -> int:
    """Read the orientation (tag 0x0112) in the first directory of an EXIF block; 1 where it does not say."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for index in range(entries):
            tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, directory + 2 + 12 * index)
            if tag == 0x0112 and kind == 3 and count == 1:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


_FORMATS = (
    (rb"\x89PNG\r\n\x1a\n", "PNG", _png),
    (rb"\xff\xd8\xff", "JPEG", _jpeg),
    (rb"RIFF....WEBP", "WebP", _webp),
    (rb"GIF8[79]a", "GIF", _gif),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]", "BMP", _bmp),
)


# What it is instead ---------------------------------------------------------------------------------------------------

_OTHERS = (
    (rb"\s*(<!doctype html|<html)", "an HTML page"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", "an SVG drawing"),
    (rb"\s*<\?xml", "an XML document"),
    (rb"%PDF-", "a PDF document"),
    (rb".{8}\s*\{", "a safetensors file"),
    (rb"\s*[\[{]\s*([\"\[{\]}\d]|true|false|null)", "a JSON document"),
    (rb"(II\*\0|MM\0\*)", "a TIFF image, which is not read here"),
    (rb".{4}ftyp(heic|heix|mif1|msf1)", "a HEIC image, which is not read here"),
    (rb".{4}ftypavi[fs]", "an AVIF image, which is not read here"),
    (rb".{4}ftyp", "a video"),
    (rb"\x1a\x45\xdf\xa3", "a video"),
    (rb"8BPS", "a Photoshop file, which is not read here"),
    (rb"\x00\x00\x01\x00", "an icon, which is not read here"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"version https://git-lfs", "a Git LFS pointer; the real file was not fetched"),
)


def _not_an_image(data: Bytes, name: str) -> Problem:
    start = bytes(data[:512])
    for pattern, what in _OTHERS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            if what == "a safetensors file" and int.from_bytes(start[:8], "little") > max(len(data), 1 << 20):
                continue
            hint = "save it as PNG or JPEG" if what.endswith("read here") else "give the path of a picture"
            if what == "an HTML page":
                hint = "a download that failed often leaves the page that says so; look at it in a browser"
            return Problem("file.not_an_image", f"{name} is {what}, {_EXPECTED}", hint=hint)
    textual = not re.search(rb"[\0-\x08\x0e-\x1a\x7f-\xff]", start)
    what = "a text file" if textual else f"of an unknown kind (it begins with {start[:8].hex(' ')})"
    return Problem("file.not_an_image", f"{name} is {what}, {_EXPECTED}", hint="give the path of a picture")
