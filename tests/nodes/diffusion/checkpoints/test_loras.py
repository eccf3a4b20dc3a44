"""LoRAs: equal to what diffusers does with the same files, and refused where they do not fit."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphflow import Compute, Problem
from graphflow.nodes import Text2Image
from graphflow.nodes.diffusion.checkpoints import model_parts
from graphflow.nodes.diffusion.checkpoints.lora_file import open_lora
from graphflow.nodes.diffusion.checkpoints.model_files import UnusableError
from graphflow.nodes.diffusion.loading.components import load_component, quiet
from graphflow.nodes.diffusion.models.model_info import ModelInfo, find_model, find_problems, require_model
from tests.helpers import tiny
from tests.helpers.drawing import drawn
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.model_folders import problem
from tests.helpers.numerics import difference, generators
from tests.helpers.original_layout import save_header_only
from tests.helpers.tiny_checkpoints import single_file, weights

pytestmark = pytest.mark.numeric

COMPUTE = Compute()
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.sdxl(tmp_path_factory.mktemp("sdxl"))


def low_rank(folder: Path, component: str, pattern: str, *, seed: int = 0, rank: int = 2) -> dict[str, tuple[Any, Any]]:
    """Random (down, up) for each matrix of a component whose name matches."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, value in sorted(weights(folder, component).items()):
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and value.dim() == 2 and re.search(pattern, module):
            down = torch.randn(rank, value.shape[1], generator=generator)
            up = torch.randn(value.shape[0], rank, generator=generator)
            pairs[module] = (down * 0.3, up * 0.3)
    assert pairs
    return pairs


UNET, TEXT = r"attn\d\.to_(q|k|v|out\.0)$", r"self_attn\.(q|k|v|out)_proj$"


def diffusers_layout(folder: Path, *components: str, seed: int = 0) -> Tensors:
    data = {}
    for component in components:
        pattern = UNET if component == "unet" else TEXT
        for module, (down, up) in low_rank(folder, component, pattern, seed=seed).items():
            full = module if component == "unet" else f"text_model.{module.removeprefix('text_model.')}"
            data[f"{component}.{full}.lora_A.weight"] = down
            data[f"{component}.{full}.lora_B.weight"] = up
    return data


def kohya_layout(folder: Path, *components: str, seed: int = 0, alpha: float = 1.0) -> Tensors:
    second = (folder / "text_encoder_2").exists()
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te1" if second else "lora_te", "text_encoder_2": "lora_te2"}
    data: Tensors = {}
    for component in components:
        pattern = UNET if component == "unet" else TEXT
        for module, (down, up) in low_rank(folder, component, pattern, seed=seed).items():
            full = module if component == "unet" else f"text_model.{module.removeprefix('text_model.')}"
            flat = f"{prefixes[component]}_{full.replace('.', '_')}"
            data |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            data[f"{flat}.alpha"] = torch.tensor(alpha)
    return data


def saved(tensors: Tensors, path: Path) -> Path:
    save_file(tensors, str(path), metadata={"format": "pt"})
    return path


def ours(model: str) -> torch.Tensor:
    node = Text2Image(model=model, width=64, height=64, steps=2, guidance_scale=4.0, seed=3)
    pixels: torch.Tensor = drawn(node, prompt="a red ball", negative_prompt="a cone").pixels
    return pixels


@cache
def theirs(folder: Path, *loras: tuple[Path, float]) -> torch.Tensor:
    """The picture of the pipeline of diffusers with load_lora_weights and set_adapters."""
    cls = "StableDiffusionXLPipeline" if (folder / "text_encoder_2").exists() else "StableDiffusionPipeline"
    with quiet():
        pipeline = quietly(getattr(diffusers(), cls).from_pretrained(str(folder)))
        for number, (path, _) in enumerate(loras):
            pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=f"lora{number}")
        if loras:
            pipeline.set_adapters([f"lora{number}" for number in range(len(loras))], [weight for _, weight in loras])
        pixels: torch.Tensor = pipeline(
            prompt="a red ball",
            negative_prompt="a cone",
            width=64,
            height=64,
            num_inference_steps=2,
            guidance_scale=4.0,
            generator=generators(3, 1),
            output_type="pt",
        ).images
    return pixels


LAYOUTS = {"diffusers": diffusers_layout, "kohya": kohya_layout}


@pytest.fixture(autouse=True)
def _peft(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip tests that fuse LoRAs without the package peft; for those of headers it only has to seem installed."""
    if request.node.get_closest_marker("parametrize") and "layout" in request.fixturenames:
        pytest.importorskip("peft")
    else:
        monkeypatch.setattr(model_parts, "peft_is_installed", lambda: True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weight", [1.0, 0.5, -0.7])
@pytest.mark.parametrize("family", ["tiny_sd", "sdxl"])
def test_a_lora_draws_what_diffusers_draws_with_it(
    layout: str, weight: float, family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    components = [name for name in ("unet", "text_encoder", "text_encoder_2") if (folder / name).exists()]
    path = saved(LAYOUTS[layout](folder, *components), tmp_path / "style.safetensors")
    mine, expected, plain = ours(f"{folder} + lora:{path}*{weight}"), theirs(folder, (path, weight)), theirs(folder)
    assert difference(mine, expected) <= 1e-4
    assert difference(plain, expected) > 1e-3, "the LoRA does too little to be seen"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_loras_are_laid_over_one_another(layout: str, tiny_sd: Path, tmp_path: Path) -> None:
    one = saved(LAYOUTS[layout](tiny_sd, "unet", "text_encoder"), tmp_path / "one.safetensors")
    two = saved(LAYOUTS[layout](tiny_sd, "unet", seed=5), tmp_path / "two.safetensors")
    mine = ours(f"{tiny_sd} + lora:{one}*0.5 + lora:{two}*0.8")
    assert difference(mine, theirs(tiny_sd, (one, 0.5), (two, 0.8))) <= 1e-4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lora_over_a_checkpoint_of_one_file(layout: str, sdxl: Path, tmp_path: Path) -> None:
    file = single_file(sdxl, tmp_path / "dreams.safetensors")
    path = saved(LAYOUTS[layout](sdxl, "unet", "text_encoder_2"), tmp_path / "style.safetensors")
    assert difference(ours(f"{file} + lora:{path}*0.5"), theirs(sdxl, (path, 0.5))) <= 1e-4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_base_in_the_pool_stays_as_it_is(layout: str, tiny_sd: Path, tmp_path: Path) -> None:
    path = saved(LAYOUTS[layout](tiny_sd, "unet"), tmp_path / "style.safetensors")
    base, changed = require_model(str(tiny_sd)), require_model(f"{tiny_sd} + lora:{path}")
    before = {name: value.clone() for name, value in load_component(base, "unet", COMPUTE).state_dict().items()}
    fused = load_component(changed, "unet", COMPUTE).state_dict()
    after = load_component(base, "unet", COMPUTE).state_dict()
    assert fused.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(before[name], fused[name]) for name in before)
    shared = load_component(base, "text_encoder", COMPUTE)
    assert load_component(changed, "text_encoder", COMPUTE) is shared


def test_the_digest_covers_loras_by_component_and_weight(tiny_sd: Path, tmp_path: Path) -> None:
    path = saved(diffusers_layout(tiny_sd, "unet"), tmp_path / "style.safetensors")
    base, full, half = (require_model(f"{tiny_sd}{part}") for part in ("", f" + lora:{path}", f" + lora:{path}*0.5"))
    assert len({base.digest, full.digest, half.digest}) == 3
    assert len({info.components["unet"].digest for info in (base, full, half)}) == 3
    assert full.components["text_encoder"].digest == base.components["text_encoder"].digest
    assert full.components["vae"].digest == base.components["vae"].digest
    assert (full.space, full.reference) == (base.space, f"{tiny_sd} + lora:{path}")


def test_a_weight_of_zero_is_the_base(tiny_sd: Path, tmp_path: Path) -> None:
    path = saved(diffusers_layout(tiny_sd, "unet", "text_encoder"), tmp_path / "style.safetensors")
    assert require_model(f"{tiny_sd} + lora:{path}*0").digest == require_model(str(tiny_sd)).digest
    assert torch.equal(ours(f"{tiny_sd} + lora:{path}*0"), ours(str(tiny_sd)))


def test_without_the_package_peft_validation_tells_how_to_install_it(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(diffusers_layout(tiny_sd, "unet"), tmp_path / "style.safetensors")
    monkeypatch.setattr(model_parts, "peft_is_installed", lambda: False)
    (absent,) = find_problems(f"{tiny_sd} + lora:{path}")
    assert (absent.code, absent.hint) == ("missing.peft", 'pip install "graphflow-diffusion[lora]"')


@pytest.mark.parametrize("make", LAYOUTS.values())
def test_a_lora_of_another_family_is_refused(make: Any, tiny_sd: Path, sdxl: Path, tmp_path: Path) -> None:
    for component in ("unet", "text_encoder_2"):
        path = saved(make(sdxl, component), tmp_path / f"{component}.safetensors")
        found = problem(f"{tiny_sd} + lora:{path}")
        assert (found.code, "is not made for the model" in found.message) == ("model.lora", True)
    path = saved(make(tiny_sd, "unet"), tmp_path / "small.safetensors")
    found = problem(f"{sdxl} + lora:{path}")
    assert "which takes a text encoding of 32, expected 72" in found.message


@pytest.mark.parametrize(
    ("name", "shapes", "what"),
    [
        ("xl", ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, 640), "2048 (Stable Diffusion XL)"),
        ("flux", ("lora_unet_double_blocks_0_img_attn_qkv", 3072, 9216), "expected a part of UNet2DConditionModel"),
        ("sd3", ("transformer.transformer_blocks.0.attn.to_q", 1536, 1536), "expected a part of UNet2DConditionModel"),
        ("te", ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768, 768), "self_attn_q_proj of 768 x 768"),
    ],
)
def test_full_size_loras_are_told_apart_by_their_widths(
    name: str, shapes: tuple[str, int, int], what: str, tiny_sd: Path, tmp_path: Path
) -> None:
    module, width, height = shapes
    tensors = {
        f"{module}.lora_down.weight": torch.empty(8, width, device="meta"),
        f"{module}.lora_up.weight": torch.empty(height, 8, device="meta"),
    }
    path = tmp_path / f"{name}.safetensors"
    save_header_only(tensors, path)
    found = problem(f"{tiny_sd} + lora:{path}")
    assert (found.code, what in found.message) == ("model.lora", True), found.message


@pytest.mark.parametrize(
    ("tensors", "code", "what"),
    [
        ({"unet.a.hada_w1_a": torch.zeros(2, 2)}, "model.lora", "LoHa or LoKr"),
        ({"weight": torch.zeros(2)}, "model.lora", "is no LoRA (its tensors: weight"),
        (
            {
                "unet.a.lora_A.weight": torch.zeros(1, 2),
                "unet.a.lora_B.weight": torch.zeros(2, 1),
                "unet.a.dora_scale": torch.zeros(2),
            },
            "model.lora",
            "is a DoRA",
        ),
    ],
)
def test_what_diffusers_cannot_read_is_refused(tensors: Tensors, code: str, what: str, tmp_path: Path) -> None:
    path = saved(tensors, tmp_path / "style.safetensors")
    with pytest.raises(UnusableError) as caught:
        open_lora(str(path))
    assert (caught.value.problem.code, what in caught.value.problem.message) == (code, True)


def test_a_damaged_lora_is_told_as_any_damaged_file(tiny_sd: Path, tmp_path: Path) -> None:
    path = saved(diffusers_layout(tiny_sd, "unet"), tmp_path / "style.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    found = problem(f"{tiny_sd} + lora:{path}")
    assert (found.code, "is cut off" in found.message) == ("model.damaged", True)


def test_there_are_no_loras_for_a_latent_upscaler(tiny_sd: Path, tmp_path: Path) -> None:
    path = saved(diffusers_layout(tiny_sd, "unet"), tmp_path / "style.safetensors")
    assert "for which there are no LoRAs" in problem(f"pocket-x2 + lora:{path}").message


def test_a_lora_in_a_repository(tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--styles" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    tensors = diffusers_layout(tiny_sd, "unet")
    assert problem(f"{tiny_sd} + lora:someone/styles").code == "missing.model_file"
    saved(tensors, snapshot / "one.safetensors")
    assert isinstance(find_model(f"{tiny_sd} + lora:someone/styles"), ModelInfo)
    saved(tensors, snapshot / "two.safetensors")
    found = problem(f"{tiny_sd} + lora:someone/styles")
    assert "holds 2 files, expected the name of one LoRA: one.safetensors, two.safetensors" in found.message
    assert "lora:someone/styles/one.safetensors" in found.hint
    assert isinstance(find_model(f"{tiny_sd} + lora:someone/styles/two.safetensors*0.5"), ModelInfo)
    saved(tensors, snapshot / "pytorch_lora_weights.safetensors")
    assert isinstance(find_model(f"{tiny_sd} + lora:someone/styles"), ModelInfo)


def test_problems_of_all_loras_are_told_at_once(tiny_sd: Path, tmp_path: Path) -> None:
    bad = saved({"weight": torch.zeros(2)}, tmp_path / "bad.safetensors")
    problems = find_problems(f"{tiny_sd} + lora:{bad} + lora:{tmp_path}/absent.safetensors + vae:{bad}")
    assert all(isinstance(found, Problem) for found in problems)
    assert sorted(found.code for found in problems) == ["missing.model", "model.lora", "model.vae"]


def test_the_weights_of_a_lora_are_read_from_the_file_itself(tiny_sd: Path, tmp_path: Path) -> None:
    path = saved(diffusers_layout(tiny_sd, "unet"), tmp_path / "style.safetensors")
    before = require_model(f"{tiny_sd} + lora:{path}").digest
    saved({name: 2 * value for name, value in load_file(str(path)).items()}, path)
    assert require_model(f"{tiny_sd} + lora:{path}").digest != before
