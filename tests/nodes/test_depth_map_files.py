"""Depth maps read from files and written to them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphflow import DepthMap, PortType
from graphflow.nodes import LoadDepthMap, LoadImage, SaveDepthMap
from graphflow.registry import Registry
from tests.helpers.image_files import exif, names, opened
from tests.helpers.recorder import Recorder


def ramp(height: int = 3, width: int = 5) -> torch.Tensor:
    return torch.linspace(0, 1, height * width).reshape(1, 1, height, width)


def test_a_map_that_was_saved_is_read_back_to_16_bits(context: Recorder) -> None:
    SaveDepthMap(name="far/depth").run(depth_map=DepthMap(ramp()), context=context)
    (path,) = context.files
    assert path == context.output_folder.resolve() / "far" / "depth.png"
    node = LoadDepthMap(path=str(path))
    assert list(node.check({})) == []
    assert node.output_types({})["depth_map"] == PortType(DepthMap, width=5, height=3, batch=1)
    again = node.run(context=context)
    assert again.pixels.shape == (1, 1, 3, 5)
    assert float((again.pixels - ramp()).abs().max()) <= 0.5 / 65535 + 1e-7


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_pictures_of_8_bits_are_read_by_their_luminance(mode: str, tmp_path: Path, context: Recorder) -> None:
    grey = PIL.Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    grey.convert("RGB").convert(mode).save(tmp_path / "map.png")
    read = LoadDepthMap(path=str(tmp_path / "map.png")).run(context=context)
    assert read.pixels[0, 0].tolist() == [[0, 1], [1, 0]]
    turned = LoadDepthMap(path=str(tmp_path / "map.png"), invert=True).run(context=context)
    assert turned.pixels[0, 0].tolist() == [[1, 0], [0, 1]]


def test_the_maps_of_a_batch_have_numbers(context: Recorder) -> None:
    SaveDepthMap(name="depth.png").run(depth_map=DepthMap(torch.cat([ramp(), 1 - ramp()])), context=context)
    assert [path.name for path in context.files] == ["depth-0.png", "depth-1.png"]


def test_another_map_is_never_lost(context: Recorder) -> None:
    for values in (ramp(), 1 - ramp(), ramp()):
        SaveDepthMap().run(depth_map=DepthMap(values), context=context)
    assert [path.name for path in context.files] == ["depth.png", "depth-2.png", "depth.png"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("../depth", "path.outside"),
        ("/depth", "path.outside"),
        ("", "path.form"),
        ("nul.png", "path.form"),
        ("depth.jpg", "value.format"),
        ("deep/depth.EXR", "value.format"),
        ("depth.png.npy", "value.format"),
    ],
)
def test_bad_names_are_refused(name: str, code: str, context: Recorder) -> None:
    node = SaveDepthMap(name=name)
    assert [problem.code for problem in node.check({})] == [code]
    assert [problem.field for problem in node.check({})] == ["name"]
    with pytest.raises(ValueError, match=code):
        node.run(depth_map=DepthMap(ramp()), context=context)
    assert names(context.output_folder) == []


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    (problem,) = LoadDepthMap(path=str(tmp_path / "nothing.png")).check({})
    assert (problem.code, problem.field) == ("missing.file", "path")


def test_the_engine_finds_both_by_what_they_carry(registry: Registry) -> None:
    assert registry.loader(DepthMap) is LoadDepthMap
    assert registry.saver(PortType(DepthMap)) is SaveDepthMap


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**31), st.sampled_from((0.0, 0.5)))
def test_any_map_is_read_back(height: int, width: int, batch: int, seed: int, beyond: float) -> None:
    values = torch.rand((batch, 1, height, width), generator=torch.Generator().manual_seed(seed))
    values = values * (1 + 2 * beyond) - beyond  # what lies outside of [0, 1] is clipped
    with tempfile.TemporaryDirectory() as folder:
        context = Recorder(Path(folder))
        SaveDepthMap().run(depth_map=DepthMap(values), context=context)
        maps = [LoadDepthMap(path=str(path)).run(context=context) for path in context.files]
    again = torch.cat([one.pixels for one in maps])
    assert again.shape == values.shape
    assert again.dtype == torch.float32
    assert float((again - values.clamp(0, 1)).abs().max()) <= 0.5 / 65535 + 1e-7


def test_each_of_the_levels_of_16_bits_is_kept(tmp_path: Path, context: Recorder) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    PIL.Image.fromarray(levels).save(tmp_path / "map.png")
    read = LoadDepthMap(path=str(tmp_path / "map.png")).run(context=context)
    assert torch.equal(read.pixels[0, 0], torch.from_numpy(levels.astype(np.float32) / 65535))
    SaveDepthMap(name="again").run(depth_map=read, context=context)
    with PIL.Image.open(context.files[0]) as file:
        assert file.mode == "I;16"
        assert np.array_equal(np.asarray(file), levels)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_each_of_the_levels_of_8_bits_is_kept(mode: str, tmp_path: Path, context: Recorder) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    PIL.Image.fromarray(levels).convert(mode).save(tmp_path / "map.png")
    read = LoadDepthMap(path=str(tmp_path / "map.png")).run(context=context)
    assert torch.equal(read.pixels[0, 0], torch.from_numpy(levels.astype(np.float32) / 255))


def test_of_colours_the_luminance_is_taken(tmp_path: Path, context: Recorder) -> None:
    weights = []
    for colour in ("#ff0000", "#00ff00", "#0000ff"):
        PIL.Image.new("RGB", (2, 2), colour).save(tmp_path / "map.png")
        weights.append(float(LoadDepthMap(path=str(tmp_path / "map.png")).run(context=context).pixels[0, 0, 0, 0]))
    assert weights == pytest.approx([0.299, 0.587, 0.114], abs=0.5 / 255)


def test_a_map_of_16_bits_is_inverted_with_all_of_them(tmp_path: Path, context: Recorder) -> None:
    levels = np.array([[0, 1, 40000, 65535]], np.uint16)
    PIL.Image.fromarray(levels).save(tmp_path / "map.png")
    read = LoadDepthMap(path=str(tmp_path / "map.png"), invert=True).run(context=context)
    assert (read.pixels[0, 0] * 65535).round().int().tolist() == [[65535, 65534, 25535, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_a_rotation_is_applied_as_pillow_does(bits: int, orientation: int, tmp_path: Path, context: Recorder) -> None:
    levels = np.arange(0, 256, 43, dtype=np.uint8).reshape(2, 3)
    stored = levels if bits == 8 else levels.astype(np.uint16) * 257
    PIL.Image.fromarray(stored).save(tmp_path / "map.png", exif=exif(orientation))
    node = LoadDepthMap(path=str(tmp_path / "map.png"))
    read = node.run(context=context)
    assert node.output_types({})["depth_map"] == PortType(DepthMap, width=read.width, height=read.height, batch=1)
    assert (read.width, read.height) == ((3, 2) if orientation < 5 else (2, 3))
    theirs = PIL.ImageOps.exif_transpose(opened(tmp_path / "map.png"))
    shown = torch.from_numpy(np.array(theirs, dtype=np.float32)) / (2**bits - 1)
    assert torch.equal(read.pixels[0, 0], shown)
    picture = LoadImage(path=str(tmp_path / "map.png")).run(context=context)
    assert float((read.pixels - picture.pixels).abs().max()) < 1e-6


def test_overwrite(context: Recorder) -> None:
    for values in (ramp(), 1 - ramp()):
        SaveDepthMap(overwrite=True).run(depth_map=DepthMap(values), context=context)
    assert names(context.output_folder) == ["depth.png"]
    read = LoadDepthMap(path=str(context.files[-1])).run(context=context)
    assert float((read.pixels - (1 - ramp())).abs().max()) <= 0.5 / 65535 + 1e-7


def test_a_file_that_is_no_map_is_never_lost(context: Recorder) -> None:
    (context.output_folder / "depth.png").write_bytes(b"something else")
    SaveDepthMap().run(depth_map=DepthMap(ramp()), context=context)
    assert names(context.output_folder) == ["depth-2.png", "depth.png"]
    assert (context.output_folder / "depth.png").read_bytes() == b"something else"


def test_a_link_out_of_the_folder_is_not_followed(context: Recorder, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (context.output_folder / "way").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="leads out of the output folder"):
        SaveDepthMap(name="way/depth").run(depth_map=DepthMap(ramp()), context=context)
    assert names(elsewhere) == []


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("depth", "depth.png"),
        ("a/b.png", "a/b.png"),
        ("far.PNG", "far.PNG"),
        ("v1.5", "v1.5.png"),
        (".png", ".png.png"),
    ],
)
def test_the_file_that_is_claimed_is_the_one_that_is_written(name: str, file: str, context: Recorder) -> None:
    node = SaveDepthMap(name=name)
    assert list(node.check({})) == []
    assert node.claims() == (file,)
    node.run(depth_map=DepthMap(ramp()), context=context)
    assert names(context.output_folder) == [file]
    assert opened(context.output_folder / file).mode == "I;16"


def test_a_file_that_is_cut_short_is_reported(tmp_path: Path, context: Recorder) -> None:
    SaveDepthMap().run(depth_map=DepthMap(ramp(20, 30)), context=context)
    (tmp_path / "short.png").write_bytes(context.files[0].read_bytes()[:-20])
    node = LoadDepthMap(path=str(tmp_path / "short.png"))
    (problem,) = node.check({})
    assert (problem.code, problem.field) == ("file.truncated", "path")
    assert node.output_types({})["depth_map"] == PortType(DepthMap)
    with pytest.raises(ValueError, match=r"ends too early .*\[file\.truncated\]"):
        node.run(context=context)


def test_damage_inside_of_the_picture_is_found_when_it_runs(tmp_path: Path, context: Recorder) -> None:
    SaveDepthMap().run(depth_map=DepthMap(ramp(20, 30)), context=context)
    data = bytearray(context.files[0].read_bytes())
    start = data.index(b"IDAT") + 6
    data[start : start + 20] = bytes(20)
    (tmp_path / "damaged.png").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="cannot be decoded"):
        LoadDepthMap(path=str(tmp_path / "damaged.png")).run(context=context)


def test_the_content_is_the_identity(context: Recorder) -> None:
    for name, values in (("a", ramp()), ("b", ramp()), ("c", 1 - ramp())):
        SaveDepthMap(name=name).run(depth_map=DepthMap(values), context=context)
    a, b, c = (LoadDepthMap(path=str(path)).identity() for path in context.files)
    assert a == b != c
