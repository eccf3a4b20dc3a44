"""Recognition of a checkpoint in one file, and of a truncated one, from its header alone."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from graphflow import Problem
from graphflow.nodes.diffusion.checkpoints.kinds import configuration_of
from graphflow.nodes.diffusion.checkpoints.safetensors_header import read_header
from graphflow.nodes.diffusion.checkpoints.upscaler_file import is_upscaler_file
from graphflow.nodes.diffusion.families import Family, SingleFileLayout
from graphflow.nodes.diffusion.families.flux import FLUX
from graphflow.nodes.diffusion.families.sd3 import SD3
from graphflow.nodes.diffusion.models.model_info import ModelInfo, find_model
from tests.helpers.model_folders import problem
from tests.helpers.original_layout import (
    Weights,
    save_header_only,
)
from tests.helpers.published import described, original

UNETS = (
    "stable-diffusion-1",
    "stable-diffusion-2",
    "stable-diffusion-xl",
    "stable-diffusion-xl-refiner",
    "x4-upscaler",
)

PUBLISHED = {
    "stable-diffusion-1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "stable-diffusion-2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "stable-diffusion-xl": {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder_2": 694_659_840},
    "flux-dev": {"transformer": 11_901_408_320, "vae": 83_819_683},
    "stable-diffusion-3-medium": {"transformer": 2_028_328_000},
}
"""Parameters of the published models."""


def layout_of(family: Family) -> SingleFileLayout:
    assert family.single_file is not None
    return family.single_file


def empty(*shapes: tuple[str, tuple[int, ...]]) -> Weights:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes}


def sd3(places: int = 192, blocks: int = 24, width: int = 1536, prefix: str = "model.diffusion_model.") -> Weights:
    data = empty(
        ("pos_embed", (1, places**2, width)),
        ("x_embedder.proj.weight", (width, 16, 2, 2)),
        ("context_embedder.weight", (width, 4096)),
    )
    for block in range(blocks):
        data |= empty(
            (f"joint_blocks.{block}.context_block.adaLN_modulation.1.bias", (6 * width,)),
            (f"joint_blocks.{block}.x_block.attn.qkv.weight", (3 * width, width)),
            (f"joint_blocks.{block}.x_block.mlp.fc1.weight", (4 * width, width)),
        )
    return {prefix + name: value for name, value in data.items()}


def flux(*, guided: bool = True, channels: int = 64, prefix: str = "") -> Weights:
    data = empty(("img_in.weight", (3072, channels)), ("txt_in.weight", (3072, 4096)))
    if guided:
        data |= empty(("guidance_in.in_layer.bias", (3072,)))
    for block in range(19):
        data |= empty(
            (f"double_blocks.{block}.img_attn.norm.key_norm.scale", (128,)),
            (f"double_blocks.{block}.img_attn.qkv.weight", (9216, 3072)),
        )
    for block in range(38):
        data |= empty((f"single_blocks.{block}.linear1.weight", (21504, 3072)))
    return {prefix + name: value for name, value in data.items()}


FILES: dict[str, tuple[Callable[[], Weights], str, str]] = {
    **{kind: (lambda kind=kind: original(kind), kind, "") for kind in UNETS},  # type: ignore[misc]
    "sd3": (sd3, "stable-diffusion-3-medium", "sd3"),
    "sd3.5": (lambda: sd3(384), "stable-diffusion-3.5-medium", "sd35_medium"),
    "sd3.5-large": (lambda: sd3(192, 38, 2432), "stable-diffusion-3.5-large", "sd35_large"),
    "flux": (flux, "flux-dev", "flux-dev"),
    "flux-prefixed": (lambda: flux(prefix="model.diffusion_model."), "flux-dev", "flux-dev"),
    "flux-schnell": (lambda: flux(guided=False), "flux-schnell", "flux-schnell"),
}
THEIRS = dict(zip(UNETS, ("v1", "v2", "xl_base", "xl_refiner", "upscale"), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_of_full_size_is_is_told_from_its_header(name: str, tmp_path: Path) -> None:
    build, kind, theirs = FILES[name]
    tensors = build()
    path = tmp_path / "model.safetensors"
    save_header_only(tensors, path)
    header = read_header(path)
    found = configuration_of(header)
    assert (found and found.name) == kind
    utilities = importlib.import_module("diffusers.loaders.single_file_utils")
    assert utilities.infer_diffusers_model_type(tensors) == (theirs or THEIRS[kind])


@pytest.mark.parametrize("kind", ["stable-diffusion-1", "stable-diffusion-2", "x4-upscaler"])
def test_a_file_of_full_size_is_a_model_once_a_vocabulary_is_there(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    path = tmp_path / "model.safetensors"
    save_header_only(original(kind), path)
    absent = problem(str(path))
    assert absent.code == "missing.tokenizer"
    assert "hf download openai/clip-vit-large-patch14 vocab.json" in absent.hint
    cached_vocabulary(tmp_path / "hub", "someone/anything", "tokenizer", 49408)
    info = find_model(str(path))
    assert isinstance(info, ModelInfo)
    assert info.family.name == ("upscaler" if kind == "x4-upscaler" else "stable-diffusion")
    assert info.native_width == {"stable-diffusion-1": 512, "stable-diffusion-2": 768, "x4-upscaler": 512}[kind]
    assert not is_upscaler_file(str(path)), "SuperRes takes it for a checkpoint, not for an upscaling network"
    predicted = info.configs["scheduler"].get("prediction_type", "epsilon")
    assert predicted == ("epsilon" if kind == "stable-diffusion-1" else "v_prediction")
    assert info.tokenizer_settings["tokenizer"]["pad_token"] == (
        "<|endoftext|>" if kind == "stable-diffusion-1" else "!"
    )


def cached_vocabulary(cache: Path, repository: str, folder: str, words: int) -> None:
    place = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / ("a" * 40) / folder
    place.mkdir(parents=True)
    (place / "vocab.json").write_text(json.dumps({f"w{number}": number for number in range(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")


def test_a_vocabulary_of_another_size_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    path = tmp_path / "model.safetensors"
    save_header_only(original("stable-diffusion-1"), path)
    cached_vocabulary(tmp_path / "hub", "someone/language-model", "tokenizer", 50257)
    assert problem(str(path)).code == "missing.tokenizer"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in PUBLISHED.items() for name in names])
def test_our_configurations_describe_the_published_models(kind: str, name: str) -> None:
    count = sum(value.numel() for value in described(kind, name).parameters())
    assert count == pytest.approx(PUBLISHED[kind][name], rel=1e-4)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            {"model.diffusion_model.input_blocks.0.0.weight": (320, 5, 3, 3)},
            "found 5 for the number of its input channels",
        ),
        ({"first_stage_model.decoder.conv_in.weight": (512, 8, 3, 3)}, "found 8 for the number of its latent channels"),
        (
            {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (50000, 768)},
            "found 50000 for the size of its vocabulary, expected 49408",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, tuple[int, ...]], what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_header_only(original("stable-diffusion-1") | empty(*change.items()), path)
    found = problem(str(path))
    assert (found.code, what in found.message) == ("model.shape", True)


def test_transformers_are_held_against_their_configurations() -> None:
    for family, kind, tensors in ((FLUX, "flux-dev", flux()), (SD3, "stable-diffusion-3-medium", sd3(prefix=""))):
        layout = layout_of(family)
        config = json.loads((layout.configurations / kind / "transformer/config.json").read_text())
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        assert layout.mismatches(shapes, config) == []
        assert layout.mismatches(shapes, {**config, "num_layers": 7, "joint_attention_dim": 8}) != []


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        (empty(("lora_unet_x.lora_down.weight", (4, 8))), "is a LoRA"),
        (empty(("encoder.conv_in.weight", (8, 3, 3, 3))), "is a VAE alone"),
        (empty(("control_model.time_embed.0.weight", (8, 8))), "is a ControlNet"),
        (empty(("model.diffusion_model.input_blocks.0.0.weight", (320, 9, 3, 3))), "is an inpainting model"),
        (empty(("down_blocks.0.resnets.0.conv1.weight", (8, 8, 3, 3))), "one component of a model"),
        (empty(("text_model.embeddings.token_embedding.weight", (8, 8))), "is a text encoder alone"),
        (flux(channels=384), "steered by a picture"),
        (empty(("something.else", (8,))), "architecture that GraphFlow does not know (its tensors: something.else"),
    ],
)
def test_other_files_are_told_by_what_they_are(tensors: Weights, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_header_only(tensors, path)
    found = problem(str(path))
    assert (found.code, what in found.message, bool(found.hint)) == ("model.unsupported", True, True)


def damaged(content: bytes, path: Path) -> Problem:
    path.write_bytes(content)
    found = problem(str(path))
    assert found.code == "model.damaged"
    assert "\n" not in found.message
    return found


def test_a_file_that_is_cut_off_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_header_only(original("stable-diffusion-1"), path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)
    found = problem(str(path))
    assert (found.code, f"is cut off: found {size - 1:,} bytes, expected {size:,}" in found.message) == (
        "model.damaged",
        True,
    )
    assert "is cut off in its header" in damaged((500).to_bytes(8, "little") + b"{}", path).message


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds 0 bytes"),
        (b"\x00" * 100, "is no safetensors file"),
        (b"PK\x03\x04" + b"\x00" * 100, "is a pickle under the name of a safetensors file"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ((4).to_bytes(8, "little") + b"null", "no JSON object"),
        ((4).to_bytes(8, "little") + b"{...", "no JSON"),
        ((2**62).to_bytes(8, "little") + b"{}", "header would be"),
    ],
)
def test_what_is_no_safetensors_file_is_told(content: bytes, what: str, tmp_path: Path) -> None:
    assert what in damaged(content, tmp_path / "model.safetensors").message


@pytest.mark.parametrize(
    "entry",
    [
        5,
        {},
        {"dtype": "F16", "shape": [2], "data_offsets": [0]},
        {"dtype": "F16", "shape": [-2], "data_offsets": [0, 4]},
        {"dtype": "F16", "shape": [2], "data_offsets": [0, 6]},
        {"dtype": "F16", "shape": [True], "data_offsets": [0, 2]},
        {"dtype": ["F16"], "shape": "ab", "data_offsets": [0, 2]},
    ],
)
def test_a_header_with_garbage_is_refused(entry: object, tmp_path: Path) -> None:
    text = json.dumps({"weight": entry}).encode()
    content = len(text).to_bytes(8, "little") + text + b"\0" * 16
    assert "'weight' wrongly" in damaged(content, tmp_path / "model.safetensors").message
