"""Pictures that an accelerator draws, beside those of the CPU and of diffusers on the same device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.nodes import ControlNetDepth, EstimateDepth, Image2Image, SuperRes, Text2Image, Upscale
from tests.helpers import tiny
from tests.helpers.depth_models import KINDS, save_depth_model
from tests.helpers.drawing import PROMPT
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.numerics import difference
from tests.helpers.pictures import picture

WORKFLOWS = Path(__file__).parents[2] / "workflows"
SAME = 1e-3
"""The most that another order of summing changes a pixel of [0, 1] in float32, over all steps of a chain."""
REDUCED = 0.1
"""The most that 10 bits of mantissa change the worst pixel, and a fifth of that on average."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> dict[str, str]:
    made = {name: str(build(tmp_path_factory.mktemp(name))) for name, build in tiny.FAMILIES.items()}
    return {"pocket": "pocket", "stable-diffusion": str(tiny_sd), **made}


def pixels_of(run: gf.Run) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in run.items():
        if isinstance(value, (gf.Image, gf.DepthMap)):
            yield name, value.pixels.float().cpu()


def assert_near(made: torch.Tensor, expected: torch.Tensor, dtype: str) -> None:
    furthest, mean = difference(made, expected), float((made - expected).abs().mean())
    print(f"{dtype}: {furthest:.1e}, mean {mean:.1e}")
    assert torch.isfinite(made).all()
    if dtype == "float32":
        assert furthest <= SAME
    else:
        assert furthest <= REDUCED or mean <= REDUCED / 5


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", sorted(path.stem for path in WORKFLOWS.glob("*.json")))
def test_every_workflow_draws_what_the_cpu_draws(name: str, dtype: str, device: str, tmp_path: Path) -> None:
    if name == "prompt_weighting":
        pytest.importorskip("compel")
    loaded = gf.load(name)
    values: dict[str, Any] = {"image": gf.Image(picture(1)), "text": PROMPT}
    given = {
        name: values[field.type] for name, field in loaded.inputs.items() if "default" not in field.model_fields_set
    }
    expected = dict(pixels_of(loaded.run(out=tmp_path / "cpu", device="cpu", dtype="float32", cache=False, **given)))
    made = dict(pixels_of(loaded.run(out=tmp_path / "made", device=device, dtype=dtype, cache=False, **given)))
    assert made.keys() == expected.keys() != set()
    for key, pixels in made.items():
        if dtype == "float32":
            assert_near(pixels, expected[key], dtype)
        else:  # twenty steps may lead elsewhere; it is a picture of the same thing all the same
            assert float((pixels - expected[key]).abs().mean()) <= 0.05


def cases() -> Iterator[tuple[str, str]]:
    for family in ("pocket", "stable-diffusion", *tiny.FAMILIES):
        for dtype in ("float32", "float16", "bfloat16"):
            yield family, dtype


@pytest.mark.parametrize(("family", "dtype"), list(cases()))
def test_every_family_draws_and_redraws_what_the_cpu_does(
    family: str, dtype: str, device: str, models: dict[str, str]
) -> None:
    model, w = models[family], gf.Workflow()
    guidance = 0.0 if family == "flux-schnell" else 3.0
    start: Any = w.input("image", "image")
    if family != "sdxl-refiner":
        draw = Text2Image(model=model, width=64, height=64, steps=3, guidance_scale=guidance, seed=1)
        start = w.add("draw", draw, prompt=PROMPT)
        w.output("drawn", start)
    redraw = Image2Image(model=model, steps=4, strength=0.5, guidance_scale=guidance, seed=2)
    w.output("redrawn", w.add("redraw", redraw, image=start, prompt=PROMPT))
    given: dict[str, Any] = {"image": gf.Image(picture(1))}
    expected = dict(pixels_of(w.run(device="cpu", dtype="float32", cache=False, **given)))
    for name, pixels in pixels_of(w.run(device=device, dtype=dtype, cache=False, **given)):
        assert_near(pixels, expected[name], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "node",
    [
        ControlNetDepth(steps=3, seed=3), Upscale(seed=3), SuperRes(seed=3, tile_size=48, tile_overlap=8),
        EstimateDepth(),
    ],
    ids=lambda node: node.type_id,
)  # fmt: skip
def test_every_other_node_does_what_it_does_on_the_cpu(node: gf.Node, dtype: str, device: str) -> None:
    w = gf.Workflow()
    fields: dict[str, Any] = {"prompt": PROMPT} if "prompt" in node.signature().inputs else {}
    w.output("out", w.add("node", node, image=w.input("image", "image"), **fields))
    image = gf.Image(picture(1))
    expected = dict(pixels_of(w.run(image=image, device="cpu", dtype="float32", cache=False)))
    made = dict(pixels_of(w.run(image=image, device=device, dtype=dtype, cache=False)))
    assert_near(made["out"], expected["out"], dtype)


@pytest.mark.parametrize("estimator", sorted(KINDS))
def test_depth_models_of_transformers(estimator: str, device: str, tmp_path: Path) -> None:
    w = gf.Workflow()
    folder = save_depth_model(estimator, tmp_path / "model")
    w.output("out", w.add("depth", EstimateDepth(model=str(folder)), image=w.input("image", "image")))
    image = gf.Image(picture(1))
    expected = w.run(image=image, device="cpu", dtype="float32", cache=False)["out"].pixels
    assert_near(
        w.run(image=image, device=device, dtype="float32", cache=False)["out"].pixels.cpu(), expected, "float32"
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_chain_is_what_diffusers_computes_there(dtype: str, device: str, tiny_sd: Path) -> None:
    kind = getattr(torch, dtype)
    drawn = diffusers().StableDiffusionPipeline.from_pretrained(str(tiny_sd), dtype=kind).to(device)
    redrawn = diffusers().StableDiffusionImg2ImgPipeline(**drawn.components, requires_safety_checker=False)
    settings: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": 5.0}
    latents = quietly(drawn)(
        PROMPT, width=64, height=64, output_type="latent", generator=torch.Generator("cpu").manual_seed(1), **settings
    ).images
    theirs = quietly(redrawn)(
        PROMPT, image=latents, strength=0.5, output_type="pt", generator=torch.Generator("cpu").manual_seed(2),
        **settings,
    ).images.float().cpu()  # fmt: skip
    w, model = gf.Workflow(), str(tiny_sd)
    draft = w.add(
        "draft", Text2Image(model=model, width=64, height=64, steps=6, guidance_scale=5.0, seed=1), prompt=PROMPT
    )
    redraw = Image2Image(model=model, steps=6, strength=0.5, guidance_scale=5.0, seed=2)
    w.output("out", w.add("redraw", redraw, image=draft, prompt=PROMPT))
    ours = w.run(device=device, dtype=dtype, cache=False)["out"].pixels.float().cpu()
    print(f"{dtype}: {difference(ours, theirs):.1e}")
    assert float(theirs.std()) > 0.01
    # the pipeline rounds its picture to the dtype, and to 1e-3 or 8e-3 of a pixel by that
    assert difference(ours, theirs) <= {"float32": 1e-4, "float16": 3e-3, "bfloat16": 2e-2}[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", ["pocket", "stable-diffusion", *tiny.FAMILIES])
def test_points_of_a_sweep_that_go_together_are_what_they_are_alone(
    family: str, dtype: str, device: str, models: dict[str, str]
) -> None:
    if family == "sdxl-refiner":
        pytest.skip("it only redraws")
    w = gf.Workflow()
    guidance = 0.0 if family == "flux-schnell" else 3.0
    draw = Text2Image(model=models[family], width=64, height=64, steps=3, guidance_scale=guidance)
    w.output("out", w.add("draw", draw, prompt=PROMPT, seed=w.input("seed", "seed")))
    seeds = {"seed": [1, 2, 3, 4, 5]}
    alone, together = (w.run(device=device, dtype=dtype, cache=False, sweep=seeds, max_batch=count) for count in (1, 4))
    for one, other in zip(together.points, alone.points, strict=True):
        assert_near(one["out"].pixels.float().cpu(), other["out"].pixels.float().cpu(), dtype)


def test_noise_is_the_same_on_every_device(device: str) -> None:
    """With one step of almost no strength the picture differs from the noise by little more than the device does."""
    w = gf.Workflow()
    w.output("out", w.add("draw", Text2Image(steps=1, guidance_scale=1.0, seed=5), prompt=PROMPT))
    other = gf.Workflow()
    other.output("out", other.add("draw", Text2Image(steps=1, guidance_scale=1.0, seed=6), prompt=PROMPT))
    cpu, there = (w.run(device=each, dtype="float32", cache=False)["out"].pixels.cpu() for each in ("cpu", device))
    unlike = other.run(device=device, dtype="float32", cache=False)["out"].pixels.cpu()
    assert difference(there, cpu) <= SAME < difference(unlike, cpu)
