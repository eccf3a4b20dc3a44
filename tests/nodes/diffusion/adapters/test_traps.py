"""Calls that go wrong in silence, or with a misleading error, in the pipelines of diffusers.

Each is refused here before weights are read, or handled so that the picture is right. Traps of one family alone are
tested beside it: `test_sdxl`, `test_kandinsky`, `test_controlnet_depth`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

import graphflow as gf
from graphflow.nodes import Denoise, EncodeImage, EncodePrompt, Image2Image, LoadImage, SuperRes, Text2Image, Upscale
from tests.helpers import tiny
from tests.helpers.drawing import drawn
from tests.helpers.numerics import difference
from tests.helpers.pictures import picture
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric

PROMPT = "a red ball on green grass"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> dict[str, str]:
    """A model of each space that has 4 channels and cells of 8 pixels: shapes cannot tell them apart."""
    return {
        "sd": str(tiny_sd),
        "sdxl": str(tiny.sdxl(tmp_path_factory.mktemp("sdxl"))),
        "movq": str(tiny.kandinsky(tmp_path_factory.mktemp("kandinsky"))),
    }


def problems(workflow: gf.Workflow) -> dict[str, gf.Problem]:
    return {problem.code: problem for problem in workflow.validate()}


@pytest.mark.parametrize("source", ["sd", "sdxl", "movq"])
@pytest.mark.parametrize("target", ["sd", "sdxl", "movq"])
def test_latents_of_another_space_never_pass_for_ones_own(source: str, target: str, models: dict[str, str]) -> None:
    """The pipelines run on them and make a wrong picture."""
    workflow = gf.Workflow()
    made = workflow.add("made", Text2Image(model=models[source], width=64, height=64, steps=2, seed=3), prompt=PROMPT)
    redraw = Image2Image(model=models[target], steps=4, strength=0.5, seed=4)
    workflow.output("out", workflow.add("again", redraw, image=made, prompt=PROMPT))
    types = [step.node.type_id for step in workflow.plan().steps]
    between = types[types.index("Denoise") + 1 :]
    if source == target:
        assert "type.hop" not in problems(workflow)
        assert between.count("DecodeLatent") == 1  # that of the result
    else:
        assert problems(workflow)["type.hop"].severity == "warning"
        assert between.index("DecodeLatent") < between.index("EncodeImage")
        first = drawn(Text2Image(model=models[source], width=64, height=64, steps=2, seed=3), prompt=PROMPT)
        assert difference(workflow.run()["out"].pixels, drawn(redraw, image=first, prompt=PROMPT).pixels) <= 1e-5


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_a_picture_with_other_channels_is_never_taken_for_latents(
    mode: str, model: str, models: dict[str, str], tmp_path: Path
) -> None:
    """RGBA has the four channels of latents: a picture of 8 times the size comes out. Grey fails in a convolution."""
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    PIL.Image.new(mode, (48, 40)).save(path)
    workflow = gf.Workflow()
    loaded = workflow.add("load", LoadImage(path=str(path)))
    node = Image2Image(model=models[model], steps=2, strength=0.5)
    workflow.output("out", workflow.add("again", node, image=loaded, prompt=PROMPT))
    assert workflow.run()["out"].pixels.shape == (1, 3, 40, 48)


@pytest.mark.parametrize("model", ["sd", "sdxl", "movq"])
@pytest.mark.parametrize(("steps", "strength"), [(4, 0.2), (1, 0.9), (50, 0.019)])
def test_a_strength_that_leaves_no_step_is_refused(
    model: str, steps: int, strength: float, models: dict[str, str], context: Recorder
) -> None:
    """The pipelines give an empty batch, or die in a reshape."""
    workflow = gf.Workflow()
    image = workflow.input("image", "image")
    node = Image2Image(model=models[model], steps=steps, strength=strength)
    workflow.output("out", workflow.add("again", node, image=image, prompt=PROMPT))
    found = problems(workflow)["value.strength_steps"]
    assert (found.severity, found.field) == ("error", "strength")
    assert "0 denoise steps" in found.message
    assert found.hint


@pytest.mark.parametrize("name", ["stregth", "cfg", "num_inference_step", "latents", "denoising_start", "eta"])
@pytest.mark.parametrize("kind", ["Text2Image", "Image2Image", "ControlNetDepth"])
def test_a_misspelt_parameter_is_refused(name: str, kind: str) -> None:
    """The pipelines swallow it."""
    text = f'{{"graphflow": 1, "nodes": {{"a": {{"type": "{kind}", "prompt": "x", "{name}": 0.5}}}}}}'
    with pytest.raises(gf.WorkflowError) as caught:
        gf.loads(text).bind()
    assert any(name in problem.message and problem.severity == "error" for problem in caught.value.problems)


def test_clean_latents_are_redrawn_and_never_taken_for_noise(models: dict[str, str], context: Recorder) -> None:
    """Text-to-image takes them as its starting noise."""
    clean = EncodeImage(model=models["sd"]).run(image=gf.Image(picture(1)), context=context)
    assert clean.noise == 0.0
    workflow = gf.Workflow()
    latent = workflow.input("latent", "latent")
    node = Denoise(model=models["sd"], steps=4, strength=0.5, guidance_scale=1.0, seed=1)
    positive = workflow.add("prompt", EncodePrompt(model=models["sd"]), text=PROMPT)
    workflow.output("out", workflow.add("redraw", node, latent=latent, positive=positive))
    redrawn = drawn(
        Image2Image(model=models["sd"], steps=4, strength=0.5, guidance_scale=1.0, seed=1), image=clean, prompt=PROMPT
    )
    assert difference(workflow.run(latent=clean)["out"].pixels, redrawn.pixels) <= 1e-6


@pytest.mark.parametrize("value", [1.0, 1, 0, 0.0, -0.5, 1.5])
def test_a_hand_over_at_an_end_of_the_schedule_is_refused(value: float, models: dict[str, str]) -> None:
    """1.0 and whole numbers are ignored."""
    text = f'{{"graphflow": 1, "nodes": {{"a": {{"type": "Text2Image", "prompt": "x", "denoising_end": {value!r}}}}}}}'
    with pytest.raises(gf.WorkflowError) as caught:
        gf.loads(text).bind()
    assert [problem.field for problem in caught.value.problems] == ["denoising_end"]


@pytest.mark.parametrize(("size", "made"), [((958, 960), (952, 960)), ((100, 70), (96, 64))])
def test_a_size_that_is_cut_down_is_reported(
    size: tuple[int, int], made: tuple[int, int], models: dict[str, str]
) -> None:
    """The pipelines cut it down in silence."""
    workflow = gf.Workflow()
    image = workflow.input("image", "image")
    node = Image2Image(model=models["sd"])
    out = workflow.add("again", node, image=image, prompt=PROMPT)
    workflow.output("out", out)
    given = gf.Image(torch.zeros(1, 3, size[1], size[0]))
    (warning,) = workflow.plan(image=given).warnings
    assert warning.code == "value.size_floored"
    assert f"{size[0]} x {size[1]} pixels is resized to {made[0]} x {made[1]}" in warning.message


def test_super_resolution_keeps_every_pixel_of_an_odd_size(one_thread: None) -> None:
    """The pipeline cuts 51 x 37 down to 48 x 36 before it enlarges."""
    made = drawn(SuperRes(steps=1), image=gf.Image(picture(1, 37, 51)))
    assert made.pixels.shape == (1, 3, 4 * 37, 4 * 51)


def test_super_resolution_of_latents_decodes_them_first() -> None:
    """The pipeline would report an incorrect configuration, or a wrong batch size."""
    workflow = gf.Workflow()
    draft = workflow.add("draft", Text2Image(steps=1), prompt=PROMPT)
    large = workflow.add("large", Upscale(steps=1), image=draft)
    workflow.output("out", workflow.add("huge", SuperRes(steps=1), image=large))
    types = [step.node.type_id for step in workflow.plan().steps]
    assert types.index("DenoiseUpscale") < types.index("DecodeLatent") < types.index("DenoiseSuperRes")
    assert problems(workflow) == {}


def test_the_upscaler_without_guidance_still_reads_its_prompt(one_thread: None) -> None:
    """The pipeline empties the prompt at guidance 0."""
    image = gf.Image(picture(1))
    made = {
        (scale, prompt): drawn(Upscale(steps=1, guidance_scale=scale, seed=1), image=image, prompt=prompt).pixels
        for scale in (0.0, 1.0)
        for prompt in ("", PROMPT)
    }
    assert torch.equal(made[0.0, PROMPT], made[1.0, PROMPT])
    assert not torch.equal(made[0.0, PROMPT], made[0.0, ""])


def test_one_prompt_serves_a_batch_of_the_upscaler(one_thread: None) -> None:
    """The pipeline wants as many prompts as pictures."""
    assert len(drawn(Upscale(steps=1), image=gf.Image(picture(3)), prompt=PROMPT)) == 3


def test_stages_of_a_chain_do_not_share_a_generator(models: dict[str, str]) -> None:
    """A generator that goes on to a second pipeline makes its noise depend on what the first one drew."""

    def chain(steps: int) -> Any:
        workflow = gf.Workflow()
        first = workflow.add(
            "first", Text2Image(model=models["sd"], steps=steps, sampler="euler_a", seed=1), prompt="x"
        )
        workflow.output("first", first)
        second = Image2Image(model=models["sd"], steps=4, strength=0.5, seed=2, sampler="euler_a")
        workflow.output("second", workflow.add("second", second, image=first, prompt=PROMPT))
        return workflow.run(keep=["first"])

    for steps in (2, 5):
        run = chain(steps)
        alone = drawn(
            Image2Image(model=models["sd"], steps=4, strength=0.5, seed=2, sampler="euler_a"),
            image=run["first"], prompt=PROMPT,
        )  # fmt: skip
        assert difference(run["second"].pixels, alone.pixels) <= 1e-6


def test_two_pipelines_on_one_checkpoint_hold_its_weights_once(models: dict[str, str], context: Recorder) -> None:
    """Loading a second pipeline with from_pretrained doubles them."""
    from graphflow.nodes.diffusion.loading import components as loading
    from graphflow.nodes.diffusion.models.model_info import require_model

    for name in ("sd", "sdxl"):
        model = models[name]
        loading.pool.clear()
        first = drawn(Text2Image(model=model, width=64, height=64, steps=1), prompt=PROMPT)
        drawn(Image2Image(model=model, steps=2, strength=0.5), image=first, prompt=PROMPT)
        held = loading.pool.nbytes("cpu")
        resident = {
            id(parameter): parameter.nbytes
            for component in require_model(model).components
            for parameter in loading.load_component(require_model(model), component, gf.Compute()).parameters()
        }
        buffers = 1 << 20  # position numbers, and what the pool reckons for a tokenizer
        assert loading.pool.nbytes("cpu") == held, "every component had been loaded, and only once"
        assert 0 <= held - sum(resident.values()) <= 4 * buffers
