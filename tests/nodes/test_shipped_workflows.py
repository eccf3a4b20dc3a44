"""The workflows that ship run as they stand, with nothing to download."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphflow as gf
from graphflow import Image

FOLDER = Path(__file__).parents[2] / "workflows"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_they_are_sound(path: Path) -> None:
    workflow = gf.load(path)
    assert workflow.validate() == []
    assert workflow.description


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("text_to_image", ["drawing.png"]),
        ("text_to_image_to_image", ["draft.png", "sketch.png"]),
        ("image_to_image", ["redrawn.png"]),
        ("call_a_chain", ["chain/sketch.png", "chain/pixels.png"]),
    ],
)
def test_they_run(name: str, files: list[str], tmp_path: Path, one_thread: None) -> None:
    run = gf.load(FOLDER / f"{name}.json").run(out=tmp_path)
    assert [str(path.relative_to(tmp_path.resolve())) for path in run.files] == files
    assert all(isinstance(value, Image) and len(value) == 1 for value in run.values())


def test_a_chain_takes_a_picture_from_a_file(tmp_path: Path, one_thread: None) -> None:
    picture = str(FOLDER / "pictures" / "ball_and_cube.png")
    run = gf.load(FOLDER / "redraw.json").run(
        out=tmp_path, image=picture, prompt="pixel art of a red ball and a blue cube"
    )
    assert (run["image"].width, run["image"].height) == (64, 64)
