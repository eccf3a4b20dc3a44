"""Checkpoints of one file: the same pictures as the same model in a folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import graphflow as gf
from graphflow import Problem
from graphflow.nodes import Image2Image, SuperRes, Text2Image
from graphflow.nodes.diffusion.checkpoints.single_file import open_single_file
from graphflow.nodes.diffusion.families.sd3 import SD3
from graphflow.nodes.diffusion.loading.components import load_component, load_tokenizer
from graphflow.nodes.diffusion.models.model_info import ModelInfo, find_model, require_model
from tests.helpers import tiny
from tests.helpers.drawing import drawn
from tests.helpers.model_folders import edit, problem
from tests.helpers.numerics import difference
from tests.helpers.tiny_checkpoints import single_file

pytestmark = pytest.mark.numeric

COMPUTE = gf.Compute()


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(params=["tiny_sd", "sdxl"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A model as a folder, and as one file."""
    folder = request.getfixturevalue(request.param)
    return str(folder), str(single_file(folder, tmp_path / "dreams.safetensors"))


def picture(model: str) -> torch.Tensor:
    node = Text2Image(model=model, width=64, height=64, steps=2, guidance_scale=4.0, seed=3)
    pixels: torch.Tensor = drawn(node, prompt="a red ball", negative_prompt="a cone").pixels
    return pixels


def test_one_file_draws_what_the_folder_draws(pair: tuple[str, str]) -> None:
    folder, file = pair
    ours, theirs = picture(file), picture(folder)
    assert float(theirs.std()) > 0.001
    assert difference(ours, theirs) <= 1e-4


def test_one_file_is_loaded_as_diffusers_loads_it(pair: tuple[str, str]) -> None:
    folder, file = require_model(pair[0]), require_model(pair[1])
    assert set(folder.components) == set(file.components)
    for name in folder.components:
        ours = load_component(file, name, COMPUTE).state_dict()
        theirs = load_component(folder, name, COMPUTE).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_one_file_has_the_family_and_space_of_the_folder(pair: tuple[str, str]) -> None:
    folder, file = require_model(pair[0]), require_model(pair[1])
    assert (file.family, file.space, file.native_width) == (folder.family, folder.space, folder.native_width)
    assert file.digest != folder.digest
    assert len({component.digest for component in file.components.values()}) == len(file.components)


def test_one_file_redraws_a_picture(tiny_sd: Path, tmp_path: Path) -> None:
    file = single_file(tiny_sd, tmp_path / "dreams.safetensors")
    image = gf.Image(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))

    def redrawn(model: str) -> Any:
        node = Image2Image(model=model, steps=2, strength=0.5, guidance_scale=2.0, seed=3)
        return drawn(node, image=image, prompt="a red ball").pixels

    assert difference(redrawn(str(file)), redrawn(str(tiny_sd))) <= 1e-4


def test_one_file_enlarges_as_the_folder_does(tmp_path: Path) -> None:
    folder = tiny.upscaler(tmp_path / "x4")
    file = single_file(folder, tmp_path / "large.safetensors")
    image = gf.Image(torch.rand(1, 3, 24, 16, generator=torch.Generator().manual_seed(1)))

    def enlarged(model: Path) -> Any:
        return drawn(SuperRes(model=str(model), steps=2, seed=3), image=image, prompt="a red ball").pixels

    ours, theirs = enlarged(file), enlarged(folder)
    assert ours.shape[-2:] == (96, 64) and float(theirs.std()) > 0.001
    assert difference(ours, theirs) <= 1e-4


def test_a_workflow_runs_on_one_file_from_the_command_line(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from graphflow.cli import main

    single_file(tiny_sd, tmp_path / "dreams.safetensors")
    monkeypatch.chdir(tmp_path)
    workflow = {
        "graphflow": 1,
        "nodes": {
            "draw": {"type": "Text2Image", "model": "dreams.safetensors", "prompt": "a red ball", "steps": 1},
            "save": {"type": "SaveImage", "image": {"from": "draw"}, "name": "ball"},
        },
    }
    Path("w.json").write_text(json.dumps(workflow))
    assert main(["run", "w.json", "--device", "cpu"]) == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "out/ball.png"


def test_one_file_of_a_repository_in_the_cache(tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    reference = "someone/painter/weights/dreams.safetensors"
    absent = problem(reference)
    assert absent.code == "missing.model"
    assert f'graphflow models pull "{reference}"' in absent.hint
    snapshot = tmp_path / "hub/models--someone--painter/snapshots" / ("c" * 40)
    (snapshot / "weights").mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("c" * 40)
    assert "the file" in problem(reference).message
    single_file(tiny_sd, snapshot / "weights/dreams.safetensors")
    assert isinstance(find_model(reference), ModelInfo)
    assert isinstance(find_model(f"someone/painter@{'c' * 40}/weights/dreams.safetensors"), ModelInfo)


def test_the_vocabulary_comes_from_the_cache_with_the_settings_of_the_configuration(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    file = single_file(tiny_sd, tmp_path / "dreams.safetensors")
    ours = tmp_path / "dreams/tokenizer"
    for path in ours.glob("*"):
        if path.name != "tokenizer_config.json":
            path.unlink()
    edit(ours / "tokenizer_config.json", lambda config: config.update(pad_token="!", model_max_length=20))
    assert problem(str(file)).code == "missing.tokenizer"
    place = tmp_path / "hub/models--openai--clip-vit-large-patch14/snapshots/main"
    place.mkdir(parents=True)
    words = require_model("pocket").tokenizers["tokenizer"]
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(words / name, place / name)
    info = require_model(str(file))
    assert info.tokenizers["tokenizer"] == place
    tokenizer = load_tokenizer(info)
    assert (tokenizer.pad_token, tokenizer.model_max_length) == ("!", 20)
    pocket = load_tokenizer(require_model("pocket"))
    assert tokenizer("a red ball").input_ids == pocket("a red ball").input_ids
    before = info.digest
    edit(ours / "tokenizer_config.json", lambda config: config.update(pad_token="<|endoftext|>"))
    assert require_model(str(file)).digest != before


def test_a_component_that_the_file_lacks_may_lie_in_the_folder_beside_it(tiny_sd: Path, tmp_path: Path) -> None:
    file = single_file(tiny_sd, tmp_path / "dreams.safetensors")
    tensors = load_file(str(file))
    kept = {name: value for name, value in tensors.items() if not name.startswith("first_stage_model.")}
    save_file(kept, str(file))
    absent = problem(str(file))
    assert (absent.code, "holds no vae (AutoencoderKL)" in absent.message) == ("missing.model_file", True)
    (weights,) = (tiny_sd / "vae").glob("*.safetensors")
    shutil.copy(weights, tmp_path / "dreams/vae" / weights.name)
    info = require_model(str(file))
    assert info.components["vae"].checkpoint is None
    assert difference(picture(str(file)), picture(str(tiny_sd))) <= 1e-4


def test_a_file_that_lacks_a_few_tensors_fails_when_it_is_loaded(tiny_sd: Path, tmp_path: Path) -> None:
    file = single_file(tiny_sd, tmp_path / "dreams.safetensors")
    tensors = load_file(str(file))
    del tensors["model.diffusion_model.out.2.bias"]
    save_file(tensors, str(file))
    with pytest.raises(ValueError, match="lacks tensors of the unet"):
        load_component(require_model(str(file)), "unet", COMPUTE)


def test_shapes_are_held_against_the_folder_beside_the_file(tiny_sd: Path, tmp_path: Path) -> None:
    file = single_file(tiny_sd, tmp_path / "dreams.safetensors")
    edit(tmp_path / "dreams/unet/config.json", lambda config: config.update(block_out_channels=[8, 32]))
    found = problem(str(file))
    assert found.code == "model.shape"
    assert "dreams/unet/config.json: found 16 for the width of its last block, expected 32" in found.message


def test_without_a_folder_a_tiny_file_is_of_no_known_architecture(tiny_sd: Path, tmp_path: Path) -> None:
    file = single_file(tiny_sd, tmp_path / "dreams.safetensors", configured=False)
    found = problem(str(file))
    assert (found.code, "stable-diffusion-xl" in found.message) == ("model.unsupported", True)
    assert "put a folder dreams/ beside the file" in found.hint


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.bin", "a.pth"])
def test_a_pickle_is_refused_with_the_line_that_converts_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = problem(name)
    assert found.code == "model.pickle_only"
    script = found.hint.partition('python -c "')[2].removesuffix('"')
    torch.save({"state_dict": {"weight": torch.arange(3.0), "note": "text"}}, name)
    exec(script, {})
    assert load_file("a.safetensors")["weight"].tolist() == [0, 1, 2]


def fp16(folder: Path, *components: str) -> None:
    """Add variants in half precision."""
    for component in components:
        (plain,) = (folder / component).glob("*.safetensors")
        save_file(
            {name: value.half() for name, value in load_file(str(plain)).items()},
            str(plain.with_suffix(".fp16.safetensors")),
            metadata={"format": "pt"},
        )


def test_half_precision_is_preferred_where_all_have_it(tiny_sd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_sd, folder)
    fp16(folder, "unet", "vae", "text_encoder")
    info = require_model(str(folder))
    assert {component.variant for component in info.components.values()} == {"fp16"}
    assert list(Text2Image(model=str(folder)).check({})) == []


def test_half_precision_of_some_components_is_reported_once(tiny_sd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_sd, folder)
    fp16(folder, "unet")
    info = require_model(str(folder))
    assert {name: component.variant for name, component in info.components.items()} == {
        "unet": "fp16",
        "vae": None,
        "text_encoder": None,
    }
    (warning,) = Text2Image(model=str(folder)).check({})
    assert isinstance(warning, Problem)
    assert (warning.code, warning.severity) == ("model.variant", "warning")
    assert "fp16 variant of unet, but none of text_encoder, vae" in warning.message
    assert float(picture(str(folder)).std()) > 0


def test_an_optional_component_that_a_file_lacks_is_left_out(tiny_sd: Path, tmp_path: Path) -> None:
    file = open_single_file("dreams", single_file(tiny_sd, tmp_path / "dreams.safetensors"))
    index = {"vae": ["diffusers", "AutoencoderKL"], "text_encoder_3": ["transformers", "T5EncoderModel"]}
    found = file.index(index, replace(SD3, optional={"text_encoder_3": "T5EncoderModel", "vae": "AutoencoderKL"}))
    assert found == {"vae": ["diffusers", "AutoencoderKL"], "text_encoder_3": [None, None]}
