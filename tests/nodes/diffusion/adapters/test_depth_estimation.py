"""EstimateDepth with depth-estimation models of transformers, against its own pipeline on the same picture."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import graphflow as gf
from graphflow.cli import main
from graphflow.nodes import ControlNetDepth, EstimateDepth
from graphflow.nodes.diffusion.loading.components import quiet
from graphflow.nodes.diffusion.models.network_info import DEPTH_ESTIMATORS, find_network, require_network
from tests.helpers.depth_models import KINDS, save_depth_model
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric

DISTANCE = ("dpt-dinov2", "depth-anything-metric", "glpn", "zoedepth")
SIZES = [(64, 48), (97, 61), (33, 50)]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_depth_model(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


def picture(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    """Soft random colours with some edges, 8 bits."""
    random = np.random.default_rng(seed)
    coarse = PIL.Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((width, height), PIL.Image.Resampling.BICUBIC)).copy()
    soft[height // 3 : height // 2, width // 4 : width // 2] = random.integers(0, 256, 3)
    return PIL.Image.fromarray(soft)


def image(*pictures: PIL.Image.Image) -> gf.Image:
    pixels = [torch.from_numpy(np.asarray(each).copy()).permute(2, 0, 1) for each in pictures]
    return gf.Image(torch.stack(pixels).float() / 255)


def pipeline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The depth-estimation pipeline of transformers, with the image processor that works with Pillow."""
    transformers: Any = importlib.import_module("transformers")
    zoedepth = importlib.import_module("transformers.models.zoedepth.image_processing_pil_zoedepth")
    resized = SimpleNamespace(  # the one function of torchvision that ZoeDepth's processor calls, and cannot do without
        resize=lambda depth, size, interpolation, antialias: torch.nn.functional.interpolate(
            depth[None], size, mode="bicubic", antialias=antialias
        )[0],
        InterpolationMode=SimpleNamespace(BICUBIC="bicubic"),
    )
    monkeypatch.setattr(zoedepth, "tvF", resized, raising=False)
    with quiet():
        processor = transformers.AutoImageProcessor.from_pretrained(str(folder), backend="pil")
        return transformers.pipeline("depth-estimation", model=str(folder), image_processor=processor, device="cpu")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("kind", KINDS)
def test_the_depth_is_what_the_pipeline_predicts_made_inverse_and_stretched(
    kind: str,
    size: tuple[int, int],
    folder_of: Callable[[str], Path],
    context: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, photo = folder_of(kind), picture(*size)
    direct = pipeline(folder, monkeypatch)
    with quiet():
        estimate = direct(photo)
        prepared = direct.image_processor(images=photo, return_tensors="pt")
        raw = direct.model(**prepared).predicted_depth.detach()
    depth = estimate["predicted_depth"]
    if kind in DISTANCE:
        depth = 1 / depth.clamp(min=max(1e-3, float(raw.min())))
    expected = (depth - depth.min()) / (depth.max() - depth.min())
    ours = EstimateDepth(model=str(folder)).run(image=image(photo), context=context).pixels
    assert ours.dtype == torch.float32
    assert ours.shape == (1, 1, size[1], size[0])
    assert expected.std() > 0.02, "a flat answer would show nothing"
    assert (ours[0, 0] - expected).abs().max() <= 1e-4
    assert (float(ours.min()), float(ours.max())) == (0, 1)
    if kind not in DISTANCE:
        shown = torch.from_numpy(np.asarray(estimate["depth"]).copy()) / 255
        assert (ours[0, 0] - shown).abs().max() <= 1.01 / 255, "the pipeline's own picture, which it cuts to 8 bits"


@pytest.mark.parametrize("kind", ["depth-anything-metric", "glpn", "zoedepth"])
def test_where_a_model_says_less_distance_the_map_is_nearer(
    kind: str, folder_of: Callable[[str], Path], context: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, photo = folder_of(kind), picture(64, 64)
    with quiet():
        distance = pipeline(folder, monkeypatch)(photo)["predicted_depth"]
    ours = EstimateDepth(model=str(folder)).run(image=image(photo), context=context).pixels[0, 0]
    nearest, farthest = distance.argmin(), distance.argmax()
    assert ours.flatten()[nearest] > 0.99
    assert ours.flatten()[farthest] < 0.01


def test_an_item_of_a_batch_equals_its_solo_run(folder_of: Callable[[str], Path], context: Recorder) -> None:
    node = EstimateDepth(model=str(folder_of("dpt")))
    first, second = picture(40, 56, seed=1), picture(40, 56, seed=2)
    both = node.run(image=image(first, second), context=context).pixels
    assert torch.equal(both[:1], node.run(image=image(first), context=context).pixels)
    assert torch.equal(both[1:], node.run(image=image(second), context=context).pixels)
    assert not torch.equal(both[0], both[1])


def test_a_picture_without_anything_nearer_gives_zeros_not_nan(
    folder_of: Callable[[str], Path], tmp_path: Path, context: Recorder
) -> None:
    transformers: Any = importlib.import_module("transformers")
    with quiet():
        model = transformers.DPTForDepthEstimation.from_pretrained(folder_of("dpt"))
        for parameter in model.head.parameters():
            parameter.data.zero_()
        model.save_pretrained(tmp_path)
    name = "preprocessor_config.json"
    (tmp_path / name).write_bytes((folder_of("dpt") / name).read_bytes())
    depth = EstimateDepth(model=str(tmp_path)).run(image=image(picture(32, 32)), context=context).pixels
    assert torch.equal(depth, torch.zeros(1, 1, 32, 32))


def test_a_picture_too_small_for_the_model_is_told_with_its_size(
    folder_of: Callable[[str], Path], context: Recorder
) -> None:
    with pytest.raises(ValueError, match="GLPNForDepthEstimation cannot prepare a picture of 20 x 40 pixels"):
        EstimateDepth(model=str(folder_of("glpn"))).run(image=image(picture(20, 40)), context=context)


def test_what_prepares_the_picture_is_part_of_the_identity(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    for path in folder_of("depth-anything").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = EstimateDepth(model=str(tmp_path)).identity()
    assert before == EstimateDepth(model=str(folder_of("depth-anything"))).identity()
    settings = tmp_path / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"size": {"height": 28, "width": 28}}))
    assert EstimateDepth(model=str(tmp_path)).identity() != before


def test_a_model_without_its_image_processor_is_incomplete(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    for path in folder_of("dpt").iterdir():
        if path.name != "preprocessor_config.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    found = find_network(str(tmp_path), "depth")
    assert isinstance(found, gf.Problem)
    assert found.code == "missing.model_file"
    assert "preprocessor_config.json" in found.message


def test_a_hub_id_that_is_not_there_is_told_with_what_fetches_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (problem,) = EstimateDepth(model="someone/deep").check({})
    assert problem.code == "missing.model"
    assert problem.hint == 'download it once: graphflow models pull "someone/deep"'


def test_models_in_the_hub_cache_are_found(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--someone--deep" / "snapshots" / "main"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(folder_of("depth-anything"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert require_network("someone/deep", "depth").cls == "DepthAnythingForDepthEstimation"


def test_every_class_that_is_accepted_was_run() -> None:
    assert {cls for cls, *_ in KINDS.values()} == set(DEPTH_ESTIMATORS)


def test_controlnet_depth_takes_such_a_model_as_its_estimator(
    folder_of: Callable[[str], Path], context: Recorder
) -> None:
    photo, estimator = image(picture(64, 64)), str(folder_of("depth-anything"))
    node = ControlNetDepth(depth_estimator=estimator, steps=1, guidance_scale=1.0, strength=1.0)
    workflow = gf.Workflow()
    photo_input = workflow.input("photo", "image")
    workflow.output("own", workflow.add("own", node, image=photo_input, prompt="a ball"))
    depth = workflow.add("depth", EstimateDepth(model=estimator), image=photo_input)
    given = ControlNetDepth(steps=1, guidance_scale=1.0, strength=1.0)
    workflow.output("given", workflow.add("given", given, image=photo_input, depth_map=depth, prompt="a ball"))
    workflow.output("pocket", workflow.add("pocket", given, image=photo_input, prompt="a ball"))
    assert workflow.validate() == []
    run = workflow.run(photo=photo, device="cpu")
    assert torch.equal(run["own"].pixels, run["given"].pixels)
    assert not torch.equal(run["own"].pixels, run["pocket"].pixels)


def test_from_the_command_line(
    folder_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(50, 34).save(tmp_path / "photo.png")
    nodes = {
        "photo": {"type": "LoadImage", "path": "photo.png"},
        "depth": {"type": "EstimateDepth", "model": str(folder_of("dpt")), "image": {"from": "photo"}},
        "save": {"type": "SaveDepthMap", "depth_map": {"from": "depth"}, "name": "depth"},
    }
    (tmp_path / "depth.json").write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
    assert main(["validate", str(tmp_path / "depth.json")]) == 0
    assert main(["run", str(tmp_path / "depth.json"), "--out", str(tmp_path), "--device", "cpu"]) == 0
    with PIL.Image.open(tmp_path / "depth.png") as saved:
        assert saved.size == (50, 34)
        levels = np.asarray(saved)
    assert (levels.min(), levels.max()) == (0, 65535)
