"""From 512 to 4096 pixels with upscalers of the real sizes: memory stays bounded by tiles."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow import Image
from graphflow.cli import main
from graphflow.machine.compute import LARGE
from graphflow.machine.memory import show_bytes
from graphflow.nodes import DecodeLatent, LoadImage, SaveImage, SuperRes, Upscale
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET_FOLDER
from tests.helpers import full_size

GB = 10**9


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("full-size")
    return str(full_size.latent_upscaler(folder / "x2")), str(full_size.upscaler(folder / "x4"))


def chain(models: tuple[str, str], **tiles: int) -> gf.Workflow:
    w = gf.Workflow()
    double = w.add("double", Upscale(model=models[0]), image=w.input("image", "image"))
    sharp = w.add("sharpen", SuperRes(model=models[1]), image=double)
    w.output("picture", w.add("decode", DecodeLatent(model=models[1], **tiles), latent=sharp))
    return w


def needs(models: tuple[str, str], size: int, compute: gf.Compute, **tiles: int) -> dict[str, gf.Memory]:
    image = Image(torch.zeros(1, 3, 1, 1).expand(1, 3, size, size))
    plan = gf.plan(chain(models, **tiles).bind({"image": image}), compute=compute)
    return {step.name: need for step in plan.steps if (need := plan.memory(step))}


GPU = gf.Compute(device="cuda:0", dtype="float16")


def test_the_chain_to_4096_pixels_fits_into_8_gb(models: tuple[str, str]) -> None:
    found = needs(models, 512, GPU)
    assert set(found) == {
        "double/encode_image", "double/encode_prompt", "double/denoise_upscale", "decode",
        "sharpen/denoise_super_res/decode_latent", "sharpen/encode_prompt", "sharpen/denoise_super_res",
    }  # fmt: skip
    assert max(need.total for need in found.values()) < 8 * GB
    assert found["double/denoise_upscale"].weights == pytest.approx(357.2e6 * 2, rel=0.01)
    assert found["sharpen/denoise_super_res"].weights == pytest.approx(473.4e6 * 2, rel=0.01)


def test_without_tiles_it_would_not(models: tuple[str, str]) -> None:
    whole = needs(models, 512, GPU, tile_size=16384)["decode"]
    tiled = needs(models, 512, GPU)["decode"]
    assert whole.activations > 16 * GB
    assert whole.activations > 10 * tiled.activations


def test_a_larger_picture_needs_no_more_where_there_are_tiles(models: tuple[str, str]) -> None:
    """On the accelerator: the finished picture lies in the machine's memory, and grows with its area."""
    small, large = (needs(models, size, GPU) for size in (512, 1024))
    assert large["decode"].activations == small["decode"].activations
    denoise = "sharpen/denoise_super_res"
    # four times the cells, of which only the latents and the tiles' answers are held whole
    assert large[denoise].activations < 1.3 * small[denoise].activations
    on_cpu = needs(models, 512, gf.Compute())["decode"], needs(models, 1024, gf.Compute())["decode"]
    picture = 4096 * 4096 * 3 * 4
    assert on_cpu[1].activations - on_cpu[0].activations == pytest.approx(3 * 4 * picture, rel=0.01)


@pytest.fixture
def file(models: tuple[str, str], tmp_path: Path) -> Path:
    w = gf.Workflow()
    Image(torch.full((1, 3, 512, 512), 0.5)).to_pil().save(tmp_path / "photo.png")
    double = w.add("double", Upscale(model=models[0]), image=w.add("photo", LoadImage(path="photo.png")))
    w.add("save", SaveImage(name="large"), image=w.add("sharpen", SuperRes(model=models[1]), image=double))
    path = tmp_path / "chain.json"
    w.save(path)
    return path


def test_the_plan_shows_what_each_step_needs_and_the_peak(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(file), "--json", "--memory-budget", "64GB"]) == 0
    data = json.loads(capsys.readouterr().out)
    needs = {step["name"]: step["memory"] for step in data["steps"]}
    assert needs["photo"] is None
    assert all(need["total"] == need["weights"] + need["activations"] for need in needs.values() if need)
    assert data["peak_memory"] == max(need["total"] for need in needs.values() if need)
    assert main(["plan", str(file), "--memory-budget", "64GB"]) == 0
    out = capsys.readouterr().out
    assert "DenoiseSuperRes, 75 steps, " in out
    largest = max((need["total"], name) for name, need in needs.items() if need)[1]
    number = [step["name"] for step in data["steps"]].index(largest) + 1
    assert out.splitlines()[-1] == f"peak memory {show_bytes(data['peak_memory'])}, in #{number}"


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_step_over_the_budget_is_refused_before_anything_runs(
    command: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, str(file), "--device", "cpu", "--dtype", "float32", "--memory-budget", "1GB"]
    assert main([*words, "--out", str(tmp_path / "out")] if command == "run" else words) == 2
    err = capsys.readouterr().err
    assert "node 'double/denoise_upscale': needs about " in err
    assert "expected at most the budget of 1 GB [memory.budget]" in err
    assert "with tile_size 256" in err
    assert "with half the width and height" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("able", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_follows_the_processor_where_the_model_is_of_full_size(
    able: bool, dtype: str, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphflow.machine.compute.computes_in_bfloat16", lambda: able)
    assert main(["plan", str(file), "--json", "--memory-budget", "64GB"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["environment"]["dtype"] == dtype
    assert ("channels_last" in data["environment"]) == able
    weights = {step["name"]: step["memory"]["weights"] for step in data["steps"] if step["memory"]}
    assert weights["double/denoise_upscale"] == pytest.approx(357.2e6 * (2 if able else 4), rel=0.01)
    compute = gf.load(file).plan().compute
    assert (compute.dtype, compute.channels_last) == (dtype, able)
    asked = gf.load(file).plan(dtype="bfloat16").compute
    assert (asked.dtype, asked.channels_last) == ("bfloat16", False)


def test_the_embedded_models_are_computed_in_float32_on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphflow.machine.compute.computes_in_bfloat16", lambda: True)
    assert gf.load("text_to_image_to_super_res").plan().compute.dtype == "float32"
    assert max(file.stat().st_size for file in POCKET_FOLDER.rglob("*.safetensors")) < LARGE


def test_each_step_names_the_files_that_it_reads(models: tuple[str, str]) -> None:
    image = Image(torch.zeros(1, 3, 64, 64))
    found = {
        step.name: sorted(str(path.relative_to(Path(models[0]).parent)) for path in step.node.weight_files())
        for step in gf.plan(chain(models).bind({"image": image})).steps
    }
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert found == {
        "double/encode_image": [f"x2/{vae}"],
        "double/encode_prompt": ["x2/text_encoder/model.safetensors"],
        "double/denoise_upscale": ["x2/unet/diffusion_pytorch_model.safetensors"],
        "sharpen/denoise_super_res/decode_latent": [f"x2/{vae}"],
        "sharpen/encode_prompt": ["x4/text_encoder/model.safetensors"],
        "sharpen/denoise_super_res": ["x4/unet/diffusion_pytorch_model.safetensors"],
        "decode": [f"x4/{vae}"],
    }


def test_estimates_import_no_torch(file: Path) -> None:
    program = (
        "import sys\nfrom graphflow.cli import main\n"
        f"status = main(['plan', {str(file)!r}, '--memory-budget', '64GB'])\n"
        "heavy = sorted({'torch', 'diffusers', 'transformers', 'accelerate', 'numpy'} & set(sys.modules))\n"
        "sys.exit(f'imported {heavy}' if heavy else status)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "peak memory" in done.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--attention", "xformers"], "attention.device"),
        (["--offload", "model"], "offload.device"),
        (["--compile", "--offload", "sequential"], "compile.offload"),
        (["--memory-budget", "lots"], "memory.unreadable"),
    ],
)
def test_switches_that_cannot_be_are_reported_before_anything_loads(
    words: list[str], code: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    loaded: list[Any] = []
    forbidden: Callable[..., None] = lambda *_, **__: loaded.append(1)  # noqa: E731
    monkeypatch.setattr("graphflow.run.job.execute", forbidden)
    assert main(["run", str(file), "--device", "cpu", "--out", str(tmp_path / "out"), *words]) == 2
    err = capsys.readouterr().err
    assert f"[{code}]" in err
    assert "Traceback" not in err
    assert loaded == []
