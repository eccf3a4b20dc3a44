"""Kandinsky 2.2, prior and decoder: equal to direct calls of diffusers in fp32, and its traps."""

from __future__ import annotations

import itertools
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.nodes import DecodeLatent, Denoise, EncodeImage, EncodePrompt, Image2Image, Text2Image
from graphflow.nodes.diffusion.loading.components import make_scheduler
from graphflow.nodes.diffusion.models.model_info import find_model, require_model
from tests.helpers import tiny
from tests.helpers.drawing import PROMPT, drawn, goes_through_pixels
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.numerics import difference, generators
from tests.helpers.pictures import picture
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.kandinsky(tmp_path_factory.mktemp("kandinsky"))


@cache
def loaded(cls: str, folder: Path) -> Any:
    return quietly(getattr(diffusers(), cls).from_pretrained(str(folder)))


@cache
def imagined(decoder: Path, seed: int, count: int, negative: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """Call the prior as its documentation does, one picture at a time."""
    prior = loaded("KandinskyV22PriorPipeline", decoder.parent / "prior")
    pairs = [
        prior(PROMPT, negative_prompt=negative or None, generator=generator, return_dict=False)
        for generator in generators(seed, count)
    ]
    return torch.cat([wanted for wanted, _ in pairs]), torch.cat([unwanted for _, unwanted in pairs])


def direct(cls: str, decoder: Path, sampler: str = "default") -> Any:
    pipeline = loaded(cls, decoder)
    pipeline.scheduler = make_scheduler(require_model(str(decoder)), sampler)
    return pipeline


@pytest.mark.parametrize(
    ("sampler", "guidance", "negative", "batch"),
    [
        ("default", 4.0, "", 1),
        ("default", 4.0, "a cone", 2),
        ("default", 1.0, "", 1),
        ("ddim", 4.0, "", 1),
        ("dpm++_2m_karras", 4.0, "", 1),
        ("dpm++_2m_sde", 4.0, "", 2),
        ("dpm++_2s", 4.0, "", 1),
    ],
)
def test_text_to_image(decoder: Path, sampler: str, guidance: float, negative: str, batch: int) -> None:
    node = Text2Image(
        model=str(decoder), width=64, height=128, steps=3, guidance_scale=guidance, seed=5, sampler=sampler,
        batch_size=batch,
    )  # fmt: skip
    ours = drawn(node, prompt=PROMPT, negative_prompt=negative)
    wanted, unwanted = imagined(decoder, 5, batch, negative)
    theirs = direct("KandinskyV22Pipeline", decoder, sampler)(
        image_embeds=wanted, negative_image_embeds=unwanted, width=64, height=128, num_inference_steps=3,
        guidance_scale=guidance, generator=generators(5, batch), output_type="pt",
    ).images  # fmt: skip
    assert ours.pixels.shape == (batch, 3, 128, 64)
    assert difference(ours.pixels, (theirs / 2 + 0.5).clamp(0, 1)) <= 1e-4


def test_each_prompt_is_another_picture(decoder: Path) -> None:
    """So the comparisons with diffusers see which prompt went where."""
    node = Text2Image(model=str(decoder), width=64, height=64, steps=3, seed=5)
    made = [
        drawn(node, prompt=prompt, negative_prompt=negative).pixels
        for prompt, negative in ((PROMPT, ""), ("a cone", ""), (PROMPT, "a cone"))
    ]
    assert all(difference(one, other) > 1e-3 for one, other in itertools.combinations(made, 2))


@pytest.mark.parametrize(("strength", "guidance", "batch"), [(0.3, 4.0, 1), (1.0, 4.0, 2), (0.5, 1.0, 1)])
@pytest.mark.parametrize("source", ["pixels", "latents"])
def test_image_to_image_with_height_and_width_the_right_way_round(
    decoder: Path, strength: float, guidance: float, batch: int, source: str, context: Recorder
) -> None:
    pixels = picture(batch, 64, 128)
    image: Any = gf.Image(pixels)
    if source == "latents":
        image = EncodeImage(model=str(decoder)).run(image=image, context=context)
    ours = drawn(
        Image2Image(model=str(decoder), steps=10, strength=strength, guidance_scale=guidance, seed=9),
        image=image,
        prompt=PROMPT,
    )
    wanted, unwanted = imagined(decoder, 9, batch)
    theirs = direct("KandinskyV22Img2ImgPipeline", decoder)(
        image=pixels, image_embeds=wanted, negative_image_embeds=unwanted, num_inference_steps=10, strength=strength,
        guidance_scale=guidance, generator=generators(9, batch), output_type="pt",
        width=64, height=128,  # it swaps the two
    ).images  # fmt: skip
    assert ours.pixels.shape == (batch, 3, 64, 128)
    assert difference(ours.pixels, theirs) <= 1e-4


def test_an_item_of_a_batch_is_its_solo_run(decoder: Path) -> None:
    node = Text2Image(model=str(decoder), width=64, height=64, steps=3, seed=7, batch_size=3)
    together = drawn(node, prompt=PROMPT)
    for index in range(3):
        alone = drawn(node.model_copy(update={"seed": 7 + index, "batch_size": 1}), prompt=PROMPT)
        assert difference(together.pixels[index : index + 1], alone.pixels) <= 1e-3


def test_the_space_is_its_own_whatever_factor_the_configuration_tells(decoder: Path) -> None:
    info = require_model(str(decoder))
    assert info.autoencoder["scaling_factor"] == 0.18215
    assert (info.space, info.family.name, info.text_space) == (
        "movq",
        "kandinsky-2.2",
        f"kandinsky-2.2-{tiny.IMAGINED}",
    )


def codes(workflow: gf.Workflow) -> set[str]:
    try:
        return {problem.code for problem in workflow.bind().warnings}
    except gf.WorkflowError as error:
        return {problem.code for problem in error.problems}


def test_latents_of_stable_diffusion_go_through_pixels_and_the_plan_shows_it(decoder: Path, tiny_sd: Path) -> None:
    goes_through_pixels(decoder, tiny_sd, steps=5)


def test_another_model_takes_its_latents_through_pixels(decoder: Path, tiny_sd: Path) -> None:
    workflow = gf.Workflow()
    made = workflow.add("made", Text2Image(model=str(decoder), width=64, height=64, steps=2), prompt=PROMPT)
    workflow.output("out", workflow.add("decode", DecodeLatent(model=str(tiny_sd)), latent=made))
    assert codes(workflow) == {"type.hop"}


def test_prompts_go_through_the_prior_only(decoder: Path) -> None:
    from graphflow.nodes import DenoisePrior

    assert [problem.code for problem in EncodePrompt(model=str(decoder)).check({})] == ["model.unsupported"]
    assert [problem.code for problem in DenoisePrior(model="pocket").check({})] == ["model.unsupported"]


def test_strength_without_steps_and_unknown_sizes_are_refused(decoder: Path) -> None:
    assert [each.code for each in Image2Image(model=str(decoder), steps=2, strength=0.2).check({})] == [
        "value.strength_steps"
    ]
    found = [each.code for each in Text2Image(model=str(decoder), width=72, height=64).check({})]
    assert found == ["value.size_multiple"]
    assert "value.hand_over" in [each.code for each in Denoise(model=str(decoder), denoising_end=0.5).check({})]


def test_a_seed_for_an_encoding_that_draws_nothing_is_an_error(decoder: Path, tiny_sd: Path) -> None:
    def codes(model: Path) -> list[str]:
        return [found.code for found in EncodeImage(model=str(model), seed=3).check({"image": gf.PortType(gf.Image)})]

    assert codes(decoder) == ["value.ignored"]
    assert codes(tiny_sd) == []


def test_where_the_prior_is(decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tmp_path / "painter"
    shutil.copytree(decoder, moved)
    problem = find_model(str(moved))
    assert isinstance(problem, gf.Problem)
    assert problem.code == "model.prior"
    (moved / "README.md").write_text(
        f"---\nlicense: x\nprior:\n- {decoder.parent / 'prior'}\ntags:\n- y\n---\n# Painter\n"
    )
    assert require_model(str(moved)).components["prior"].folder == decoder.parent / "prior" / "prior"
    lonely = tmp_path / "lonely-decoder"
    shutil.copytree(decoder, lonely)
    problem = find_model(str(lonely))
    assert isinstance(problem, gf.Problem)
    assert problem.code == "missing.model"
    assert "lonely-prior" in problem.message
