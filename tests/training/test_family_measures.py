"""Measures of the family's judges: on known inputs, and on true renders, which must be read as right."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from training.pocket import control_data
from training.pocket.data import to_bytes
from training.pocket.export import BASE
from training.pocket.judge_control import colors_right, load_depth
from training.pocket.judge_family import judge_size
from training.pocket.measures import (
    Figure,
    contact_sheet,
    decibels,
    empty_depth,
    overlap,
    regions,
    resized,
    sharpness,
    side_by_side,
    table,
)
from training.pocket.read_picture import COLORFUL, color_by_hue, color_in_mask
from training.pocket.render import RGB

FAMILY = BASE.parent


def test_decibels_of_known_differences() -> None:
    truth = np.full((2, 4, 4, 3), 100, np.uint8)
    assert decibels(truth, truth) == pytest.approx(100)
    assert decibels(truth + 10, truth) == pytest.approx(20 * np.log10(25.5))
    assert decibels(truth, truth + 10) == pytest.approx(20 * np.log10(25.5))


def test_sharpness_of_known_edges() -> None:
    truth = np.zeros((1, 8, 8, 3), np.uint8)
    truth[:, :, 4:] = 200
    assert sharpness(truth, truth) == pytest.approx(1)
    assert sharpness(truth // 2, truth) == pytest.approx(0.5)
    blurred = truth.copy()
    blurred[:, :, 3:5] = 100
    assert sharpness(blurred, truth) == pytest.approx(0, abs=1e-6)  # both pixels beside the old edge are equal now


def test_overlap_of_known_regions() -> None:
    one, other = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    assert overlap(one, other) == 1
    one[0, :, :2], other[0, :, 1:3] = True, True
    assert overlap(one, other) == pytest.approx((1 / 3 + 1) / 2)
    assert overlap(one, one) == 1


def test_regions_of_exact_depths_are_the_things() -> None:
    _, _, renderings = control_data.held_out(8, 3)
    found = regions(np.stack([rendering.depth for rendering in renderings]))
    masks = np.stack([rendering.mask > 0 for rendering in renderings])
    assert overlap(found, masks) > 0.7
    assert (found & masks).sum() / found.sum() > 0.9
    assert not regions(empty_depth()[None]).any()


def test_colors_are_read_inside_a_mask() -> None:
    assert all(color_by_hue(np.array([RGB[color]]) * 0.8) == color for color in COLORFUL)
    image, mask = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    image[mask] = to_bytes(np.array(RGB["purple"], np.float32))
    image[mask & ~np.pad(mask[5:11, 5:11], 5)] = (0, 255, 0)  # the rim counts for nothing
    assert color_in_mask(image, mask) == "purple"
    assert color_in_mask(image, mask, least=37) is None


def test_colors_of_true_renders_are_right() -> None:
    scenes, _, renderings = control_data.held_out(20, 4)
    assert colors_right(scenes, renderings, np.stack([to_bytes(each.image) for each in renderings])) >= 0.95


@pytest.mark.skipif(not (FAMILY / "depth").exists(), reason="the depth network is not shipped")
def test_regions_of_true_renders_are_where_the_depth_says() -> None:
    from training.pocket.depth import estimate

    _, _, renderings = control_data.held_out(12, 5)
    exact = np.stack([rendering.depth for rendering in renderings])
    found = estimate(load_depth(FAMILY), np.stack([to_bytes(rendering.image) for rendering in renderings]))
    assert np.abs(found - exact).mean() <= 0.04
    assert overlap(regions(found), regions(exact)) >= 0.85


def test_a_table_says_what_is_met() -> None:
    figures = [
        Figure("overlap", 0.8, 0.75, ceiling=0.9, baseline=0.2),
        Figure("error", 0.5, 0.04, at_most=True),
        Figure("told", 12.0),
    ]
    assert [figure.met for figure in figures] == [True, False, True]
    lines = table(figures, "true renders", "chance").splitlines()
    assert lines[2] == "| overlap | >= 0.750 | 0.800 | 0.900 | 0.200 | yes |"
    assert lines[3] == "| error | <= 0.040 | 0.500 |  |  | no |"
    assert lines[4] == "| told |  | 12.000 |  |  |  |"


def test_sheets_are_as_large_as_their_pictures(tmp_path: Path) -> None:
    from PIL import Image

    small, large = np.zeros((3, 8, 8, 3), np.uint8), np.full((3, 16, 16, 3), 255, np.uint8)
    assert resized(small, 16).shape == (3, 16, 16, 3)
    side_by_side([small, large], tmp_path / "pairs.png", most=2)
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert sheet.size == (2 * 18 * 2, 2 * 18 * 2)
    contact_sheet(small, 3, tmp_path / "all.png")
    with Image.open(tmp_path / "all.png") as sheet:
        assert sheet.size == (3 * 10 * 2, 10 * 2)


def test_the_size_of_a_folder_is_that_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "x2").mkdir()
    (tmp_path / "x2" / "weights").write_bytes(bytes(70))
    (tmp_path / "config").write_bytes(bytes(30))
    assert [figure.value for figure in judge_size(tmp_path)] == [100, 70]
