"""Stable Diffusion 3 and FLUX in one file: the same components and pictures as the same model in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import graphflow as gf
from graphflow.nodes import Text2Image
from graphflow.nodes.diffusion.loading.components import load_component
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers import tiny
from tests.helpers.drawing import drawn
from tests.helpers.numerics import difference
from tests.helpers.original_layout import original_flux
from tests.helpers.tiny_checkpoints import transformer_file, weights

pytestmark = pytest.mark.numeric

WIDTH = 32
"""Of a tiny FLUX."""


@pytest.fixture(autouse=True)
def any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function of diffusers that renames the tensors of FLUX has its width, 3072, written into it."""
    from diffusers.loaders import single_file_model

    entry: dict[str, Any] = single_file_model.SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    function: FunctionType = entry["checkpoint_mapping_fn"]
    code: CodeType = function.__code__
    assert 3072 in code.co_consts
    narrow = code.replace(co_consts=tuple(WIDTH if each == 3072 else each for each in code.co_consts))
    monkeypatch.setitem(entry, "checkpoint_mapping_fn", FunctionType(narrow, function.__globals__))


@pytest.fixture(scope="module", params=["sd3", "sd3 without t5", "flux", "schnell"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, one_thread: None
) -> Iterator[tuple[Path, Path]]:
    """A model as a folder, and as one file."""
    kind, root = request.param, tmp_path_factory.mktemp("one-file")
    if kind.startswith("sd3"):
        folder = tiny.sd3(root / "folder", t5=kind == "sd3")
        (file,) = (folder / "text_encoder").glob("*.safetensors")
        plain = load_file(str(file))
        save_file(plain | {"text_projection.weight": torch.eye(tiny.WIDTH)}, str(file), metadata={"format": "pt"})
    else:
        folder = tiny.flux(root / "folder", schnell=kind == "schnell")
    yield folder, transformer_file(folder, root / "dreams.safetensors")


def picture(model: Path) -> torch.Tensor:
    node = Text2Image(model=str(model), width=64, height=64, steps=2, seed=3)
    pixels: torch.Tensor = drawn(node, prompt="a red ball").pixels
    return pixels


def same_components(folder: Path, file: Path) -> None:
    ours, theirs = require_model(str(file)), require_model(str(folder))
    assert set(ours.components) == set(theirs.components)
    assert (ours.family, ours.space) == (theirs.family, theirs.space)
    for name in theirs.components:
        found, expected = (load_component(info, name, gf.Compute()).state_dict() for info in (ours, theirs))
        assert found.keys() == expected.keys(), name
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_one_file_holds_what_the_folder_holds_and_draws_the_same(pair: tuple[Path, Path]) -> None:
    folder, file = pair
    same_components(folder, file)
    theirs = picture(folder)
    assert float(theirs.std()) > 0.001
    assert difference(picture(file), theirs) <= 1e-4


def test_a_file_with_the_transformer_alone_takes_the_rest_from_the_folder_beside_it(tmp_path: Path) -> None:
    folder = tiny.flux(tmp_path / "folder")
    file = tmp_path / "flux1.safetensors"
    save_file({name: value.contiguous() for name, value in original_flux(weights(folder, "transformer"), "").items()},
              str(file))  # fmt: skip
    shutil.copytree(folder, tmp_path / "flux1")
    shutil.rmtree(tmp_path / "flux1/transformer")
    (tmp_path / "flux1/transformer").mkdir()
    shutil.copy(folder / "transformer/config.json", tmp_path / "flux1/transformer")
    assert require_model(str(file)).components["vae"].checkpoint is None
    same_components(folder, file)
