from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphflow import Problem
from graphflow.nodes.files.image_header import MAXIMUM_PIXELS, ImageHeader, inspect_image, parse_image
from tests.helpers.image_files import encoded, exif

FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(1, 60), st.integers(1, 60))
def test_the_size_is_the_one_that_was_written(format: str, width: int, height: int) -> None:
    header = parse_image(encoded(width, height, format), "a file")
    assert isinstance(header, ImageHeader)
    assert (header.format.upper(), header.width, header.height) == (format, width, height)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {"mode": "P"}),
    ("PNG", {"mode": "RGBA"}),
    ("PNG", {"mode": "L", "exif": exif(6)}),
    ("JPEG", {"mode": "L"}),
    ("JPEG", {"mode": "CMYK"}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"exif": exif(6), "comment": b"\xff\xd9 not the end"}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"mode": "RGBA"}),
    ("WEBP", {"exif": exif(8)}),
    ("GIF", {"mode": "P"}),
    ("GIF", {"save_all": True, "append_images": [PIL.Image.new("RGB", (30, 20), "red")]}),
    ("BMP", {"mode": "1"}),
    ("BMP", {"mode": "P"}),
]


@pytest.mark.parametrize(("format", "options"), VARIANTS)
def test_variants(format: str, options: dict[str, Any]) -> None:
    data = encoded(30, 20, format, **options)
    turned = "exif" in options
    header = parse_image(data, "a file")
    assert isinstance(header, ImageHeader), header
    assert (header.width, header.height) == ((20, 30) if turned else (30, 20))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(VARIANTS), st.data())
def test_a_file_cut_anywhere_is_reported(variant: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    kind, options = variant
    whole = encoded(30, 20, kind, **options)
    end = data.draw(st.integers(0, len(whole) - 1))
    found = parse_image(whole[:end], "cut")
    assert isinstance(found, Problem)
    assert found.code == ("file.truncated" if end >= 30 else found.code)
    assert found.code in {"file.truncated", "file.not_an_image"}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(VARIANTS), st.data())
def test_damage_never_raises(variant: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    kind, options = variant
    damaged = bytearray(encoded(30, 20, kind, **options))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    found = parse_image(bytes(damaged), "damaged")
    assert isinstance(found, (ImageHeader, Problem))
    if isinstance(found, ImageHeader):
        assert 0 < found.width * found.height <= MAXIMUM_PIXELS


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"BM"]),
    st.binary(max_size=200),
)
def test_no_bytes_raise(start: bytes, rest: bytes) -> None:
    assert isinstance(parse_image(start + rest, "noise"), (ImageHeader, Problem))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, order: str) -> None:
    header = parse_image(encoded(30, 20, "JPEG", exif=exif(orientation, order)), "turned")
    assert isinstance(header, ImageHeader)
    assert header.orientation == orientation
    assert (header.width, header.height) == ((20, 30) if orientation >= 5 else (30, 20))


def test_bytes_after_the_end_of_a_jpeg_do_not_matter() -> None:
    assert isinstance(parse_image(encoded(30, 20, "JPEG") + b"\0trailer of some camera", "a file"), ImageHeader)


OTHERS = {
    "an HTML page": b"<!DOCTYPE html><html><body>404</body></html>",
    "a JSON document": b'{"error": "not found"}',
    "a PDF document": b"%PDF-1.7\n",
    "a safetensors file": (60).to_bytes(8, "little") + b'{"w":{"dtype":"F32"' + b" " * 60,
    "a text file": b"nothing to see here",
    "a zip archive": b"PK\3\4rest",
    "a Git LFS pointer; the real file was not fetched": b"version https://git-lfs.github.com/spec/v1\n",
    "an SVG drawing": b'<?xml version="1.0"?>\n<svg xmlns="x"/>',
    "a TIFF image, which is not read here": b"II*\0\x08\0\0\0",
    "of an unknown kind (it begins with 00 01 02 03)": b"\0\1\2\3",
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_it_is_instead(what: str) -> None:
    found = parse_image(OTHERS[what], "photo.png")
    assert isinstance(found, Problem)
    assert found.code == "file.not_an_image"
    assert found.message == f"photo.png is {what}, expected an image (PNG, JPEG, WebP, GIF or BMP)"


def test_files(tmp_path: Path) -> None:
    def code(path: Path) -> str:
        found = inspect_image(str(path))
        assert isinstance(found, Problem)
        return found.code

    (tmp_path / "empty.png").touch()
    (tmp_path / "good.png").write_bytes(encoded(8, 8, "PNG"))
    assert code(tmp_path / "none.png") == "missing.file"
    assert code(tmp_path) == "file.not_an_image"
    assert code(tmp_path / "empty.png") == "file.not_an_image"
    assert isinstance(inspect_image(str(tmp_path / "good.png")), ImageHeader)
    (tmp_path / "good.png").write_bytes(encoded(8, 8, "PNG")[:-5])
    assert code(tmp_path / "good.png") == "file.truncated"


def test_a_decompression_bomb_is_refused() -> None:
    data = bytearray(encoded(8, 8, "PNG"))
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    found = parse_image(bytes(data), "bomb.png")
    assert isinstance(found, Problem)
    assert (found.code, found.message) == (
        "file.too_large",
        "bomb.png has 20000 x 20000 pixels, expected at most 178956970 in all",
    )
