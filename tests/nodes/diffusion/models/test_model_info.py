from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphflow import MissingError, WorkflowError
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET_FOLDER
from graphflow.nodes.diffusion.families import Defaults
from graphflow.nodes.diffusion.models.model_info import ModelInfo, find_model, require_model
from tests.helpers.model_folders import edit, problem


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the pocket model in a folder of its own."""
    folder = tmp_path / "copied"
    shutil.copytree(POCKET_FOLDER / "base", folder)
    return folder


def test_the_pocket_model() -> None:
    info = require_model("pocket")
    assert (info.family.name, info.space) == ("stable-diffusion", "pocket")
    assert (info.native_width, info.native_height) == (64, 64)
    assert info.size_multiple == 8
    assert info.pixels_per_cell == 2 ** (
        len(json.loads((info.folder / "vae/config.json").read_text())["block_out_channels"]) - 1
    )
    assert info.defaults["text-to-image"] == Defaults(steps=20, guidance_scale=3.0)
    assert set(info.components) == {"unet", "vae", "text_encoder"}
    assert find_model("pocket") is info


def test_a_stable_diffusion_folder(tiny_sd: Path) -> None:
    info = require_model(str(tiny_sd))
    assert (info.space, info.pixels_per_cell, info.latent_channels) == ("sd", 8, 4)
    assert (info.native_width, info.prompt_window) == (64, 32)
    assert info.configs["scheduler"].get("prediction_type", "epsilon") == "epsilon"
    assert "family=<Family stable-diffusion>" in repr(info), "a model prints its family's name, not the whole record"
    assert info.defaults["image-to-image"] == Defaults(steps=50, guidance_scale=7.5, strength=0.8)


def test_a_copy_of_the_pocket_model_shares_its_space_and_digest(copied: Path) -> None:
    pocket, copy = require_model("pocket"), require_model(str(copied))
    assert copy.space == "pocket"
    assert copy.digest == pocket.digest


def test_another_vae_is_another_space(copied: Path) -> None:
    weights = copied / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\1")
    info = require_model(str(copied))
    assert info.space.startswith("vae-")
    assert info.digest != require_model("pocket").digest
    assert info.components["unet"].digest == require_model("pocket").components["unet"].digest


def test_a_folder_that_changes_is_read_again(copied: Path) -> None:
    assert isinstance(find_model(str(copied)), ModelInfo)
    edit(copied / "model_index.json", lambda index: index.update(_class_name="StableDiffusionXLPipeline"))
    assert problem(str(copied)).code == "model.unsupported"


def test_the_hub_cache(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    absent = problem("someone/painter@v2")
    assert absent.code == "missing.model"
    assert 'the model "someone/painter" is not in the local cache' in absent.message
    assert 'graphflow models pull "someone/painter@v2"' in absent.hint
    model = tmp_path / "hub" / "models--someone--painter"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots").mkdir()
    copied.rename(model / "snapshots" / commit)
    for reference in ("someone/painter", f"someone/painter@{commit}"):
        assert require_model(reference).folder == model / "snapshots" / commit
    assert 'the revision "v2" of the model' in problem("someone/painter@v2").message
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert isinstance(find_model("someone/painter"), ModelInfo)


def test_hub_files_are_known_by_the_name_of_their_blob(copied: Path, tmp_path: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    weights.rename(blob)
    weights.symlink_to(blob)
    from graphflow.nodes.files.file_digest import file_digest

    assert file_digest(weights) == "ab" * 32


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("pockets", "missing.model"),
        ("", "missing.model"),
        ("../nowhere", "missing.model"),
        ("a/b/c", "missing.model"),
        ("nobody/nothing", "missing.model"),
        ("model.safetensors", "missing.model"),
        ("model.ckpt", "model.pickle_only"),
    ],
)
def test_references_that_lead_nowhere(
    reference: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = problem(reference)
    assert found.code == code
    assert found.hint
    assert f'"{reference}"' in found.message


def test_a_missing_model_is_told_apart() -> None:
    with pytest.raises(MissingError):
        require_model("pockets")
    with pytest.raises(WorkflowError) as caught:
        require_model("model.ckpt")
    assert not isinstance(caught.value, MissingError)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    found = problem(str(tmp_path))
    assert (found.code, "notes.txt" in found.message) == ("model.not_diffusers", True)


def test_pickled_weights(copied: Path) -> None:
    (copied / "unet" / "diffusion_pytorch_model.safetensors").rename(copied / "unet" / "diffusion_pytorch_model.bin")
    found = problem(str(copied))
    assert (found.code, "unet/diffusion_pytorch_model.bin" in found.message) == ("model.pickle_only", True)


@pytest.mark.parametrize(
    "path", ["unet/config.json", "vae/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
)
def test_half_a_download(path: str, copied: Path) -> None:
    (copied / path).unlink()
    found = problem(str(copied))
    assert found.code == "missing.model_file"
    assert path.split("/")[0] in found.message


@pytest.mark.parametrize(
    ("path", "change", "code", "text"),
    [
        (
            "model_index.json",
            {"_class_name": "AudioLDMPipeline"},
            "model.unsupported",
            "made for AudioLDMPipeline, expected one of the families stable-diffusion, sdxl",
        ),
        ("model_index.json", {"unet": ["x", "Other"]}, "model.unsupported", "Other, expected UNet2DConditionModel"),
        ("unet/config.json", {"in_channels": 9}, "model.unsupported", "9 channels, expected the 4"),
        ("vae/config.json", {"block_out_channels": None}, "model.not_diffusers", "cannot be understood"),
    ],
)
def test_models_that_are_not_supported(path: str, change: dict[str, Any], code: str, text: str, copied: Path) -> None:
    edit(copied / path, lambda data: data.update(change))
    found = problem(str(copied))
    assert found.code == code
    assert text in found.message


def test_a_broken_json_file(copied: Path) -> None:
    (copied / "unet" / "config.json").write_text("{")
    assert problem(str(copied)).code == "model.not_diffusers"


def test_variants_and_shards(copied: Path) -> None:
    unet = copied / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model.fp16.safetensors")
    assert require_model(str(copied)).components["unet"].variant == "fp16"
    (unet / "diffusion_pytorch_model.fp16.safetensors").rename(unet / "part-1.safetensors")
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}))
    edit(copied / "model_index.json", lambda data: data.update(note=1))
    assert "part-2.safetensors" in problem(str(copied)).message
    shutil.copy(unet / "part-1.safetensors", unet / "part-2.safetensors")
    edit(copied / "model_index.json", lambda data: data.update(note=2))
    files = require_model(str(copied)).components["unet"].files
    assert [path.name for path in files] == ["config.json", index.name, "part-1.safetensors", "part-2.safetensors"]


def test_reading_models_and_files_imports_nothing_heavy() -> None:
    program = """
import sys
from graphflow.nodes.diffusion.models.model_info import require_model
from graphflow.nodes import Text2Image, SaveImage
require_model("pocket").digest
assert list(Text2Image(width=64).check({})) == []
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "diffusers", "transformers", "PIL", "numpy"}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
