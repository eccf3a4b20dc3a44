"""SuperRes with upscaling networks in a single file, against spandrel called directly; needs the extra ``spandrel``."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch

import graphflow as gf
from graphflow import Image, PortType, WorkflowError
from graphflow.cli import main
from graphflow.nodes import EnlargeImage, SuperRes
from graphflow.nodes.diffusion.checkpoints.safetensors_header import read_header
from graphflow.nodes.diffusion.checkpoints.upscaler_header import recognise
from graphflow.nodes.diffusion.loading.components import pool, quiet
from tests.helpers.pickles import Shell
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric

spandrel: Any = pytest.importorskip("spandrel", exc_type=ImportError)


def _architecture(name: str) -> Any:
    return importlib.import_module(f"spandrel.architectures.{name}")


def _esrgan(**more: Any) -> torch.nn.Module:
    module: torch.nn.Module = _architecture("ESRGAN").ESRGAN(num_filters=8, num_blocks=2, **more)
    return module


def _compact(scale: int) -> torch.nn.Module:
    module: torch.nn.Module = _architecture("Compact").Compact(num_feat=8, num_conv=2, upscale=scale)
    return module


def _swin(name: str, **more: Any) -> torch.nn.Module:
    sizes = {"img_size": 16, "window_size": 8, "depths": [1, 1], "embed_dim": 8, "num_heads": [2, 2], "mlp_ratio": 2.0}
    module: torch.nn.Module = getattr(_architecture(name), name)(**sizes, **more)
    return module


NETWORKS: Mapping[str, tuple[Callable[[], torch.nn.Module], str, int]] = {
    "esrgan-x4": (lambda: _esrgan(scale=4), "ESRGAN", 4),
    "esrgan-x2": (lambda: _esrgan(scale=2), "ESRGAN", 2),
    "esrgan-x1": (lambda: _esrgan(scale=1), "ESRGAN", 1),
    "real-esrgan-x2": (lambda: _esrgan(scale=4, in_nc=12, shuffle_factor=2), "ESRGAN", 2),
    "compact-x4": (lambda: _compact(4), "Compact", 4),
    "compact-x3": (lambda: _compact(3), "Compact", 3),
    "compact-x1": (lambda: _compact(1), "Compact", 1),
    "swinir-x2": (lambda: _swin("SwinIR", upscale=2, upsampler="pixelshuffle"), "SwinIR", 2),
    "swinir-x3": (lambda: _swin("SwinIR", upscale=3, upsampler="pixelshuffledirect"), "SwinIR", 3),
    "swinir-real-x4": (lambda: _swin("SwinIR", upscale=4, upsampler="nearest+conv"), "SwinIR", 4),
    "swin2sr-x8": (lambda: _swin("Swin2SR", upscale=8, upsampler="pixelshuffle"), "Swin2SR", 8),
    "swin2sr-x2": (lambda: _swin("Swin2SR", upscale=2, upsampler="pixelshuffledirect"), "Swin2SR", 2),
    "swin2sr-real-x4": (lambda: _swin("Swin2SR", upscale=4, upsampler="nearest+conv"), "Swin2SR", 4),
}


def weights_of(name: str) -> dict[str, torch.Tensor]:
    """Random weights, so that the picture that comes out shows something and is mostly not cut off."""
    torch.manual_seed(3)
    with quiet():  # torch has advice for how some of them are written
        module = NETWORKS[name][0]()
    last = [key for key, _ in module.named_parameters() if key.endswith("bias")][-1]
    for key, parameter in module.named_parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape) * (0.5 / parameter[0].numel()) ** 0.5
        elif key == last:
            parameter.data = torch.full(parameter.shape, 0.1 if name.startswith("compact") else 0.5)
    return {key: tensor.contiguous() for key, tensor in module.state_dict().items()}


def saved(name: str, path: Path) -> Path:
    if path.suffix == ".pth":
        torch.save(weights_of(name), path)
    else:
        safetensors.torch.save_file(weights_of(name), path)
    return path


def as_real_esrgan_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors under the names of BasicSR, as Real-ESRGAN publishes them."""
    last = max(int(name.split(".")[1]) for name in weights)
    plain = {"model.0": "conv_first", f"model.{last}": "conv_last", f"model.{last - 2}": "conv_hr"}
    plain |= {f"model.{3 * number}": f"conv_up{number}" for number in range(1, (last - 4) // 3 + 1)}
    renamed = {}
    for name, tensor in weights.items():
        module, _, kind = name.rpartition(".")
        block = re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0", module)
        new = f"body.{block[1]}.rdb{block[2]}.conv{block[3]}" if block else plain.get(module, "conv_body")
        renamed[f"{new}.{kind}"] = tensor
    assert len(renamed) == len(weights)
    return renamed


def pixels(batch: int = 1, height: int = 24, width: int = 40) -> torch.Tensor:
    """Soft random pictures with values from 0 to 1."""
    coarse = torch.rand(batch, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_picture_is_the_one_that_spandrel_makes(
    name: str, suffix: str, tmp_path: Path, context: Recorder, one_thread: None
) -> None:
    path = saved(name, tmp_path / f"network{suffix}")
    with quiet():
        direct = spandrel.ModelLoader().load_from_file(path).eval()
    small = pixels()
    expected = direct(small)
    assert expected.std() > 0.01
    ours = EnlargeImage(model=str(path)).run(image=Image(small), context=context)
    scale = NETWORKS[name][2]
    assert (ours.width, ours.height) == (40 * scale, 24 * scale)
    assert ours.pixels.dtype == torch.float32
    assert (ours.pixels - expected).abs().max() <= 1e-4
    assert not ours.pixels.is_inference()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_header_tells_what_spandrel_finds(name: str, tmp_path: Path) -> None:
    path = saved(name, tmp_path / "network.safetensors")
    with quiet():
        direct, known = spandrel.ModelLoader().load_from_file(path), recognise(read_header(path).shapes)
    assert known is not None
    assert (known.architecture, known.scale) == NETWORKS[name][1:]
    assert (known.scale, known.channels_in, known.channels_out) == (
        direct.scale,
        direct.input_channels,
        direct.output_channels,
    )
    assert direct.architecture.id == known.architecture


@pytest.mark.parametrize("name", ["esrgan-x4", "esrgan-x2", "real-esrgan-x2"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_real_esrgan_files_as_they_are_published(
    name: str, prefix: str, tmp_path: Path, context: Recorder, one_thread: None
) -> None:
    weights = {prefix + key: tensor for key, tensor in as_real_esrgan_names(weights_of(name)).items()}
    torch.save({"params_ema": weights}, tmp_path / "network.pth")
    safetensors.torch.save_file(weights, tmp_path / "network.safetensors")
    known = recognise(read_header(tmp_path / "network.safetensors").shapes)
    assert known is not None
    assert (known.architecture, known.scale) == NETWORKS[name][1:]
    expected = EnlargeImage(model=str(saved(name, tmp_path / "old.pth"))).run(image=Image(pixels()), context=context)
    for file in ("network.pth", "network.safetensors"):
        ours = EnlargeImage(model=str(tmp_path / file)).run(image=Image(pixels()), context=context)
        assert (ours.pixels - expected.pixels).abs().max() <= 1e-6


def test_an_item_of_a_batch_equals_its_solo_run(tmp_path: Path, context: Recorder, one_thread: None) -> None:
    node = EnlargeImage(model=str(saved("esrgan-x4", tmp_path / "network.pth")))
    both = pixels(2)
    made = node.run(image=Image(both), context=context).pixels
    assert torch.equal(made[1:], node.run(image=Image(both[1:]), context=context).pixels)
    assert not torch.equal(made[0], made[1])


def test_tiles_give_the_untiled_picture_away_from_the_seams(
    tmp_path: Path, context: Recorder, one_thread: None
) -> None:
    path = str(saved("compact-x3", tmp_path / "network.safetensors"))
    large = Image(pixels(height=64, width=64))
    whole = EnlargeImage(model=path, tile_size=64).run(image=large, context=context).pixels
    assert context.progress == [(1, 1)]
    context.progress.clear()
    tiled = EnlargeImage(model=path, tile_size=40, tile_overlap=16).run(image=large, context=context).pixels
    assert context.progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    # Tiles start at 0 and 24 and end at 40 and 64; a pixel is seen by the four convolutions within four pixels of it.
    inside = [*range(3 * 20), *range(3 * 44, 3 * 64)]
    assert (tiled - whole)[:, :, inside][..., inside].abs().max() <= 1e-5
    assert (tiled - whole).abs().max() > 0, "the tiles were not one"
    overlapping = EnlargeImage(model=path, tile_size=40, tile_overlap=20).run(image=large, context=context).pixels
    assert (overlapping - whole).abs().mean() < 1e-3


def test_the_network_is_loaded_once_and_again_for_another_dtype(tmp_path: Path, context: Recorder) -> None:
    node = EnlargeImage(model=str(saved("esrgan-x2", tmp_path / "network.pth")))
    pool.clear()
    first = node.run(image=Image(pixels()), context=context).pixels
    node.run(image=Image(pixels()), context=context)
    assert len(pool) == 1
    assert pool.nbytes("cpu") > 0
    context.compute = gf.Compute(dtype="bfloat16")
    half = node.run(image=Image(pixels()), context=context).pixels
    assert len(pool) == 2
    assert half.dtype == torch.float32
    assert 0 < (half - first).abs().max() < 0.05
    pool.clear()


def test_an_architecture_that_cannot_do_with_sixteen_bits_runs_in_32_and_tells(
    tmp_path: Path, context: Recorder, one_thread: None
) -> None:
    node = EnlargeImage(model=str(saved("swin2sr-x2", tmp_path / "network.pth")))
    full = node.run(image=Image(pixels()), context=context).pixels
    context.compute = gf.Compute(dtype="float16")
    assert torch.equal(node.run(image=Image(pixels()), context=context).pixels, full)
    assert context.warnings == [f'the upscaler "{node.model}" (Swin2SR) cannot run in float16: it runs in float32']


def test_from_the_command_line_behind_a_drawing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], context: Recorder
) -> None:
    path = saved("esrgan-x2", tmp_path / "network.safetensors")
    nodes = {
        "draw": {"type": "Text2Image", "prompt": "a red ball", "steps": 2},
        "large": {"type": "SuperRes", "model": str(path), "image": {"from": "draw"}},
        "small": {"type": "SaveImage", "image": {"from": "draw"}, "name": "small"},
    }
    outputs = {"image": {"from": "large"}}
    (tmp_path / "large.json").write_text(json.dumps({"graphflow": 1, "nodes": nodes, "outputs": outputs}))
    assert main(["validate", str(tmp_path / "large.json")]) == 0
    assert main(["run", str(tmp_path / "large.json"), "--out", str(tmp_path), "--device", "cpu"]) == 0
    with PIL.Image.open(tmp_path / "small.png") as small, PIL.Image.open(tmp_path / "large-image.png") as large:
        assert large.size == (2 * small.width, 2 * small.height)
        drawn = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None] / 255
        made = torch.from_numpy(np.asarray(large).copy()).permute(2, 0, 1)[None] / 255
    expected = EnlargeImage(model=str(path)).run(image=Image(drawn), context=context).pixels
    assert (made - expected).abs().max() < 0.02  # both were rounded to 8 bits


def test_a_malicious_pickle_is_refused_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / "trap"
    torch.save({**weights_of("compact-x4"), "more": Shell(trap)}, tmp_path / "evil.pth")
    nodes = {
        "draw": {"type": "Text2Image", "prompt": "a red ball", "steps": 1},
        "large": {"type": "SuperRes", "model": str(tmp_path / "evil.pth"), "image": {"from": "draw"}},
    }
    (tmp_path / "evil.json").write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
    assert main(["run", str(tmp_path / "evil.json"), "--out", str(tmp_path / "out"), "--device", "cpu"]) != 0
    printed = capsys.readouterr().err
    assert "asks for posix.system" in printed
    assert "[model.unsafe]" in printed
    assert "'large" in printed
    assert "weights_only" not in printed
    assert "Traceback" not in printed
    assert not trap.exists()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": torch.zeros(1)}, "knows no architecture"),
        ({"body.0.weight": torch.zeros(8, 3, 3, 3), "body.1.weight": torch.zeros(8)}, "spandrel cannot load it"),
    ],
)
def test_files_without_an_upscaler_are_told(
    weights: dict[str, torch.Tensor], said: str, tmp_path: Path, context: Recorder
) -> None:
    torch.save(weights, tmp_path / "network.pth")
    with pytest.raises(WorkflowError) as caught:
        EnlargeImage(model=str(tmp_path / "network.pth")).run(image=Image(pixels()), context=context)
    (problem,) = caught.value.problems
    assert problem.code == "model.unsupported"
    assert said in problem.message


def test_networks_for_grey_pictures_are_refused_when_loaded(tmp_path: Path, context: Recorder) -> None:
    grey = _architecture("Compact").Compact(num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=2, upscale=2)
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    with pytest.raises(WorkflowError, match="takes 1 and gives 1 channels"):
        EnlargeImage(model=str(tmp_path / "grey.pth")).run(image=Image(pixels()), context=context)


def test_the_version_of_spandrel_is_part_of_the_identity(tmp_path: Path) -> None:
    node = EnlargeImage(model=str(saved("compact-x1", tmp_path / "network.pth")))
    digest, version = node.identity()
    assert len(digest) == 64
    assert version == importlib.import_module("importlib.metadata").version("spandrel")


def test_validate_knows_the_size_behind_it(tmp_path: Path) -> None:
    path = str(saved("swinir-x3", tmp_path / "network.safetensors"))
    workflow = gf.Workflow()
    large = workflow.add("large", SuperRes(model=path), image=workflow.input("photo", "image"))
    workflow.output("large", large)
    bound = workflow.bind({"photo": Image(pixels())})
    assert bound.bound("large").output_types["latent"] == PortType(Image, width=120, height=72, batch=1)
