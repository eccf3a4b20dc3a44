"""Stable Diffusion 3: equal to direct calls of diffusers in fp32, with T5 and without, and how it counts steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.nodes import ControlNetDepth, Denoise, EncodeImage, EncodePrompt, Image2Image, Text2Image
from graphflow.nodes.diffusion.families import Defaults
from graphflow.nodes.diffusion.loading.components import pool
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers import tiny
from tests.helpers.drawing import PROMPT, drawn, goes_through_pixels
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.numerics import difference, generators
from tests.helpers.pictures import picture
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric

BETWEEN = f"{PROMPT}, a red cone on green grass and a blue ball on a cube, a red ball and a blue cube"
"""Longer than the window of CLIP, shorter than T5's."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.sd3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def without_t5(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.sd3(tmp_path_factory.mktemp("sd3-without-t5"), t5=False)


def direct(cls: str, folder: Path) -> Any:
    """A pipeline as its documentation loads it."""
    absent = {} if (folder / "text_encoder_3").exists() else {"text_encoder_3": None, "tokenizer_3": None}
    return quietly(getattr(diffusers(), cls).from_pretrained(str(folder), **absent))


def test_what_it_is_is_read_from_its_files(whole: Path, without_t5: Path) -> None:
    one, two = require_model(str(whole)), require_model(str(without_t5))
    assert (one.family.name, one.space, one.latent_channels) == ("sd3", "sd3", 16)
    assert (one.size_multiple, one.image_multiple, one.native_width) == (16, 16, 64)
    assert one.defaults["text-to-image"] == Defaults(steps=28, guidance_scale=7.0)
    assert one.defaults["image-to-image"] == Defaults(steps=50, guidance_scale=7.0, strength=0.6)
    assert "text_encoder_3" in one.components
    assert "text_encoder_3" not in two.components
    assert one.text_space == two.text_space == f"sd3-{tiny.JOINT_SD3}"


@pytest.mark.parametrize(
    ("model", "steps", "guidance", "negative", "batch"),
    [
        ("whole", 4, 7.0, "", 1),
        ("whole", 3, 1.0, "", 2),
        ("whole", 3, 5.0, "a cone", 2),
        ("without_t5", 3, 7.0, "a cone", 1),
    ],
)
def test_text_to_image(
    model: str, steps: int, guidance: float, negative: str, batch: int, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(model)
    node = Text2Image(
        model=str(folder), width=64, height=96, steps=steps, guidance_scale=guidance, seed=5, batch_size=batch
    )
    ours = drawn(node, prompt=PROMPT, negative_prompt=negative)
    theirs = direct("StableDiffusion3Pipeline", folder)(
        PROMPT, negative_prompt=negative or None, width=64, height=96, num_inference_steps=steps,
        guidance_scale=guidance, num_images_per_prompt=batch, generator=generators(5, batch), output_type="pt",
    ).images  # fmt: skip
    assert ours.pixels.shape == (batch, 3, 96, 64)
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize(
    ("model", "strength", "guidance", "negative", "batch"),
    [
        ("whole", 0.6, 7.0, "a cone", 1), ("whole", 0.25, 1.0, "", 2), ("whole", 1.0, 5.0, "", 2),
        ("without_t5", 0.5, 7.0, "", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", ["pixels", "latents"])
def test_image_to_image(
    model: str, strength: float, guidance: float, negative: str, batch: int, source: str, context: Recorder,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    folder: Path = request.getfixturevalue(model)
    pixels = picture(batch, 64, 96)
    image: Any = gf.Image(pixels)
    if source == "latents":
        image = EncodeImage(model=str(folder)).run(image=image, context=context)
    node = Image2Image(model=str(folder), steps=6, strength=strength, guidance_scale=guidance, seed=9)
    ours = drawn(node, image=image, prompt=PROMPT, negative_prompt=negative)
    theirs = direct("StableDiffusion3Img2ImgPipeline", folder)(
        [PROMPT] * batch, negative_prompt=[negative] * batch, image=pixels if source == "pixels" else image.data,
        width=96, height=64, num_inference_steps=6, strength=strength, guidance_scale=guidance,
        generator=generators(9, batch), output_type="pt",
    ).images  # fmt: skip
    assert ours.pixels.shape == (batch, 3, 64, 96)
    assert difference(ours.pixels, theirs) <= 1e-4


def test_the_picture_depends_on_every_text_encoder(whole: Path, context: Recorder) -> None:
    first, second = (EncodePrompt(model=str(whole)).run(text=text, context=context) for text in (PROMPT, "a cone"))
    clip = first.embeds.shape[1] - (require_model(str(whole)).family.text_encoders["text_encoder_3"].window or 0)
    assert clip == 32
    for part in (slice(None, clip), slice(clip, None)):
        assert difference(first.embeds[:, part], second.embeds[:, part]) > 1e-3
    assert first.pooled is not None
    assert first.pooled.shape == (1, tiny.CLIP_SD3)


def test_an_item_of_a_batch_is_its_solo_run(whole: Path) -> None:
    node = Text2Image(model=str(whole), width=64, height=64, steps=3, seed=7, batch_size=3)
    together = drawn(node, prompt=PROMPT)
    for index in range(3):
        alone = drawn(node.model_copy(update={"seed": 7 + index, "batch_size": 1}), prompt=PROMPT)
        assert difference(together.pixels[index : index + 1], alone.pixels) <= 1e-4
    assert difference(together.pixels[:1], together.pixels[1:2]) > 1e-2


def test_denoising_loads_neither_text_encoders_nor_autoencoder(whole: Path, context: Recorder) -> None:
    encode = EncodePrompt(model=str(whole))
    prompts = {"positive": encode.run(text="a", context=context), "negative": encode.run(text="", context=context)}
    latent = EncodeImage(model=str(whole)).run(image=gf.Image(picture(1)), context=context)
    pool.clear()
    Denoise(model=str(whole), steps=2, strength=0.5).run(latent=latent, **prompts, context=context)
    assert len(pool) == 1


@pytest.mark.parametrize("steps", [1, 4, 7, 10, 28, 100])
@pytest.mark.parametrize("strength", [0.01, 0.29, 0.55, 0.58, 0.6, 0.999, 1.0])
def test_the_plan_counts_the_steps_that_the_pipeline_takes(whole: Path, steps: int, strength: float) -> None:
    info = require_model(str(whole))
    pipeline = diffusers().StableDiffusion3Img2ImgPipeline
    scheduler = diffusers().FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    own = type("Own", (), {"scheduler": scheduler})()
    timesteps, count = pipeline.get_timesteps(own, steps, strength, "cpu")
    assert info.family.denoise_steps(steps, strength) == count == len(timesteps)
    assert Denoise(model=str(whole), steps=steps, strength=strength).progress_steps({}) == count


@pytest.mark.parametrize(("steps", "strength", "count"), [(4, 0.6, 3), (10, 0.3, 3), (5, 0.01, 1)])
def test_as_many_steps_run_as_the_plan_counts(
    whole: Path, steps: int, strength: float, count: int, context: Recorder
) -> None:
    node = Denoise(model=str(whole), steps=steps, strength=strength, guidance_scale=1.0)
    latent = EncodeImage(model=str(whole)).run(image=gf.Image(picture(1)), context=context)
    node.run(latent=latent, positive=EncodePrompt(model=str(whole)).run(text="", context=context), context=context)
    assert context.progress == [(done + 1, count) for done in range(count)]
    assert node.progress_steps({}) == count


def problems(workflow: gf.Workflow) -> dict[str, gf.Problem]:
    try:
        return {problem.code: problem for problem in workflow.bind().warnings}
    except gf.WorkflowError as error:
        return {problem.code: problem for problem in error.problems}


def redrawing(model: Path, **fields: Any) -> gf.Workflow:
    workflow = gf.Workflow()
    first = workflow.add("first", Text2Image(model=str(model), steps=2), prompt=PROMPT)
    workflow.output("out", workflow.add("again", Image2Image(model=str(model), **fields), image=first, prompt=PROMPT))
    return workflow


def test_what_is_said_of_strength_is_true(whole: Path, tiny_sd: Path) -> None:
    assert problems(redrawing(whole, steps=10, strength=0.01)) == {}
    assert problems(redrawing(whole, steps=10, strength=0.25)) == {}
    assert "int(10 * 0.01) = 0" in problems(redrawing(tiny_sd, steps=10, strength=0.01))["value.strength_steps"].message
    more = problems(redrawing(whole, steps=100, strength=0.55))["value.strength_share"]
    assert more.message == "strength 0.55 of 100 steps runs 56 denoise steps, one more than asked for"
    assert more.hint == "a step that is begun counts; strength 0.549 runs 55"
    assert require_model(str(whole)).family.denoise_steps(100, 0.549) == 55
    less = problems(redrawing(tiny_sd, steps=50, strength=0.58))["value.strength_share"]
    assert less.message == "strength 0.58 of 50 steps runs 28 denoise steps, one less than asked for"
    assert less.hint == "the product is cut, not rounded; strength 0.582 runs 29"
    nothing = problems(redrawing(whole, steps=10, strength=1e-18))["value.strength_steps"]
    assert "int(" not in nothing.message
    assert nothing.hint == "use a strength of at least 0.1 with 10 steps"


def test_a_prompt_that_only_t5_reads_to_its_end_is_told_of_once(whole: Path, context: Recorder) -> None:
    encode = EncodePrompt(model=str(whole))
    encode.run(text=PROMPT, context=context)
    assert context.warnings == []
    ours = encode.run(text=BETWEEN, context=context)
    (warning,) = context.warnings
    assert warning.startswith("text_encoder and text_encoder_2 read only the first 30 of the ")
    assert "text_encoder_3 the whole of it" in warning
    with torch.no_grad():
        theirs, _, pooled, _ = direct("StableDiffusion3Pipeline", whole).encode_prompt(
            BETWEEN, None, None, do_classifier_free_guidance=False
        )
    assert difference(ours.embeds, theirs) <= 1e-4
    assert ours.pooled is not None
    assert difference(ours.pooled, pooled) <= 1e-4


def test_a_prompt_that_nothing_reads_to_its_end_is_refused(whole: Path, without_t5: Path, context: Recorder) -> None:
    with pytest.raises(ValueError, match=f"expected at most {tiny.T5_WINDOW - 1} for the model"):
        EncodePrompt(model=str(whole)).run(text=f"{BETWEEN} {BETWEEN}", context=context)
    with pytest.raises(ValueError, match="expected at most 30 for the model"):
        EncodePrompt(model=str(without_t5)).run(text=BETWEEN, context=context)
    assert context.warnings == []


def test_sizes_are_multiples_of_two_cells(whole: Path, context: Recorder) -> None:
    (problem,) = Text2Image(model=str(whole), width=72, height=64).check({})
    assert problem.code == "value.size_multiple"
    assert "a multiple of 16" in problem.message
    cut = drawn(Image2Image(model=str(whole), steps=2), image=gf.Image(picture(1, 64, 72)), prompt=PROMPT)
    assert cut.pixels.shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="multiples of 16"):
        EncodeImage(model=str(whole)).run(image=gf.Image(picture(1, 64, 72)), context=context)
    odd = gf.Latent(torch.zeros(1, 16, 8, 9), "sd3", str(whole))
    positive = EncodePrompt(model=str(whole)).run(text="", context=context)
    with pytest.raises(ValueError, match="found latents of 9 x 8 cells, expected multiples of 2"):
        Denoise(model=str(whole), guidance_scale=1.0).run(latent=odd, positive=positive, context=context)


def test_latents_of_another_family_go_through_pixels_and_the_plan_shows_it(whole: Path, tiny_sd: Path) -> None:
    goes_through_pixels(whole, tiny_sd, steps=2)


def test_it_works_with_no_controlnet_and_hands_nothing_over(whole: Path) -> None:
    depths = gf.PortType(gf.DepthMap, width=64, height=64, batch=1)
    (problem,) = ControlNetDepth(model=str(whole)).check({"depth_map": depths})
    assert problem.code == "model.controlnet"
    found = [each.code for each in Text2Image(model=str(whole), denoising_end=0.8).check({})]
    assert found == ["value.hand_over"]


def test_checking_it_on_the_command_line_imports_no_torch(whole: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    node = {"type": "Text2Image", "model": str(whole), "prompt": PROMPT, "steps": 3}
    file = tmp_path / "draw.json"
    file.write_text(json.dumps({"graphflow": 1, "nodes": {"draw": node}}))
    script = (
        "import sys\nfrom graphflow.cli import main\n"
        f"status = main(['validate', {str(file)!r}])\n"
        "sys.exit('heavy' if {'torch', 'diffusers', 'transformers'} & set(sys.modules) else status)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
