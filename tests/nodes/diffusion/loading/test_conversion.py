"""Weights that are converted while they are read are those that are converted afterwards."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from graphflow import Compute
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET_FOLDER
from graphflow.nodes.diffusion.loading import conversion
from graphflow.nodes.diffusion.loading.components import load_component, pool
from graphflow.nodes.diffusion.loading.conversion import converted_in_parts
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers.libraries import diffusers

HALVES = [torch.float16, torch.bfloat16]
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "b.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "a.weight": torch.randn(5, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "double": torch.randn(3, generator=generator, dtype=torch.float64),
        "positions": torch.arange(6),
    }
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path


@pytest.mark.parametrize("part", [1, 100, 1 << 30])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_numbers_that_are_wider_become_narrower_and_others_stay(
    dtype: torch.dtype, part: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "PART", part)
    plain = safetensors.torch.load_file(file)
    with converted_in_parts(dtype):
        read = safetensors.torch.load_file(file)
    assert read.keys() == plain.keys()
    for name, tensor in plain.items():
        wider = tensor.is_floating_point() and tensor.element_size() > dtype.itemsize
        assert read[name].dtype == (dtype if wider else tensor.dtype)
        assert torch.equal(read[name], tensor.to(dtype) if wider else tensor)


def test_only_this_thread_and_only_for_a_while(file: Path) -> None:
    found: dict[str, Any] = {}
    with converted_in_parts(torch.float16):
        other = threading.Thread(target=lambda: found.update(safetensors.torch.load_file(file)))
        other.start()
        other.join()
    assert found["b.weight"].dtype == torch.float32
    assert safetensors.torch.load_file(file)["b.weight"].dtype == torch.float32


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", list(CLASSES))
def test_components_have_the_weights_that_diffusers_gives_them(
    name: str, dtype: torch.dtype, channels_last: bool
) -> None:
    pool.clear()
    kind = str(dtype).removeprefix("torch.")
    ours = load_component(require_model("pocket"), name, Compute(dtype=kind, channels_last=channels_last))
    theirs = getattr(diffusers(), CLASSES[name]).from_pretrained(str(POCKET_FOLDER / "base" / name), dtype=dtype)
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for key, tensor in ours.state_dict().items():
        assert tensor.dtype == expected[key].dtype
        assert torch.equal(tensor, expected[key])
    convolutions = [part.weight for part in ours.modules() if isinstance(part, torch.nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolutions) or not channels_last
    pool.clear()
