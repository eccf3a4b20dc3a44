"""The nodes before they run: types, and the faults that they refuse."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from graphflow import Cancelled, Conditioning, Image, Latent, Node, PortType, Problem
from graphflow import nodes as library
from graphflow.nodes import (
    DecodeLatent,
    Denoise,
    EmptyLatent,
    EncodeImage,
    EncodePrompt,
    Image2Image,
    ResizeImage,
    Text2Image,
)
from graphflow.nodes.diffusion.families.family import cut_steps as denoise_steps
from graphflow.nodes.diffusion.models.model_info import require_model
from graphflow.nodes.diffusion.sampling.samplers import SAMPLERS
from graphflow.nodes.diffusion.shared.checks import check_strength
from tests.helpers.image_files import as_tensor, encoded, picture
from tests.helpers.recorder import Recorder

CONDITIONING = PortType(Conditioning, require_model("pocket").text_space)


def problems(node: Node, inputs: Mapping[str, PortType] | None = None) -> dict[str, Problem]:
    return {problem.code: problem for problem in node.check(inputs or {})}


def guided(**parameters: object) -> Denoise:
    return Denoise.model_validate(parameters)


INPUTS = {"latent": PortType(Latent, "pocket"), "positive": CONDITIONING, "negative": CONDITIONING}


def test_the_public_names_are_sorted_and_complete() -> None:
    assert library.__all__ == sorted(library.__all__)
    found = {name for name, value in vars(library).items() if isinstance(value, type) and issubclass(value, Node)}
    assert found == set(library.__all__)


@pytest.mark.parametrize("name", library.__all__)
def test_every_node_is_described(name: str) -> None:
    cls: type[Node] = getattr(library, name)
    assert cls.version >= 1
    assert len(cls.summary()) > 20
    assert len(inspect.cleandoc(cls.__doc__ or "").split("\n\n")) > 1
    for key, field in cls.model_fields.items():
        assert field.description, f"{name}.{key}"


def test_types_carry_space_size_and_batch() -> None:
    latent = Text2Image(width=64, height=48, batch_size=3).output_types({})["latent"]
    assert latent == PortType(Latent, "pocket", "pocket", 64, 48, 3, noise=0.0)
    assert Text2Image().output_types({})["latent"] == PortType(Latent, "pocket", "pocket", 64, 64, 1, noise=0.0)
    assert Denoise().output_types({"latent": latent})["latent"] == latent
    assert DecodeLatent().output_types({"latent": latent})["image"] == PortType(Image, None, None, 64, 48, 3)
    image = PortType(Image, width=64, height=40, batch=2)
    encoded = PortType(Latent, "pocket", "pocket", 64, 40, 2, noise=0.0)
    assert EncodeImage().output_types({"image": image})["latent"] == encoded
    assert EncodePrompt().output_types({})["conditioning"] == CONDITIONING
    assert Image2Image().input_types()["image"].space == "pocket"


def test_converters() -> None:
    pocket = PortType(Latent, "pocket", "pocket")
    assert DecodeLatent.convert(pocket, PortType(Image)) == DecodeLatent(model="pocket")
    assert EncodeImage.convert(PortType(Image), pocket) == EncodeImage(model="pocket")
    assert EncodeImage.convert(PortType(Image), PortType(Latent)) is None
    assert DecodeLatent.convert(PortType(Latent), PortType(Image)) is None


@pytest.mark.parametrize(
    "node", [Text2Image(model="nope"), Image2Image(model="nope"), Denoise(model="nope"), EmptyLatent(model="nope")]
)
def test_a_missing_model_is_one_problem(node: Node) -> None:
    node.input_types()
    assert set(node.output_types({})) == {"latent"}
    assert list(problems(node)) == ["missing.model"]


@pytest.mark.parametrize("cls", [Text2Image, EmptyLatent])
def test_sizes(cls: type[Text2Image | EmptyLatent]) -> None:
    found = list(cls(width=100, height=60).check({}))
    assert [(problem.code, problem.field, problem.hint) for problem in found] == [
        ("value.size_multiple", "width", "use 96 or 104"),
        ("value.size_multiple", "height", "use 56 or 64"),
    ]
    assert found[0].message == 'found width 100, expected a multiple of 8 for the model "pocket"'


def test_a_size_the_model_cannot_make_is_refused_when_it_runs(context: Recorder) -> None:
    with pytest.raises(ValueError, match="expected a multiple of 8"):
        EmptyLatent(width=100).run(context=context)


@pytest.mark.parametrize("node", [Text2Image(sampler="eular"), Image2Image(sampler="eular"), Denoise(sampler="eular")])
def test_an_unknown_sampler(node: Node) -> None:
    problem = problems(node, INPUTS)["value.sampler"]
    assert (problem.field, problem.hint) == ("sampler", "did you mean 'euler'?")


def test_samplers_need_nothing_that_is_not_installed() -> None:
    import diffusers

    assert all(hasattr(diffusers, sampler.scheduler) for sampler in SAMPLERS.values())


def test_strength_that_runs_nothing() -> None:
    problem = problems(Image2Image(steps=4, strength=0.2))["value.strength_steps"]
    assert (
        problem.message
        == "found strength 0.2 with 4 steps, which is int(4 * 0.2) = 0 denoise steps; expected at least 1"
    )
    assert problem.hint == "use at least 5 steps with this strength, or a strength of at least 0.25 with 4 steps"
    assert "value.strength_steps" in problems(guided(steps=4, strength=0.2), INPUTS)
    assert problems(guided(steps=5, strength=0.2), INPUTS) == {}


def test_a_step_that_is_lost_is_reported() -> None:
    (warning,) = check_strength(require_model("pocket"), 100, 0.29)
    assert (warning.code, warning.severity) == ("value.strength_share", "warning")
    assert warning.message == "strength 0.29 of 100 steps runs 28 denoise steps, one less than asked for"


@given(st.integers(1, 1000), st.floats(0.0009, 1, exclude_min=True))
def test_the_hints_about_strength_are_true(steps: int, strength: float) -> None:
    found = list(check_strength(require_model("pocket"), steps, strength))
    assert (denoise_steps(steps, strength) == 0) == any(problem.severity == "error" for problem in found)
    for problem in found:
        if problem.severity == "error":
            longer = re.search(r"at least (\d+) steps with this strength", problem.hint)
            stronger = re.search(r"a strength of at least (\S+) with (\d+) steps", problem.hint)
            assert longer or stronger
            if longer:
                assert denoise_steps(int(longer[1]), strength) >= 1
                assert denoise_steps(int(longer[1]) - 1, strength) == 0
            else:
                assert denoise_steps(1000, strength) == 0
            if stronger:
                assert denoise_steps(int(stronger[2]), float(stronger[1])) >= 1


def test_guidance_needs_a_negative_prompt(context: Recorder) -> None:
    inputs = {key: value for key, value in INPUTS.items() if key != "negative"}
    assert set(problems(guided(guidance_scale=2.0), inputs)) == {"port.missing"}
    assert problems(guided(guidance_scale=1.0), inputs) == {}
    latent = EmptyLatent().run(context=context)
    positive = EncodePrompt().run(text="", context=context)
    with pytest.raises(ValueError, match="needs a negative prompt"):
        guided(guidance_scale=2.0).run(latent=latent, positive=positive, context=context)


def test_an_image_that_is_cut_down() -> None:
    image = PortType(Image, width=102, height=70, batch=1)
    node = Image2Image()
    warning = problems(node, {"image": image})["value.size_floored"]
    assert warning.severity == "warning"
    assert warning.message == "the image of 102 x 70 pixels is resized to 100 x 68, multiples of 4"
    assert node.output_types({"image": image})["latent"] == PortType(Latent, "pocket", "pocket", 100, 68, 1, noise=0.0)
    latent = PortType(Latent, "pocket", "pocket", 102, 70)
    assert problems(node, {"image": latent}) == {}
    assert "value.image_size" in problems(node, {"image": PortType(Image, width=3, height=70)})
    assert "value.image_size" in problems(EncodeImage(), {"image": image})


def test_a_prompt_is_never_cut(context: Recorder, tiny_sd: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for model in ("pocket", str(tiny_sd)):
        window = require_model(model).prompt_window  # two of its tokens are the markers at the ends
        fits, too_long = " ".join(["red"] * (window - 2)), " ".join(["red"] * (window - 1))
        assert EncodePrompt(model=model).run(text=fits, context=context).embeds.shape[1] == window
        with pytest.raises(ValueError, match=f"found a prompt of {window - 1} tokens, expected at most {window - 2}"):
            EncodePrompt(model=model).run(text=too_long, context=context)
    assert capfd.readouterr().err == ""


def test_latents_that_do_not_fit_are_refused(context: Recorder) -> None:
    positive = EncodePrompt().run(text="a cone", context=context)
    node = guided(guidance_scale=1.0, steps=2)
    data = torch.zeros(1, 4, 8, 8)
    for latent, message in [
        (Latent(data, "sd", "x/y"), 'found latents of the space "sd", expected "pocket"'),
        (Latent(data, "pocket", "pocket", 0.5), "hands nothing over|noisy at 0.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            node.run(latent=latent, positive=positive, context=context)
        with pytest.raises(ValueError, match=message):
            DecodeLatent().run(latent=latent, context=context)
    with pytest.raises(ValueError, match="nothing to redraw"):
        guided(guidance_scale=1.0, strength=0.5).run(
            latent=Latent(data, "pocket", "pocket", 1.0), positive=positive, context=context
        )
    with pytest.raises(ValueError, match="found 2 encoded prompts for a batch of 1"):
        two = Conditioning(positive.embeds.repeat(2, 1, 1), positive.space)
        node.run(latent=Latent(data, "pocket", "pocket"), positive=two, context=context)


def test_a_prompt_for_each_item(context: Recorder, one_thread: None) -> None:
    encode, node = EncodePrompt(), guided(steps=3, guidance_scale=3.0, seed=1)
    red, blue, nothing = (encode.run(text=text, context=context) for text in ("a red ball", "a blue ball", ""))
    both = Conditioning(torch.cat([red.embeds, blue.embeds]), red.space)
    together = node.run(
        latent=EmptyLatent(batch_size=2).run(context=context), positive=both, negative=nothing, context=context
    )
    second = guided(steps=3, guidance_scale=3.0, seed=2)
    alone = second.run(latent=EmptyLatent().run(context=context), positive=blue, negative=nothing, context=context)
    assert (together.data[1:] - alone.data).abs().max() <= 1e-3


def test_cancelling_stops_within_one_step(context: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(done: int, total: int) -> None:
        context.progress.append((done, total))
        raise Cancelled("enough")

    monkeypatch.setattr(context, "step", step)
    positive = EncodePrompt().run(text="", context=context)
    with pytest.raises(Cancelled):
        guided(steps=9, guidance_scale=1.0).run(
            latent=EmptyLatent().run(context=context), positive=positive, context=context
        )
    assert context.progress == [(1, 9)]


@pytest.mark.parametrize(
    ("node", "before", "after"),
    [
        (ResizeImage(width=20), (40, 30), (20, 15)),
        (ResizeImage(height=60), (40, 30), (80, 60)),
        (ResizeImage(width=7, height=9), (40, 30), (7, 9)),
        (ResizeImage(multiple=8), (43, 30), (40, 24)),
        (ResizeImage(width=50, multiple=8), (40, 30), (48, 32)),
        (ResizeImage(), (40, 30), (40, 30)),
    ],
)
def test_resizing(node: ResizeImage, before: tuple[int, int], after: tuple[int, int], context: Recorder) -> None:
    known = node.output_types({"image": PortType(Image, width=before[0], height=before[1], batch=2)})["image"]
    image = node.run(image=Image(torch.rand(2, 3, before[1], before[0])), context=context)
    assert (known.width, known.height, known.batch) == (*after, 2)
    assert (image.width, image.height, len(image)) == (*after, 2)
    assert 0 <= float(image.pixels.min()) <= float(image.pixels.max()) <= 1


def test_resizing_is_pillows_but_for_its_rounding(context: Recorder) -> None:
    import PIL.Image

    original = picture(40, 30)
    # Between its two passes Pillow clips what the last two overshoot; floating point keeps it.
    for method, allowed in {"nearest": 0.0, "box": 1.5, "bilinear": 1.5, "bicubic": 25.0, "lanczos": 25.0}.items():
        theirs = as_tensor(original.resize((24, 44), PIL.Image.Resampling[method.upper()]))
        node = ResizeImage.model_validate({"width": 24, "height": 44, "method": method})
        ours = node.run(image=Image(as_tensor(original)[None]), context=context).pixels[0]
        assert (ours - theirs).abs().max() <= allowed / 255, method


def test_nothing_left_of_an_image(context: Recorder) -> None:
    assert "value.image_size" in problems(ResizeImage(multiple=64), {"image": PortType(Image, width=40, height=80)})
    with pytest.raises(ValueError, match="nothing would be left"):
        ResizeImage(multiple=64).run(image=Image(torch.rand(1, 3, 40, 40)), context=context)


def test_a_sweep_over_seeds_encodes_its_prompt_once() -> None:
    workflow = gf.Workflow()
    for seed in range(3):
        workflow.add(f"draw{seed}", Text2Image(seed=seed), prompt="a red ball")
    kinds = [step.node.type_id for step in workflow.plan().steps]
    assert (kinds.count("EncodePrompt"), kinds.count("EmptyLatent"), kinds.count("Denoise")) == (2, 1, 3)


def test_without_guidance_the_negative_prompt_is_not_encoded() -> None:
    workflow = gf.Workflow()
    workflow.add("draw", Text2Image(guidance_scale=1.0), prompt="a red ball", negative_prompt="a cone")
    assert [step.node.type_id for step in workflow.plan().steps].count("EncodePrompt") == 1


def test_an_image_of_any_size_is_resized_in_the_plan(tmp_path: Path) -> None:
    (tmp_path / "start.png").write_bytes(encoded(43, 30, "PNG"))
    workflow = gf.Workflow()
    image = workflow.input("image", "image")
    workflow.add("redraw", Image2Image(), image=image, prompt="a red ball")
    plan = workflow.plan(image=str(tmp_path / "start.png"))
    kinds = [step.node.type_id for step in plan.steps]
    assert kinds[:3] == ["LoadImage", "ResizeImage", "EncodeImage"]
    assert plan.steps[2].output_types["latent"] == PortType(Latent, "pocket", "pocket", 40, 28, 1, noise=0.0)
    assert [warning.code for warning in plan.warnings] == ["value.size_floored"]
