"""The training of the pocket model: scenes, captions, renders, tokens, the trainer and the readers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from training.pocket.captions import GROUND_NAMES, SHAPE_NAMES, SKY_NAMES, all_words, caption
from training.pocket.data import LATENT_SIZE, SIZE, held_out_scenes, to_bytes
from training.pocket.distributed import Trainer, flat_then_linear
from training.pocket.geometry import height
from training.pocket.judge import compare, compare_hues
from training.pocket.read_picture import WEIGHTS, Reader, hue_can_read, reading_of
from training.pocket.render import render
from training.pocket.scenes import COLORS, SLOTS, STYLES, Scene, Thing, draw_scene, is_kept_out
from training.pocket.tokenizer import LENGTH, build, encode


def scenes(count: int, seed: int = 0, **options: Any) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, **options) for _ in range(count)]


def red_ball(**changes: Any) -> Thing:
    values: dict[str, Any] = {
        "shape": "sphere",
        "color": "red",
        "size": "normal",
        "slot": "left",
        "radius": 0.9,
        "x": -2.27,
    }
    return Thing(**{**values, "z": 0.0, "yaw": 0.7, **changes})


def plain(*things: Thing, **changes: Any) -> Scene:
    return Scene(
        **{"things": things, "ground": "grass", "sky": "blue", "style": "none", "light": 0.3, "seed": 5, **changes}
    )


@pytest.mark.parametrize("style", STYLES)
def test_a_scene_is_rendered_the_same_each_time(style: str) -> None:
    scene = plain(red_ball(), red_ball(slot="right", x=2.27, shape="cube", color="cyan"), style=style)
    one, other = render(scene), render(scene)
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.depth, other.depth)
    assert one.image.shape == (SIZE, SIZE, 3)
    assert one.image.dtype == one.depth.dtype == np.float32
    assert one.image.min() >= 0
    assert one.image.max() <= 1


def test_a_larger_render_is_the_same_picture() -> None:
    scene = plain(red_ball())
    small, large = render(scene, 64), render(scene, 128)
    assert large.image.shape == (128, 128, 3)
    halved = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - small.image).mean() < 0.01
    assert np.abs(large.depth.reshape(64, 2, 64, 2).mean((1, 3)) - small.depth).mean() < 0.01


@pytest.mark.parametrize("shape", SHAPE_NAMES)
def test_things_stand_in_their_slots_and_are_legible(shape: str) -> None:
    things = [
        red_ball(shape=shape, slot=slot, x=x, radius=0.64) for slot, x in zip(SLOTS, (-2.27, 0, 2.27), strict=True)
    ]
    mask = render(plain(*things)).mask
    for number in range(3):
        columns = np.flatnonzero((mask == number + 1).any(0))
        assert abs(columns.mean() - (11.5, 31.5, 51.5)[number]) < 2
        assert 8 <= len(columns) <= 18


def test_depth_is_nearer_in_front() -> None:
    near, far = (render(plain(red_ball(z=z))) for z in (-1.0, 1.0))
    assert near.depth[near.mask == 1].mean() > far.depth[far.mask == 1].mean()
    assert near.depth[0].max() == 0  # the sky is infinitely far
    assert near.depth[-1].min() > near.depth[30].min()


def test_heights_are_positive() -> None:
    assert all(height(red_ball(shape=shape)) > 0.9 for shape in SHAPE_NAMES)


def test_training_never_draws_a_kept_out_scene() -> None:
    assert not any(is_kept_out(scene) for scene in scenes(2000))
    held_out, captions = held_out_scenes(100, seed=1)
    assert all(is_kept_out(scene) for scene in held_out)
    assert len(set(captions)) > 95


def test_about_two_percent_are_kept_out() -> None:
    rng = np.random.default_rng(3)
    drawn = [draw_scene(rng, kept_out=bool(rng.random() < 0.5)) for _ in range(200)]
    kept_out = [is_kept_out(scene) for scene in drawn]
    assert 60 < sum(kept_out) < 140


def test_full_captions_say_what_the_scene_shows() -> None:
    rng = np.random.default_rng(4)
    for scene in scenes(300, seed=4):
        text = caption(scene, rng, full=True)
        if scene.degraded or not scene.things:
            continue
        for thing in scene.things:
            assert any(f"{thing.color} {name}" in text for name in SHAPE_NAMES[thing.shape])
        assert any(name in text for name in GROUND_NAMES[scene.ground])
        assert any(name in text for name in SKY_NAMES[scene.sky])
        assert [style for style in STYLES if style in text] == ([] if scene.style == "none" else [scene.style])


def test_and_goes_from_left_to_right() -> None:
    scene = plain(red_ball(), red_ball(slot="right", x=2.27, color="blue"))
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = caption(scene, rng)
        red, blue = text.index("red"), text.index("blue")
        assert (red < blue) != ("to the right of" in text)


def test_every_word_is_one_token_and_captions_fit(tmp_path: Path) -> None:
    tokenizer = build(all_words(), tmp_path)
    assert tokenizer.model_max_length == LENGTH
    assert all(len(tokenizer(word).input_ids) == 3 for word in all_words())
    rng = np.random.default_rng(5)
    longest = max(len(tokenizer(caption(scene, rng)).input_ids) for scene in scenes(500, seed=5))
    assert longest <= LENGTH
    assert len(encode(tokenizer, ["a zebra café"])[0]) == LENGTH
    assert tokenizer.pad_token_id == tokenizer.eos_token_id > 2


def test_hues_are_read_off_true_renders() -> None:
    shown = [scene for scene in scenes(4000, seed=6) if hue_can_read(scene) and not scene.degraded and scene.things][
        :60
    ]
    images = np.stack([to_bytes(render(scene).image) for scene in shown])
    figures = compare_hues(shown, images)
    assert figures["hue color"] >= 0.98
    assert figures["hue number"] >= 0.95


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the reader is not trained")
def test_the_reader_reads_true_renders() -> None:
    shown, _ = held_out_scenes(150, seed=7)
    truths = [reading_of(scene) for scene in shown]
    figures = compare(truths, Reader().read(np.stack([to_bytes(render(scene).image) for scene in shown])))
    assert all(figures[name] >= 0.98 for name in ("color", "shape", "number", "place", "ground", "sky", "style")), (
        figures
    )


def test_a_wrong_picture_is_read_as_wrong() -> None:
    truth = [reading_of(plain(red_ball()))]
    other = [reading_of(plain(red_ball(color="blue"), red_ball(slot="right")))]
    figures = compare(truth, other)
    assert figures["color"] == figures["number"] == figures["place"] == figures["one all right"] == 0
    assert figures["shape"] == figures["ground"] == figures["sky"] == figures["style"] == 1


def trainer_for(module: torch.nn.Module, checkpoint: Path) -> Trainer:
    return Trainer(
        [module], rank=0, world=1, minutes=1, rate=0.1, schedule=flat_then_linear(0.5), ema_decay=0.9,
        checkpoint=checkpoint, seed=1,
    )  # fmt: skip


def test_the_trainer_learns_and_resumes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    trainer = trainer_for(module, tmp_path / "state")
    inputs = torch.randn(64, 3)
    target = inputs.sum(1, keepdim=True)
    losses = []
    for _ in range(200):
        loss = (module(inputs) - target).square().mean()
        trainer.step(loss, 64)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]
    trainer.save()
    again = torch.nn.Linear(3, 1)
    resumed = trainer_for(again, tmp_path / "state")
    assert torch.equal(again.weight, module.weight)
    assert (resumed.steps, resumed.seen) == (200, 64 * 200)
    resumed.use_ema()
    assert float((again(inputs) - target).square().mean().detach()) < 0.01
    assert not (tmp_path / "state.partial").exists()


def test_latents_are_a_quarter_of_the_picture() -> None:
    assert SIZE == 4 * LATENT_SIZE
    assert len(COLORS) == 10
