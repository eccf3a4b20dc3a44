"""Another VAE in place of a model's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphflow import Compute
from graphflow.nodes import Text2Image
from graphflow.nodes.diffusion.loading.components import load_component
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers.drawing import drawn
from tests.helpers.model_folders import edit, problem
from tests.helpers.numerics import difference
from tests.helpers.original_layout import original_vae
from tests.helpers.tiny_checkpoints import weights

pytestmark = pytest.mark.numeric

COMPUTE = Compute()


@pytest.fixture
def other(tiny_sd: Path, tmp_path: Path) -> Path:
    """A folder with a VAE of the same kind and other weights."""
    folder = tmp_path / "other-vae"
    shutil.copytree(tiny_sd / "vae", folder)
    (path,) = folder.glob("*.safetensors")
    save_file({name: value * 0.9 for name, value in load_file(str(path)).items()}, str(path), metadata={"format": "pt"})
    return folder


@pytest.fixture
def swapped(tiny_sd: Path, other: Path, tmp_path: Path) -> Path:
    """The model with that VAE in its folder."""
    folder = tmp_path / "swapped"
    shutil.copytree(tiny_sd, folder)
    shutil.rmtree(folder / "vae")
    shutil.copytree(other, folder / "vae")
    return folder


def picture(model: str) -> torch.Tensor:
    node = Text2Image(model=model, width=64, height=64, steps=1, guidance_scale=1.0, seed=3)
    pixels: torch.Tensor = drawn(node, prompt="a red ball").pixels
    return pixels


@pytest.mark.parametrize("form", ["folder", "original file", "file of diffusers", "prefixed file"])
def test_pictures_are_decoded_by_the_other_vae(
    form: str, tiny_sd: Path, other: Path, swapped: Path, tmp_path: Path
) -> None:
    vae, tensors = other, weights(swapped, "vae")
    if form != "folder":
        vae = tmp_path / "vae.safetensors"
        prefix = "first_stage_model." if form == "prefixed file" else ""
        save_file(tensors if form == "file of diffusers" else original_vae(tensors, prefix), str(vae))
    mine, expected = picture(f"{tiny_sd} + vae:{vae}"), picture(str(swapped))
    assert difference(mine, expected) <= 1e-5
    assert difference(expected, picture(str(tiny_sd))) > 1e-3, "the other VAE does too little to be seen"


def test_the_space_stays_and_the_digest_changes(tiny_sd: Path, other: Path) -> None:
    base, changed = require_model(str(tiny_sd)), require_model(f"{tiny_sd} + vae:{other}")
    assert base.space == changed.space == "sd"
    assert base.digest != changed.digest
    assert changed.reference == f"{tiny_sd} + vae:{other}"
    unet = load_component(base, "unet", COMPUTE)
    assert load_component(changed, "unet", COMPUTE) is unet


def test_a_vae_in_the_cache(tiny_sd: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert problem(f"{tiny_sd} + vae:someone/better-vae").code == "missing.model"
    snapshot = tmp_path / "models--someone--better-vae/snapshots/main"
    shutil.copytree(other, snapshot)
    assert require_model(f"{tiny_sd} + vae:someone/better-vae").components["vae"].folder == snapshot


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"scaling_factor": 0.13025}, "found a scaling factor of 0.13025, expected 0.18215"),
        ({"shift_factor": 0.1159}, "found a shift of 0.1159, expected 0"),
        ({"latent_channels": 16}, "found channels: 16, expected 4"),
        ({"block_out_channels": [8, 8, 8]}, "found pixels a cell: 4, expected 8"),
        ({"_class_name": "VQModel"}, "is VQModel, expected AutoencoderKL"),
    ],
)
def test_a_vae_of_another_kind_is_refused(change: dict[str, object], what: str, tiny_sd: Path, other: Path) -> None:
    edit(other / "config.json", lambda config: config.update(change))
    found = problem(f"{tiny_sd} + vae:{other}")
    assert (found.code, what in found.message) == ("model.vae", True), found.message


def test_a_file_of_another_width_is_refused(tiny_sd: Path, tmp_path: Path) -> None:
    tensors = original_vae(weights(tiny_sd, "vae"), "")
    tensors["decoder.conv_in.weight"] = torch.zeros(8, 16, 3, 3)
    save_file(tensors, str(tmp_path / "vae.safetensors"))
    found = problem(f"{tiny_sd} + vae:{tmp_path / 'vae.safetensors'}")
    assert (found.code, "found 16 for the number of its latent channels" in found.message) == ("model.vae", True)


def test_what_is_no_vae_is_refused(tiny_sd: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in problem(f"{tiny_sd} + vae:{tmp_path / 'empty'}").message
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "x.safetensors"))
    assert "is no VAE" in problem(f"{tiny_sd} + vae:{tmp_path / 'x.safetensors'}").message
