"""Scenes that the family is trained and judged on: any place, loose captions, and those kept out of training."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from training.pocket import control_data, enlarge_data
from training.pocket.captions import caption, loose_caption
from training.pocket.judge_redraw import draw_changes
from training.pocket.render import Rendering, render
from training.pocket.scenes import SLOT_X, Scene, draw_scene, is_kept_out


@pytest.fixture(scope="module")
def spread() -> list[Scene]:
    rng = np.random.default_rng(1)
    return [draw_scene(rng, spread=True) for _ in range(150)]


def test_spread_things_are_apart_and_go_from_left_to_right(spread: list[Scene]) -> None:
    for scene in spread:
        for left, right in pairwise(scene.things):
            assert right.x - left.x > left.radius + right.radius
        for thing in scene.things:
            assert abs(SLOT_X[thing.slot] - thing.x) == min(abs(x - thing.x) for x in SLOT_X.values())
    assert np.std([thing.x for scene in spread for thing in scene.things]) > 1
    assert {len(scene.things) for scene in spread} == {0, 1, 2, 3}


def test_spread_things_are_all_seen(spread: list[Scene]) -> None:
    for scene in spread[:10]:
        mask = render(scene).mask
        assert all((mask == number).sum() >= 12 for number in range(1, len(scene.things) + 1))


def test_captions_without_places_name_none(spread: list[Scene]) -> None:
    rng = np.random.default_rng(3)
    texts = [loose_caption(scene, rng) for scene in spread]
    texts += [caption(scene, rng, full=True, places=False) for scene in spread]
    words = {word for text in texts for word in text.replace(",", " ").split()}
    assert not words & {"left", "right", "center", "middle", "between"}
    assert "" in texts


class Recorder:
    """Stands in for `render`: notes the scenes and draws nothing."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = []

    def __call__(self, scene: Scene, size: int = 64) -> Rendering:
        self.scenes.append(scene)
        blank = np.zeros((size, size), np.float32)
        return Rendering(np.zeros((size, size, 3), np.float32), blank, blank.astype(np.uint8))


@pytest.mark.parametrize("module", [control_data, enlarge_data])
def test_the_data_keep_scenes_out_of_training(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(module, "render", recorder)
    monkeypatch.setattr(module, "CHUNK", 40)
    module.make_chunk(tmp_path, 0, 1)
    assert len(recorder.scenes) >= 40
    assert not any(is_kept_out(scene) for scene in recorder.scenes)
    recorder.scenes.clear()
    if module is control_data:
        assert control_data.held_out(4, 1)[0] == recorder.scenes
    else:
        enlarge_data.held_out_pairs(4, 1, 8, 16)
        assert len(recorder.scenes) == 8
    assert all(is_kept_out(scene) for scene in recorder.scenes)


def test_changes_go_from_one_kept_out_scene_to_another() -> None:
    for recolor in (True, False):
        for change in draw_changes(5, 1, recolor):
            assert is_kept_out(change.source)
            assert is_kept_out(change.wanted)
            assert change.source.style == "none"
            assert (change.wanted.style == "none") == recolor
            differ = [one != other for one, other in zip(change.source.things, change.wanted.things, strict=True)]
            assert sum(differ) == int(recolor)
            assert not recolor or change.wanted.things[change.thing].color in change.prompt


def test_degrading_depends_on_the_seed_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)

    def spoiled(seed: int) -> list[bytes]:
        rng = np.random.default_rng(seed)
        return [enlarge_data.degrade(image, rng).tobytes() for _ in range(10)]

    assert spoiled(1) == spoiled(1)
    assert spoiled(1) != spoiled(2)
    assert len(set(spoiled(1))) > 5
