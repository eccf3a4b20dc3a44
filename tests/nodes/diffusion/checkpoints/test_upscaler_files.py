"""SuperRes with an upscaling network in a single file: what is known before it is loaded, and what is refused.

What it makes of pictures is held against spandrel in test_spandrel_upscalers.py.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import graphflow as gf
from graphflow import Image, Latent, PortType
from graphflow.cli import main
from graphflow.nodes import EnlargeImage, SuperRes, Upscale
from graphflow.nodes.diffusion.checkpoints.model_files import UnusableError
from graphflow.nodes.diffusion.checkpoints.safetensors_header import read_header
from graphflow.nodes.diffusion.checkpoints.upscaler_file import UpscalerFile, find_upscaler
from graphflow.nodes.diffusion.checkpoints.upscaler_header import recognise
from graphflow.nodes.diffusion.loading.weights_file import read_weights
from tests.helpers.pickles import Creates, Shell


def compact(scale: int = 4, channels: int = 3, width: int = 8) -> dict[str, torch.Tensor]:
    """The tensors of an SRVGGNetCompact with two inner convolutions."""
    weights = {"body.0.weight": torch.zeros(width, channels, 3, 3), "body.0.bias": torch.zeros(width)}
    for number in (2, 4):
        weights[f"body.{number}.weight"] = torch.zeros(width, width, 3, 3)
        weights[f"body.{number}.bias"] = torch.zeros(width)
    for number in (1, 3, 5):
        weights[f"body.{number}.weight"] = torch.zeros(width)
    made = channels * scale**2
    return weights | {"body.6.weight": torch.zeros(made, width, 3, 3), "body.6.bias": torch.zeros(made)}


@pytest.fixture
def upscaler(tmp_path: Path) -> Path:
    path = tmp_path / "x3.safetensors"
    safetensors.torch.save_file(compact(scale=3), path)
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if spandrel were installed, whether or not it is: validation only asks whether it is there."""
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return found("json") if name in ("spandrel", "torchvision") else found(name, package)

    version = importlib.metadata.version
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0" if name == "spandrel" else version(name))


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "spandrel" else found(name, package)
    )


def codes(node: gf.Node, **inputs: PortType) -> list[str]:
    return [problem.code for problem in node.check({"image": PortType(Image), **inputs})]


def test_the_header_tells_the_size_of_the_result_and_that_it_is_an_image(upscaler: Path, installed: None) -> None:
    for node in (SuperRes(model=str(upscaler)), EnlargeImage(model=str(upscaler))):
        (made,) = node.output_types({"image": PortType(Image, width=50, height=34, batch=2)}).values()
        assert (made.kind, made.width, made.height, made.batch) == (Image, 150, 102, 2)
        assert codes(node) == []


def test_without_a_header_the_size_is_not_known_before_the_run(tmp_path: Path, installed: None) -> None:
    torch.save(compact(), tmp_path / "x4.pth")
    node = SuperRes(model=str(tmp_path / "x4.pth"))
    made = node.output_types({"image": PortType(Image, width=50, height=34)})["latent"]
    assert (made.kind, made.width, made.height) == (Image, None, None)
    assert codes(node) == []


def test_an_edge_behind_it_carries_an_image_through_the_plan(upscaler: Path, installed: None) -> None:
    workflow = gf.Workflow()
    large = workflow.add("large", SuperRes(model=str(upscaler)), image=workflow.input("photo", "image"))
    workflow.output("again", workflow.add("again", Upscale(), image=large))
    workflow.output("large", large)
    assert [problem for problem in workflow.validate() if problem.severity == "error"] == []
    bound = workflow.bind({"photo": Image(torch.zeros(1, 3, 8, 8))})
    assert bound.bound("large").output_types["latent"] == PortType(Image, width=24, height=24, batch=1)
    assert bound.bound("again").output_types["latent"].kind is Latent


def test_a_plan_runs_one_step_and_encodes_no_prompt(upscaler: Path, installed: None) -> None:
    workflow = gf.Workflow()
    photo = workflow.input("photo", "image")
    workflow.output("out", workflow.add("large", SuperRes(model=str(upscaler), tile_size=64), image=photo))
    (step,) = workflow.plan(photo=Image(torch.zeros(1, 3, 8, 8))).steps
    assert step.node == EnlargeImage(model=str(upscaler), tile_size=64)


def test_parameters_that_such_a_network_ignores_are_errors(upscaler: Path, installed: None) -> None:
    node = SuperRes(model=str(upscaler), steps=5, guidance_scale=2.0, noise_level=3, seed=0, sampler="ddim")
    found = list(node.check({"image": PortType(Image), "prompt": PortType(str), "negative_prompt": PortType(str)}))
    assert {problem.code for problem in found} == {"value.ignored"}
    assert {problem.field for problem in found} == {
        "steps", "guidance_scale", "noise_level", "seed", "sampler", "prompt", "negative_prompt",
    }  # fmt: skip
    assert codes(SuperRes(model=str(upscaler), tile_size=64, tile_overlap=40)) == ["value.tiles"]


def test_without_spandrel_validate_says_what_to_install(
    upscaler: Path, absent: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(compact(), tmp_path / "x4.pth")
    nodes: dict[str, Any] = {
        "photo": {"type": "EmptyLatent"},
        "draw": {"type": "Text2Image", "prompt": "a ball"},
        "first": {"type": "SuperRes", "model": str(upscaler), "image": {"from": "draw"}},
        "second": {"type": "SuperRes", "model": str(tmp_path / "x4.pth"), "image": {"from": "draw"}},
    }
    (tmp_path / "large.json").write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
    assert main(["validate", str(tmp_path / "large.json")]) == 3
    printed = capsys.readouterr().err
    assert printed.count("[missing.package]") == 2
    assert 'pip install "graphflow-diffusion[spandrel]"' in printed


def test_a_file_in_the_hub_cache(
    upscaler: Path, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--upscalers"
    for commit in ("abc", "v2"):
        (repository / "snapshots" / commit / "more").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    upscaler.rename(repository / "snapshots" / "abc" / "more" / "x3.safetensors")
    found = find_upscaler("someone/upscalers/more/x3.safetensors")
    assert isinstance(found, UpscalerFile)
    assert found.scale == 3
    absent_file = find_upscaler("someone/upscalers@v2/more/x3.safetensors")
    assert isinstance(absent_file, gf.Problem)
    assert absent_file.code == "missing.model"
    assert 'hf download someone/upscalers --revision v2 --include "more/x3.safetensors"' in absent_file.hint
    nobody = find_upscaler("nobody/upscalers/x3.safetensors")
    assert isinstance(nobody, gf.Problem)
    assert '--include "x3.safetensors"' in nobody.hint


@pytest.mark.parametrize(
    "reference", ["x3.safetensors", "./a/b/x3.pth", "a/b/../../x.pth", "~nobody/x.pth", "x" * 2000 + ".pth", ".pth"]
)
def test_references_that_lead_nowhere(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert codes(SuperRes(model=reference)) == ["missing.model"]


def test_a_path_is_relative_to_the_current_folder(
    upscaler: Path, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(upscaler.parent)
    assert codes(SuperRes(model="x3.safetensors")) == []


def test_a_file_that_is_written_again_is_read_again(upscaler: Path, installed: None) -> None:
    first = find_upscaler(str(upscaler))
    safetensors.torch.save_file(compact(scale=2), upscaler)
    second = find_upscaler(str(upscaler))
    assert isinstance(first, UpscalerFile)
    assert isinstance(second, UpscalerFile)
    assert (first.scale, second.scale) == (3, 2)


def test_networks_for_grey_pictures_are_refused(tmp_path: Path, installed: None) -> None:
    safetensors.torch.save_file(compact(channels=1), tmp_path / "grey.safetensors")
    (problem,) = SuperRes(model=str(tmp_path / "grey.safetensors")).check({})
    assert (problem.code, "takes 1 and gives 1 channels" in problem.message) == ("model.unsupported", True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 64,
        (9).to_bytes(8, "little") + b"[1, 2, 3]",
        (20).to_bytes(8, "little") + b'{"a": {"shape": "x"}',
        (17).to_bytes(8, "little") + b'{"a": {"b": []}} ',
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
)
def test_a_header_that_is_none_is_told(content: bytes, tmp_path: Path, installed: None) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    (problem,) = SuperRes(model=str(tmp_path / "broken.safetensors")).check({})
    assert problem.code == "model.unsupported"
    assert "cannot be read as safetensors" in problem.message


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"conv.weight": (3, 3, 3, 3)},
        {"body.0.weight": (), "body.1.weight": (8,)},
        {"body.0.weight": (8, 0, 3, 3), "body.1.weight": (8,)},
        {"body.0.weight": (8, 3, 3, 3), "body.1.weight": (8,), "body.2.weight": (-7, 8, 3, 3)},
        {"model.1.sub.0.RDB1.conv1.0.weight": (8, 8, 3, 3), "model.0.weight": (8, 3, 3, 3)},
        {"model.1.sub.0.RDB1.conv1.0.weight": (8,), "model.0.weight": (8, 3), "model.999999999999.weight": (3, 8)},
        {"body.0.rdb1.conv1.weight": (8, 8, 3, 3)},
        {"layers.0.residual_group.blocks.0.attn.relative_position_index": (), "conv_first.weight": ()},
    ],
)
def test_tensors_of_something_else_are_not_taken_for_an_upscaler(shapes: dict[str, tuple[int, ...]]) -> None:
    assert recognise(shapes) is None


def test_shapes_are_read_without_the_tensors(upscaler: Path) -> None:
    assert read_header(upscaler).shapes == {name: tuple(tensor.shape) for name, tensor in compact(scale=3).items()}


def malicious(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Pickles in each form that torch reads, and the file that each would create."""
    for number, kind in enumerate((Creates, Shell)):
        trap = folder / f"trap-{number}"
        for name, legacy in (("zip", False), ("legacy", True)):
            path = folder / f"{name}-{number}.pth"
            torch.save({**compact(), "body.7.weight": kind(trap)}, path, _use_new_zipfile_serialization=not legacy)
            yield path, trap
        for protocol in (2, 5):
            plain = folder / f"protocol-{protocol}-{number}.pth"
            plain.write_bytes(pickle.dumps({"weights": kind(trap)}, protocol))
            yield plain, trap


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    for path, trap in malicious(tmp_path):
        assert not trap.exists()
        with pytest.raises(UnusableError) as caught:
            read_weights("model.pth", path)
        problem = caught.value.problem
        if "protocol-5" in path.name:  # torch does not read that form far enough to see what it asks for
            assert (problem.code, "torch did not write it" in problem.message) == ("model.unsupported", True)
        else:
            assert problem.code == "model.unsafe", problem
            assert any(f"asks for {name}, which" in problem.message for name in ("posix.system", "getattr")), problem
            assert ".safetensors" in problem.hint
        assert "weights_only" not in str(problem), "the advice to read it all the same"
        assert not trap.exists()


def test_the_malicious_pickles_would_have_worked(tmp_path: Path) -> None:
    for path, trap in malicious(tmp_path):
        with contextlib.suppress(RuntimeError):  # of a plain pickle torch says so, once it has run
            torch.load(path, weights_only=False)
        assert trap.exists(), path.name
        trap.unlink()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 cut short"])
def test_damaged_weights_are_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(UnusableError) as caught:
        read_weights("damaged.pth", path)
    assert caught.value.problem.code == "model.unsupported"


def test_weights_are_the_same_from_either_kind_of_file(tmp_path: Path) -> None:
    weights = {name: torch.randn(tensor.shape) for name, tensor in compact().items()}
    torch.save(weights, tmp_path / "w.pth")
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    for path in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        read = read_weights(path.name, path)
        assert read.keys() == weights.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())


def test_checking_an_upscaler_imports_nothing_heavy(upscaler: Path) -> None:
    program = """
import sys
from graphflow import Image, PortType
from graphflow.nodes import SuperRes
node = SuperRes(model=sys.argv[1])
print(node.output_types({"image": PortType(Image, width=10, height=10)})["latent"].kind.__name__)
print({problem.code for problem in node.check({})} <= {"missing.package"})
heavy = {"torch", "diffusers", "transformers", "safetensors", "PIL", "numpy", "spandrel", "torchvision"}
print(sorted({name.partition(".")[0] for name in sys.modules} & heavy))
"""
    command = [sys.executable, "-c", program, str(upscaler)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.split("\n")[:3], done.stderr) == (["Image", "True", "[]"], "")
