"""Depth maps read from files and written to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from graphflow import DepthMap, PortType
from graphflow.nodes import LoadDepthMap, SaveDepthMap
from graphflow.registry import Registry
from tests.nodes.conftest import Recorder


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
    ("name", "code"), [("../depth", "path.outside"), ("", "path.form"), ("depth.jpg", "value.format")]
)
def test_bad_names_are_refused(name: str, code: str, context: Recorder) -> None:
    node = SaveDepthMap(name=name)
    assert [problem.code for problem in node.check({})] == [code]
    with pytest.raises(ValueError, match=code):
        node.run(depth_map=DepthMap(ramp()), context=context)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    (problem,) = LoadDepthMap(path=str(tmp_path / "nothing.png")).check({})
    assert (problem.code, problem.field) == ("missing.file", "path")


def test_the_engine_finds_both_by_what_they_carry(registry: Registry) -> None:
    assert registry.loader(DepthMap) is LoadDepthMap
    assert registry.saver(PortType(DepthMap)) is SaveDepthMap
