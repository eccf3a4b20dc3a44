"""SDXL base and refiner: equal to direct calls of diffusers in fp32, and handing over within one noise schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.nodes import DecodeLatent, Image2Image, Text2Image
from graphflow.nodes.diffusion.loading.components import make_scheduler
from graphflow.nodes.diffusion.models.model_info import find_model, require_model
from graphflow.nodes.diffusion.sampling.samplers import steps_between
from tests.helpers import tiny
from tests.helpers.drawing import PROMPT, drawn
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.numerics import difference, generators
from tests.helpers.pictures import depth, picture

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    return tiny.sdxl_refiner(tmp_path_factory.mktemp("refiner"), base)


def direct(cls: str, folder: Path, sampler: str = "default", **parts: Any) -> Any:
    """A pipeline as its documentation loads it."""
    pipeline = quietly(getattr(diffusers(), cls).from_pretrained(str(folder), add_watermarker=False, **parts))
    pipeline.scheduler = make_scheduler(require_model(str(folder)), sampler)
    return pipeline


def test_what_base_and_refiner_are_is_read_from_their_files(base: Path, refiner: Path) -> None:
    one, two = require_model(str(base)), require_model(str(refiner))
    assert (one.family.name, two.family.name) == ("sdxl", "sdxl-refiner")
    assert one.space == two.space == "sdxl"
    assert one.text_space != two.text_space
    assert (one.zeros_for_no_negative, two.zeros_for_no_negative) == (True, False)
    problem = find_model(str(refiner), ("text-to-image",))
    assert isinstance(problem, gf.Problem)
    assert "of the family sdxl-refiner, expected one of the families stable-diffusion, sdxl" in problem.message


@pytest.mark.parametrize(
    ("sampler", "steps", "guidance", "negative", "batch"),
    [("default", 4, 5.0, "", 1), ("default", 3, 1.0, "", 2), ("dpm++_2m_karras", 4, 5.0, "a cone", 2)],
)
def test_text_to_image(base: Path, sampler: str, steps: int, guidance: float, negative: str, batch: int) -> None:
    node = Text2Image(
        model=str(base), width=64, height=80, steps=steps, guidance_scale=guidance, seed=5, sampler=sampler,
        batch_size=batch,
    )  # fmt: skip
    ours = drawn(node, prompt=PROMPT, negative_prompt=negative)
    theirs = direct("StableDiffusionXLPipeline", base, sampler)(
        PROMPT, negative_prompt=negative or None, width=64, height=80, num_inference_steps=steps,
        guidance_scale=guidance, num_images_per_prompt=batch, generator=generators(5, batch), output_type="pt",
    ).images  # fmt: skip
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize("model", ["base", "refiner"])
@pytest.mark.parametrize(("strength", "guidance", "batch"), [(0.3, 5.0, 1), (1.0, 1.0, 2)])
def test_image_to_image(
    model: str, strength: float, guidance: float, batch: int, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(model)
    pixels = picture(batch)
    node = Image2Image(model=str(folder), steps=10, strength=strength, guidance_scale=guidance, seed=9)
    ours = drawn(node, image=gf.Image(pixels), prompt=PROMPT)
    theirs = direct("StableDiffusionXLImg2ImgPipeline", folder)(
        [PROMPT] * batch, image=pixels, num_inference_steps=10, strength=strength, guidance_scale=guidance,
        generator=generators(9, batch), output_type="pt",
    ).images  # fmt: skip
    assert difference(ours.pixels, theirs) <= 1e-4


def chain(base: Path, second: Path, end: float, length: int, **fields: Any) -> gf.Workflow:
    workflow = gf.Workflow()
    first = workflow.add(
        "first",
        Text2Image(model=str(base), width=64, height=64, steps=length, seed=5, denoising_end=end),
        prompt=PROMPT,
    )
    last = workflow.add("last", Image2Image(model=str(second), seed=6, **fields), image=first, prompt=PROMPT)
    workflow.output("out", last)
    return workflow


@pytest.mark.parametrize("end", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("steps", [5, 8])
def test_a_hand_over_to_the_same_unet_is_bit_equal_to_one_unbroken_run(base: Path, end: float, steps: int) -> None:
    model = Text2Image(model=str(base), width=64, height=64, steps=steps, seed=5)
    whole = drawn(model, prompt=PROMPT)
    assert torch.equal(chain(base, base, end, steps).run()["out"].pixels, whole.pixels)


def test_base_and_refiner_equal_the_ensemble_of_diffusers(base: Path, refiner: Path) -> None:
    ours = chain(base, refiner, 0.8, 10).run()["out"]
    noisy = direct("StableDiffusionXLPipeline", base)(
        PROMPT, width=64, height=64, num_inference_steps=10, denoising_end=0.8, generator=generators(5, 1),
        output_type="latent",
    ).images  # fmt: skip
    theirs = direct("StableDiffusionXLImg2ImgPipeline", refiner)(
        PROMPT, image=noisy, num_inference_steps=10, denoising_start=0.8, generator=generators(6, 1), output_type="pt"
    ).images
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sampler", ["default", "ddim", "ddpm", "euler_a"])
def test_the_plan_counts_the_steps_of_a_part_as_the_scheduler_has_them(
    base: Path, spacing: str, sampler: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    pipeline = diffusers().StableDiffusionXLPipeline.from_pretrained(str(base), add_watermarker=False)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, timestep_spacing=spacing)
    pipeline.save_pretrained(folder)
    info = require_model(str(folder))
    for steps in (1, 7, 20, 50):
        scheduler = make_scheduler(info, sampler)
        scheduler.set_timesteps(steps)
        for share in (0.1, 0.25, 0.5, 0.8, 0.95):
            cutoff = round(1000 - share * 1000)
            before = sum(float(timestep) >= cutoff for timestep in scheduler.timesteps)
            assert steps_between(info, sampler, steps, None, share) == before
            assert steps_between(info, sampler, steps, share, None) == len(scheduler.timesteps) - before


def problems(workflow: gf.Workflow) -> dict[str, str]:
    try:
        graph = workflow.bind()
    except gf.WorkflowError as error:
        return {problem.code: problem.message for problem in error.problems}
    return {problem.code: problem.message for problem in graph.warnings}


def test_hand_overs_that_would_go_wrong_in_silence_are_refused(base: Path, refiner: Path, tiny_sd: Path) -> None:
    assert problems(chain(base, refiner, 0.8, 10)) == {}
    assert "found 12 steps for latents that were left on a schedule of 10" in problems(
        chain(base, refiner, 0.8, 10, steps=12)
    ).get("value.hand_over_steps", "")
    assert "value.strength_noise" in problems(chain(base, refiner, 0.8, 10, strength=0.3))
    assert "expected more" in problems(chain(base, refiner, 0.8, 10, denoising_end=0.5))["value.hand_over"]
    alone = gf.Workflow()
    alone.output("out", alone.add("draw", Text2Image(model=str(tiny_sd), denoising_end=0.8), prompt=PROMPT))
    assert "hands nothing over" in problems(alone)["value.hand_over"]


def test_a_picture_is_not_decoded_from_latents_that_are_still_noisy(base: Path) -> None:
    workflow = gf.Workflow()
    noisy = workflow.add("draw", Text2Image(model=str(base), denoising_end=0.8), prompt=PROMPT)
    workflow.output("out", workflow.add("decode", DecodeLatent(model=str(base)), latent=noisy))
    assert "noisy" in problems(workflow)["value.noisy_latent"]


@pytest.mark.parametrize("image", [False, True])
def test_controlnet(base: Path, tmp_path: Path, image: bool) -> None:
    from graphflow.nodes import ControlNetDepth

    library = diffusers()
    torch.manual_seed(7)
    whole = direct("StableDiffusionXLPipeline", base)
    network = library.ControlNetModel.from_unet(whole.unet)
    for parameter in network.parameters():  # those between it and the UNet start at zero
        parameter.data += 0.02 * torch.randn(parameter.shape)
    network.save_pretrained(tmp_path / "controlnet")
    strength: dict[str, Any] = {"strength": 0.6} if image else {}
    node = ControlNetDepth(
        model=str(base), controlnet=str(tmp_path / "controlnet"), steps=5, guidance_scale=5.0, seed=2,
        **strength,
    )  # fmt: skip
    maps, pixels = depth(1), picture(1)
    given = {"image": gf.Image(pixels)} if image else {}
    ours = drawn(node, prompt=PROMPT, depth_map=gf.DepthMap(maps), **given)
    cls = library.StableDiffusionXLControlNetImg2ImgPipeline if image else library.StableDiffusionXLControlNetPipeline
    pipeline = quietly(cls(**whole.components, controlnet=network, add_watermarker=False))
    control = maps.expand(1, 3, -1, -1)
    arguments: dict[str, Any] = {"image": control}
    if image:
        arguments = {"image": pixels, "control_image": control, "strength": 0.6}
    theirs = pipeline(
        PROMPT, num_inference_steps=5, guidance_scale=5.0, controlnet_conditioning_scale=1.0,
        generator=generators(2, 1), output_type="pt", **arguments,
    ).images  # fmt: skip
    assert difference(ours.pixels, theirs) <= 1e-4
