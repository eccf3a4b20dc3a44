"""Text in PNG files: what is written is read, the picture stays the same, and damage is told."""

from __future__ import annotations

import io
import struct
import zlib

import PIL.Image
import PIL.PngImagePlugin
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphflow.record import png_text
from graphflow.record.png_text import same_but_for_text, text_of, with_text


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (5, 4), colour).save(buffer, format="PNG")
    return buffer.getvalue()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_comes_back_and_the_picture_stays(text: str) -> None:
    data = with_text(picture(), "graphflow", text)
    assert text_of(data, "graphflow") == text
    assert text_of(data, "other") is None
    with PIL.Image.open(io.BytesIO(data)) as opened:
        opened.load()
        assert opened.getpixel((0, 0)) == (255, 0, 0)
        assert isinstance(opened, PIL.PngImagePlugin.PngImageFile) and opened.text["graphflow"] == text


def test_a_second_text_takes_the_place_of_the_first() -> None:
    data = with_text(with_text(picture(), "graphflow", "one"), "graphflow", "two")
    assert text_of(data, "graphflow") == "two" and data.count(b"iTXt") == 1


def test_what_another_program_wrote_is_read() -> None:
    info = PIL.PngImagePlugin.PngInfo()
    info.add_itxt("graphflow", "plain")
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (2, 2)).save(buffer, format="PNG", pnginfo=info)
    assert text_of(buffer.getvalue(), "graphflow") == "plain"


def test_pictures_are_the_same_whatever_they_tell_of_themselves() -> None:
    one, other = with_text(picture(), "graphflow", "one"), with_text(picture(), "graphflow", "two")
    assert same_but_for_text(one, other) and same_but_for_text(one, picture())
    assert not same_but_for_text(one, with_text(picture("blue"), "graphflow", "one"))
    assert not same_but_for_text(one, b"text") and same_but_for_text(b"text", b"text")
    assert not same_but_for_text(one, other[:-1])


@pytest.mark.parametrize("cut", [1, 20, 40, 60])
def test_a_file_that_is_cut_off_is_told(cut: int) -> None:
    with pytest.raises(ValueError, match="it ends in the middle"):
        text_of(with_text(picture(), "other", "x" * 50)[:-cut], "graphflow")
    with pytest.raises(ValueError, match="it is no PNG file"):
        text_of(b"GIF89a", "graphflow")


def test_a_text_that_grows_without_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_text, "LARGEST_TEXT", 1 << 20)
    with pytest.raises(ValueError, match="its text is larger than 1 MiB"):
        text_of(with_text(picture(), "graphflow", "0" * (2 << 20)), "graphflow")


def test_a_damaged_text_is_told() -> None:
    body = b"graphflow\0\1\0\0\0not compressed"
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    data = picture()
    with pytest.raises(ValueError, match="its text is damaged"):
        text_of(data[:33] + chunk + data[33:], "graphflow")


def test_a_text_with_a_changed_byte_is_damaged() -> None:
    data = with_text(picture(), "graphflow", "one")
    place = data.index(b"graphflow") + 16
    changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    with pytest.raises(ValueError, match="the checksum is another one"):
        text_of(changed, "graphflow")
