from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch

from graphflow import PortType
from graphflow.nodes import LoadImage
from tests.helpers.image_files import as_tensor, encoded, exif, opened, picture
from tests.helpers.recorder import Recorder


def load(path: Path, context: Recorder, background: str = "#ffffff") -> torch.Tensor:
    node = LoadImage(path=str(path), background=background)
    assert list(node.check({})) == []
    image = node.run(context=context)
    known: PortType = node.output_types({})["image"]
    assert (known.width, known.height, known.batch) == (image.width, image.height, len(image))
    assert image.pixels.dtype == torch.float32
    assert image.pixels.shape[1] == 3
    return image.pixels[0]


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats(format: str, mode: str, tmp_path: Path, context: Recorder) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    (tmp_path / "file").write_bytes(encoded(30, 20, format, mode, **options))
    pixels = load(tmp_path / "file", context)
    assert torch.equal(pixels, as_tensor(opened(tmp_path / "file")))
    if format != "JPEG":
        assert torch.equal(pixels, as_tensor(picture(30, 20, mode)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_as_pillow_does(orientation: int, tmp_path: Path, context: Recorder) -> None:
    (tmp_path / "file").write_bytes(encoded(30, 20, "JPEG", exif=exif(orientation)))
    theirs = PIL.ImageOps.exif_transpose(opened(tmp_path / "file"))
    assert torch.equal(load(tmp_path / "file", context), as_tensor(theirs))


def test_the_first_frame_of_an_animation(tmp_path: Path, context: Recorder) -> None:
    frames = [PIL.Image.new("RGB", (12, 8), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        pixels = load(tmp_path / name, context)
        assert pixels[:, 4, 4].tolist() == [1.0, 0.0, 0.0], name


def test_transparency_is_laid_over_the_background(tmp_path: Path, context: Recorder) -> None:
    PIL.Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    PIL.Image.new("LA", (8, 8), (0, 51)).save(tmp_path / "faint.png")
    palette = PIL.Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=1)
    assert load(tmp_path / "clear.png", context).flatten().tolist() == [1.0] * 192
    assert load(tmp_path / "clear.png", context, "#0000ff")[:, 0, 0].tolist() == [0.0, 0.0, 1.0]
    assert load(tmp_path / "faint.png", context)[0, 0, 0].item() == pytest.approx(0.8, abs=0.01)
    assert load(tmp_path / "palette.png", context).flatten().tolist() == [1.0] * 192


def test_sixteen_bits_and_cmyk(tmp_path: Path, context: Recorder) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    PIL.Image.fromarray(ramp).save(tmp_path / "deep.png")
    expected = torch.from_numpy(ramp.astype(np.float32) / 65535)
    assert (load(tmp_path / "deep.png", context)[0] - expected).abs().max() <= 0.5 / 255 + 1e-6
    PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=100)
    assert load(tmp_path / "ink.jpg", context)[:, 0, 0].round().tolist() == [1.0, 0.0, 0.0]


def test_problems_name_the_parameter(tmp_path: Path, context: Recorder) -> None:
    (tmp_path / "page.png").write_bytes(b"<html>not found</html>")
    node = LoadImage(path=str(tmp_path / "page.png"))
    (problem,) = node.check({})
    assert (problem.code, problem.field) == ("file.not_an_image", "path")
    with pytest.raises(ValueError, match="is an HTML page"):
        node.run(context=context)


def test_damage_inside_of_the_picture_is_found_when_it_runs(tmp_path: Path, context: Recorder) -> None:
    data = bytearray(encoded(30, 20, "PNG"))
    start = data.index(b"IDAT") + 6
    data[start : start + 20] = bytes(20)
    (tmp_path / "file.png").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="cannot be decoded"):
        LoadImage(path=str(tmp_path / "file.png")).run(context=context)


def test_the_content_is_the_identity(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encoded(8, 8, "PNG"))
    (tmp_path / "c.png").write_bytes(encoded(9, 8, "PNG"))
    a, b, c = (LoadImage(path=str(tmp_path / name)).identity() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c
