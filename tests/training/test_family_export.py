"""Exported members of the family load in their pipelines; what x2 learns is what its pipeline computes with."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch
from diffusers import (
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionLatentUpscalePipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from safetensors import safe_open

from training.pocket import control, depth, enlarge, export, train
from training.pocket.export import BASE, SHARED, TRAINED, export_member, shared_parts

BUILDERS: dict[str, Callable[[], Any]] = {
    "controlnet-depth": lambda: control.build(UNet2DConditionModel.from_pretrained(BASE / "unet")),
    "x2": enlarge.build_x2_unet,
    "x4": enlarge.build_x4_unet,
    "depth": depth.build,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All members with random weights."""
    folder = tmp_path_factory.mktemp("family")
    torch.manual_seed(1)
    for name, build in BUILDERS.items():
        build().save_pretrained(folder / "trained" / name)
        export_member(name, folder / "trained" / name, BASE, folder / name)
    return folder


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return shared_parts(BASE)


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("name", TRAINED)
def test_exports_are_half_precision_and_without_traces(exported: Path, name: str) -> None:
    folder = exported / name
    assert not any((folder / part).exists() for part in SHARED)
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
        if path.suffix == ".json":
            assert "_name_or_path" not in json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as weights:
                assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118
    assert not list(exported.glob("*.partial"))


def test_x2_doubles(exported: Path, parts: dict[str, Any]) -> None:
    pipeline = quiet(StableDiffusionLatentUpscalePipeline.from_pretrained(exported / "x2", **parts))
    assert pipeline.unet.dtype == torch.float32
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    images = pipeline(["", "a red ball"], latents, num_inference_steps=2, guidance_scale=1.0, output_type="np").images
    assert images.shape == (2, 128, 128, 3)


def test_x4_makes_four_times_as_large(exported: Path, parts: dict[str, Any]) -> None:
    pipeline = quiet(StableDiffusionUpscalePipeline.from_pretrained(exported / "x4", **parts))
    assert pipeline.config.max_noise_level == enlarge.MAX_NOISE_LEVEL
    assert pipeline.vae.config.scaling_factor == parts["vae"].config.scaling_factor
    small = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "np"}
    images = pipeline("a red ball", small, noise_level=enlarge.MAX_NOISE_LEVEL, **options).images
    assert images.shape == (1, 128, 192, 3)


def test_the_controlnet_steers_the_base_model(exported: Path) -> None:
    controlnet = ControlNetModel.from_pretrained(exported / "controlnet-depth")
    pipeline = quiet(StableDiffusionControlNetPipeline.from_pretrained(BASE, controlnet=controlnet))
    depths = torch.zeros(1, 64, 64, dtype=torch.uint8)
    images = pipeline(
        "a red ball", control.as_control(depths), num_inference_steps=1, output_type="np",
        generator=torch.Generator().manual_seed(1),
    ).images  # fmt: skip
    assert images.shape == (1, 64, 64, 3)


def test_the_depth_network_answers_pictures(exported: Path) -> None:
    network = UNet2DModel.from_pretrained(exported / "depth").eval()
    found = depth.estimate(network, np.zeros((2, 64, 64, 3), np.uint8))
    assert found.shape == (2, 64, 64)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_x2_starts_from_the_strongest_noise(exported: Path, steps: int) -> None:
    scheduler = EulerDiscreteScheduler.from_pretrained(exported / "x2" / "scheduler")
    scheduler.set_timesteps(steps)
    assert len(scheduler.sigmas) == steps + 1
    assert scheduler.sigmas[0] > 14
    assert scheduler.sigmas[-2] > 0.5


@pytest.mark.parametrize("steps", [1, 3])
def test_x2_learns_what_its_pipeline_computes_with(parts: dict[str, Any], steps: int) -> None:
    draw = torch.Generator().manual_seed(2)
    clean, small = torch.randn(2, 4, 16, 16, generator=draw), torch.randn(2, 4, 8, 8, generator=draw)
    unet = enlarge.build_x2_unet()
    seen: list[torch.Tensor] = []

    def exact(sample: torch.Tensor, timestep: torch.Tensor, **known: Any) -> SimpleNamespace:
        """Answers as a perfectly trained UNet would, and checks what it is given."""
        sigma = (timestep * 4).exp().expand(2)
        noisy = sample[:, :4] * (sigma.square() + 1).sqrt()[:, None, None, None]
        words = parts["text_encoder"](tokens, output_hidden_states=True)
        inputs, expected_timestep, condition = enlarge.x2_inputs(noisy, sigma, small, words.pooler_output)
        assert torch.allclose(inputs, sample, atol=1e-5)
        assert torch.allclose(expected_timestep, timestep.expand(2), atol=1e-5)
        assert torch.allclose(condition, known["timestep_cond"], atol=1e-5)
        assert torch.allclose(words.hidden_states[-1], known["encoder_hidden_states"], atol=1e-5)
        seen.append(sigma)
        answer = enlarge.x2_target(noisy, sigma, clean)
        return SimpleNamespace(sample=torch.cat([answer, torch.zeros(2, 1, 16, 16)], 1))

    unet.forward = exact
    prompts = ["a red ball", ""]
    tokenizer = parts["tokenizer"]
    tokens = tokenizer(prompts, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")[
        "input_ids"
    ]
    pipeline = quiet(StableDiffusionLatentUpscalePipeline(unet=unet, scheduler=enlarge.build_x2_scheduler(), **parts))
    result = pipeline(
        prompts, small, num_inference_steps=steps, guidance_scale=1.0, generator=draw, output_type="latent"
    ).images
    assert len(seen) == steps
    assert float((result - clean).abs().max()) < 1e-3


def test_a_training_runs_only_the_stages_that_lack_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(world: int, function: Callable[..., None], *arguments: Any) -> None:
        ran.append(function.__name__)
        out = next(argument for argument in reversed(arguments) if isinstance(argument, Path))
        if function.__name__ == "make_chunks":
            for number in range(arguments[1]):
                out.mkdir(exist_ok=True)
                (out / f"chunk-{number:03d}.npz").touch()
        elif function is enlarge.prepare:
            out.mkdir()
            (out / "000.safetensors").touch()  # as if it stopped before the second file
        else:
            out.touch()

    def note_export(name: str, trained: Path, base: Path, out: Path) -> int:
        ran.append(name)
        return 1

    monkeypatch.setattr(train, "run_processes", run)
    monkeypatch.setattr(export, "export_member", note_export)
    train.train_member("x2", BASE, tmp_path, 1, 2, 16, 1, 1)
    assert ran == ["make_chunks", "prepare", "train_x2", "x2"]
    (tmp_path / "enlarge" / "001.safetensors").touch()
    ran.clear()
    train.train_member("x4", BASE, tmp_path, 1, 2, 16, 1, 1)
    assert ran == ["train_x4", "x4"]
    ran.clear()
    train.train_member("controlnet", BASE, tmp_path, 1, 2, 16, 1, 1)
    assert ran == ["make_chunks", "prepare", "train", "controlnet-depth"]
