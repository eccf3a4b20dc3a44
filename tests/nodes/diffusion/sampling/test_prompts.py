"""Prompts with earlier layers, weights and several windows, against diffusers, and Compel where it is installed."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.cli import main
from graphflow.nodes import ControlNetDepth, Denoise, EmptyLatent, EncodePrompt, Image2Image, Text2Image
from graphflow.nodes.diffusion.sampling.a1111 import parse_a1111
from tests.helpers import tiny
from tests.helpers.drawing import PROMPT, drawn
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.numerics import difference, generators
from tests.helpers.pictures import depth, picture
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric

LONG = ". ".join(["a red ball and a blue cube on green grass, under a blue sky, at night"] * 6)
"""Of several windows of the tiny text encoders (32 tokens) and of the pocket model's."""
UNWANTED = "a cone, snow"

FAMILIES = ["sd", "sdxl", "refiner"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> dict[str, Path]:
    base = tiny.sdxl(tmp_path_factory.mktemp("sdxl"))
    return {"sd": tiny_sd, "sdxl": base, "refiner": tiny.sdxl_refiner(tmp_path_factory.mktemp("refiner"), base)}


@cache
def pipeline_for(folder: Path, cls: str) -> Any:
    extra: dict[str, Any] = {"add_watermarker": False} if "XL" in cls else {"safety_checker": None}
    pipeline = quietly(getattr(diffusers(), cls).from_pretrained(str(folder), **extra))
    if "XL" not in cls:
        # where diffusers and Compel look for the last norm; transformers 5 has it in the text encoder itself
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    return pipeline


def direct(folders: dict[str, Path], family: str, task: str) -> Any:
    name = "StableDiffusion" if family == "sd" else "StableDiffusionXL"
    return pipeline_for(folders[family], f"{name}{'Img2Img' if task == 'image' else ''}Pipeline")


def tasks(family: str) -> list[str]:
    return ["image"] if family == "refiner" else ["text", "image"]


CASES = [(family, task) for family in FAMILIES for task in tasks(family)]


def ours_and_theirs(
    folders: dict[str, Path], family: str, task: str, negative: str, fields: dict[str, Any], given: dict[str, Any],
    prompt: str = PROMPT,
) -> float:  # fmt: skip
    """Return the distance of a coarse node with ``fields`` from the pipeline of diffusers with arguments ``given``."""
    model, pixels = str(folders[family]), picture(1, 40, 64)
    if task == "text":
        node: gf.Node = Text2Image(model=model, width=64, height=40, steps=2, seed=5, **fields)
        values: dict[str, Any] = {}
        arguments: dict[str, Any] = {"width": 64, "height": 40}
    else:
        node = Image2Image(model=model, steps=3, strength=0.7, seed=5, **fields)
        values, arguments = {"image": gf.Image(pixels)}, {"image": pixels, "strength": 0.7}
    ours = drawn(node, prompt=prompt, negative_prompt=negative, **values)
    theirs = direct(folders, family, task)(
        num_inference_steps=2 if task == "text" else 3, guidance_scale=7.5 if family == "sd" else 5.0,
        generator=generators(5, 1), output_type="pt", **arguments, **given,
    ).images  # fmt: skip
    return difference(ours.pixels, theirs)


# CLIP skip -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "task"), CASES)
@pytest.mark.parametrize("negative", ["", UNWANTED])
def test_clip_skip_is_that_of_diffusers(folders: dict[str, Path], family: str, task: str, negative: str) -> None:
    given = {"prompt": PROMPT, "negative_prompt": negative or None, "clip_skip": 1}
    assert ours_and_theirs(folders, family, task, negative, {"clip_skip": 1}, given) <= 1e-4
    assert ours_and_theirs(folders, family, task, negative, {}, given) > 1e-3, "the skip changes nothing"


def test_clip_skip_of_all_layers_but_the_input(folders: dict[str, Path]) -> None:
    assert ours_and_theirs(folders, "sd", "text", "", {"clip_skip": 2}, {"prompt": PROMPT, "clip_skip": 2}) <= 1e-4


@pytest.mark.parametrize("image", [False, True])
def test_clip_skip_under_a_controlnet(image: bool, one_thread: None) -> None:
    maps = gf.DepthMap(depth(1))
    given: dict[str, Any] = {"image": gf.Image(picture(1))} if image else {}

    def made(**fields: Any) -> Any:
        return drawn(ControlNetDepth(steps=4, seed=2, **fields), prompt=PROMPT, depth_map=maps, **given)

    assert difference(made(clip_skip=1).pixels, made().pixels) > 1e-3
    steps = steps_of(ControlNetDepth(clip_skip=1), depth_map=maps)
    assert [step.clip_skip for step in steps] == [1, None]


def steps_of(node: gf.Node, **values: Any) -> list[EncodePrompt]:
    workflow = gf.Workflow()
    given = {name: workflow.input(name, "depth_map") for name in values}
    workflow.output("out", workflow.add("node", node, prompt=PROMPT, negative_prompt=UNWANTED, **given))
    return [step.node for step in workflow.plan(**values).steps if isinstance(step.node, EncodePrompt)]


@pytest.mark.parametrize(("family", "most"), [("sd", 2), ("sdxl", 1), ("refiner", 1)])
def test_more_layers_than_the_text_encoder_has_are_refused(folders: dict[str, Path], family: str, most: int) -> None:
    def codes(skip: int) -> list[str]:
        node = Image2Image(model=str(folders[family]), clip_skip=skip)
        return [problem.code for problem in node.check({}) if problem.severity == "error"]

    assert codes(most) == []
    assert codes(most + 1) == ["value.clip_skip"]


# What a family ignores -----------------------------------------------------------------------------------------------


GIVEN = [("clip_skip", 1), ("prompt_syntax", "a1111"), ("long_prompts", "chunk")]


@pytest.mark.parametrize(("name", "value"), GIVEN)
@pytest.mark.parametrize("model", ["pocket-x2", "pocket-x4", "kandinsky"])
def test_what_the_family_of_a_model_ignores_is_refused(
    name: str, value: Any, model: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if model == "kandinsky":
        model = str(tiny.kandinsky(tmp_path_factory.mktemp("kandinsky")))
        nodes: list[gf.Node] = [cls(model=model, **{name: value}) for cls in (Text2Image, Image2Image)]
    else:
        nodes = [EncodePrompt(model=model, **{name: value})]
    for node in nodes:
        problem = {problem.code: problem for problem in node.check({})}["value.ignored"]
        assert (problem.field, problem.severity) == (name, "error")
        assert f"found {name} {value!r}" in problem.message
        kind: Any = type(node)
        assert "value.ignored" not in {found.code for found in kind(model=model).check({})}


def test_a_port_that_the_family_ignores_is_refused() -> None:
    workflow = gf.Workflow()
    workflow.output("out", workflow.add("encode", EncodePrompt(model="pocket-x4"), text="a", beside="b"))
    assert [(problem.code, problem.field) for problem in workflow.validate()] == [("value.ignored", "beside")]


# Several windows -----------------------------------------------------------------------------------------------------


def encoded(
    model: Path | str, text: str, context: Recorder, beside: str | None = None, **fields: Any
) -> gf.Conditioning:
    return EncodePrompt(model=str(model), **fields).run(text=text, beside=beside, context=context)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_prompt_is_refused_or_read_window_by_window(
    folders: dict[str, Path], family: str, context: Recorder
) -> None:
    with pytest.raises(ValueError, match=r'expected at most 30 .*or set long_prompts to "chunk"'):
        encoded(folders[family], LONG, context)
    whole = encoded(folders[family], LONG, context, long_prompts="chunk")
    sentences = [f"{sentence}." for sentence in LONG.split(". ")]
    sentences[-1] = sentences[-1].removesuffix(".")
    windows = [encoded(folders[family], sentence, context) for sentence in sentences]
    assert difference(whole.embeds, torch.cat([window.embeds for window in windows], dim=1)) <= 1e-5
    assert whole.embeds.shape[1] == 6 * 32
    short = encoded(folders[family], PROMPT, context, long_prompts="chunk")
    assert difference(short.embeds, encoded(folders[family], PROMPT, context).embeds) <= 1e-5
    if short.pooled is not None:
        assert difference(short.pooled, encoded(folders[family], PROMPT, context).pooled) <= 1e-5  # type: ignore[arg-type]


def test_the_shorter_of_two_prompts_is_filled_up_with_the_empty_one(
    folders: dict[str, Path], context: Recorder
) -> None:
    empty = encoded(folders["sd"], "", context)
    beside = encoded(folders["sd"], UNWANTED, context, beside=LONG, long_prompts="chunk")
    alone = encoded(folders["sd"], UNWANTED, context)
    assert difference(beside.embeds, torch.cat([alone.embeds, *[empty.embeds] * 5], dim=1)) <= 1e-5


@pytest.mark.parametrize(("prompt", "negative"), [(LONG, UNWANTED), (UNWANTED, LONG), (LONG, ""), (PROMPT, UNWANTED)])
@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_of_long_prompts(folders: dict[str, Path], family: str, prompt: str, negative: str) -> None:
    node = Image2Image(model=str(folders[family]), steps=4, strength=0.5, long_prompts="chunk", seed=3)
    made = drawn(node, image=gf.Image(picture(2)), prompt=prompt, negative_prompt=negative)
    assert made.pixels.shape == (2, 3, 64, 64)
    assert torch.isfinite(made.pixels).all()
    other = drawn(node, image=gf.Image(picture(2)), prompt=prompt.replace("red", "green"), negative_prompt=negative)
    assert ("red" in prompt) == (difference(made.pixels, other.pixels) > 0)


def test_prompts_of_unequal_length_are_told_apart_before_anything_is_denoised(one_thread: None) -> None:
    workflow = gf.Workflow()
    long = workflow.add("long", EncodePrompt(long_prompts="chunk"), text=LONG * 2)
    short = workflow.add("short", EncodePrompt(long_prompts="chunk"), text=UNWANTED)
    empty = workflow.add("empty", EmptyLatent())
    workflow.output("out", workflow.add("draw", Denoise(steps=1), latent=empty, positive=long, negative=short))
    with pytest.raises(ValueError, match=r"expected equally many; give each EncodePrompt the other's text at 'beside'"):
        workflow.run()


def test_only_where_lengths_may_differ_does_a_prompt_depend_on_the_other() -> None:
    def ports(**fields: Any) -> set[str]:
        workflow = gf.Workflow()
        workflow.output("out", workflow.add("draw", Text2Image(**fields), prompt=PROMPT, negative_prompt=UNWANTED))
        steps = (step for step in workflow.plan().steps if isinstance(step.node, EncodePrompt))
        return {port for step in steps for port in step.inputs}

    assert ports() == {"text"}
    assert ports(clip_skip=1) == {"text"}
    assert ports(long_prompts="chunk", guidance_scale=1.0) == {"text"}
    assert ports(long_prompts="chunk") == {"text", "beside"}


# Weights -------------------------------------------------------------------------------------------------------------


def compel_for(pipeline: Any, family: str) -> Any:
    compel = pytest.importorskip("compel")
    if family == "sd":
        return compel.CompelForSD(pipeline)
    if family == "sdxl":
        return compel.CompelForSDXL(pipeline)
    one = compel.Compel(
        tokenizer=pipeline.tokenizer_2,
        text_encoder=pipeline.text_encoder_2,
        returned_embeddings_type=compel.ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
        requires_pooled=True,
        truncate_long_prompts=False,
    )

    class Both:
        def __call__(self, prompt: str, negative_prompt: str) -> Any:
            embeds, pooled = one([prompt, negative_prompt])
            return compel.convenience_wrappers.LabelledConditioning(
                embeds=embeds[:1],
                pooled_embeds=pooled[:1],
                negative_embeds=embeds[1:],
                negative_pooled_embeds=pooled[1:],
            )

    return Both()


def embeddings(folders: dict[str, Path], family: str, task: str, prompt: str, negative: str) -> dict[str, Any]:
    """Encode prompts with Compel, to arguments of a pipeline."""
    pipeline = direct(folders, family, task)
    if family != "sd":
        for name in ("tokenizer", "tokenizer_2"):
            if getattr(pipeline, name) is not None:
                getattr(pipeline, name).model_max_length = 32
    else:
        pipeline.tokenizer.model_max_length = 32
    made = compel_for(pipeline, family)(prompt, negative_prompt=negative)
    found = {"prompt_embeds": made.embeds, "negative_prompt_embeds": made.negative_embeds}
    if family != "sd":
        found |= {
            "pooled_prompt_embeds": made.pooled_embeds,
            "negative_pooled_prompt_embeds": made.negative_pooled_embeds,
        }
    return found


WEIGHTED = [
    PROMPT,
    "a red++ ball and a blue- cube",
    "a (red ball)1.4 and a (blue cube)0.6 on green grass",
    "a ((red)1.2 ball)1.3, (snow)0",
    '("a red ball", "a blue cube").blend(0.7, 0.3)',
    '("a red ball", "a blue cube").and()',
    '("a red ball", "a (blue)1.3 cube on snow", "a cone").and(1, 0.5, 0.8)',
]


@pytest.mark.parametrize(("family", "task"), CASES)
@pytest.mark.parametrize("prompt", WEIGHTED)
def test_weights_are_those_of_compel(folders: dict[str, Path], family: str, task: str, prompt: str) -> None:
    if family != "sd" and ".and(1" in prompt:
        with pytest.raises(AttributeError):  # Compel itself fails where a pooled embedding is asked for
            embeddings(folders, family, task, prompt, UNWANTED)
        return
    given = embeddings(folders, family, task, prompt, UNWANTED)
    fields = {"prompt_syntax": "compel"}
    assert ours_and_theirs(folders, family, task, UNWANTED, fields, given, prompt) <= 1e-4


@pytest.mark.parametrize(("family", "task"), CASES)
@pytest.mark.parametrize("syntax", ["plain", "compel"])
@pytest.mark.parametrize(("prompt", "negative"), [(LONG, UNWANTED), (UNWANTED, LONG)])
def test_long_prompts_are_those_of_compel(
    folders: dict[str, Path], family: str, task: str, syntax: str, prompt: str, negative: str
) -> None:
    given = embeddings(folders, family, task, prompt, negative)
    fields = {"prompt_syntax": syntax, "long_prompts": "chunk"}
    assert ours_and_theirs(folders, family, task, negative, fields, given, prompt) <= 1e-4


def test_weights_between_parts_of_an_sdxl_prompt(folders: dict[str, Path], context: Recorder) -> None:
    """Compel's own class for SDXL fails here; each encoder by itself does not."""
    pytest.importorskip("compel")
    found = encoded(folders["sdxl"], '("a red ball", "a cone").and(1, 0.5)', context, prompt_syntax="compel")
    parts = [encoded(folders["sdxl"], text, context).embeds for text in ("a red ball", "a cone", "")]
    assert difference(found.embeds, torch.cat([parts[0], parts[2] + 0.5 * (parts[1] - parts[2])], dim=1)) <= 1e-5


def test_weights_and_a_skipped_layer_together(folders: dict[str, Path], context: Recorder) -> None:
    compel = pytest.importorskip("compel")
    pipeline = direct(folders, "sd", "text")
    pipeline.tokenizer.model_max_length = 32
    theirs = compel.Compel(
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        returned_embeddings_type=compel.ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NORMALIZED,
    )("a (red ball)1.4 and a (cone)0.5")
    ours = encoded(folders["sd"], "a (red ball)1.4 and a (cone)0.5", context, prompt_syntax="compel", clip_skip=1)
    assert difference(ours.embeds, theirs) <= 1e-5


A1111 = [
    ("a (red ball) and a [blue] cube", "a (red ball)1.1 and a (blue)0.9090909090909091 cube"),
    ("a (red ball:1.3), a (cone:0.5)", "a (red ball)1.3, a (cone)0.5"),
    ("a ((red:1.5) ball:1.2) on snow", "a ((red)1.5 ball)1.2 on snow"),
    ("a ((red)) ball", "a (red)1.21 ball"),
    ("a red ball BREAK a cone on snow", '("a red ball", "a cone on snow").and()'),
    (PROMPT, PROMPT),
]


@pytest.mark.parametrize(("text", "same"), A1111)
@pytest.mark.parametrize("family", FAMILIES)
def test_a1111_weights_are_the_same_weights_in_compel(
    folders: dict[str, Path], family: str, text: str, same: str, context: Recorder
) -> None:
    pytest.importorskip("compel")
    ours = encoded(folders[family], text, context, prompt_syntax="a1111")
    theirs = encoded(folders[family], same, context, prompt_syntax="compel")
    assert difference(ours.embeds, theirs.embeds) <= 1e-5
    if text != PROMPT:
        plain = encoded(folders[family], text.replace(" BREAK", ""), context)
        assert ours.embeds.shape != plain.embeds.shape or difference(ours.embeds, plain.embeds) > 1e-3


def test_a1111_signs_do_not_reach_the_pooled_embedding(folders: dict[str, Path], context: Recorder) -> None:
    pytest.importorskip("compel")
    ours = encoded(folders["sdxl"], "a (red ball:1.3)", context, prompt_syntax="a1111")
    plain = encoded(folders["sdxl"], "a red ball", context)
    assert ours.pooled is not None
    assert plain.pooled is not None
    assert difference(ours.pooled, plain.pooled) <= 1e-5


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [[("", 1.0)]]),
        ("a red ball", [[("a red ball", 1.0)]]),
        ("a (red) ball", [[("a ", 1.0), ("red", 1.1), (" ball", 1.0)]]),
        ("a [red] ball", [[("a ", 1.0), ("red", 1 / 1.1), (" ball", 1.0)]]),
        ("(red: 1.25 )", [[("red", 1.25)]]),
        ("((a:2) (b:.5):3)", [[("a", 6.0), ("b", 1.5)]]),
        ("([a])", [[("a", 1.0)]]),
        (r"a \(red\) \[ball\] \\", [[("a (red) [ball] \\", 1.0)]]),
        (r"c:\pictures", [[(r"c:\pictures", 1.0)]]),
        ("at 10:30, ratio 3:2", [[("at 10:30, ratio 3:2", 1.0)]]),
        ("(time 10:30 and more)", [[("time 10:30 and more", 1.1)]]),
        ("one|two < three > AND_gate SAND BREAKER", [[("one|two < three > AND_gate SAND BREAKER", 1.0)]]),
        ("a BREAK b", [[("a ", 1.0)], [(" b", 1.0)]]),
        ("(a BREAK b:2) c", [[("a ", 2.0)], [(" b", 2.0), (" c", 1.0)]]),
        ("BREAK a", [[("", 1.0)], [(" a", 1.0)]]),
    ],
)
def test_a1111_syntax(text: str, parts: list[list[tuple[str, float]]]) -> None:
    found = parse_a1111(text)
    assert [[words for words, _ in part] for part in found] == [[words for words, _ in part] for part in parts]
    for ours, theirs in zip(found, parts, strict=True):
        assert [weight for _, weight in ours] == pytest.approx([weight for _, weight in theirs])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a AND b", "AND, which denoises prompts side by side, at character 3"),
        ("a <lora:style:0.8> b", "<lora:style:0.8>, which loads weights, at character 3"),
        ("[red:blue:0.5] ball", "prompt editing"),
        ("[red:5] ball", "prompt editing"),
        ("[red|blue] ball", "take turns"),
        ("a (red ball", "a bracket that nothing closes, at character 3"),
        ("a red) ball", "a bracket that closes nothing, at character 6"),
        ("a [red) ball", "a bracket that closes nothing"),
        ("a red:1.2) ball", "a bracket that closes nothing"),
        ("a (red:-0.5) ball", "the weight -0.5, expected at least 0"),
    ],
)
def test_what_a1111_syntax_cannot_say_here_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="found") as caught:
        parse_a1111(text)
    assert message in str(caught.value)
    assert "; " in str(caught.value), "no word on what to do"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a cat.swap(dog)", r"\.swap\(\)"),
        ("a ball withLora(style, 0.8)", "LoRA"),
        ('("a ball", "a cone").blend(1)', "Compel cannot read"),
        ('("a ball", "a cone").and() and a cube', "Compel cannot read"),
    ],
)
def test_what_compel_would_leave_out_in_silence_is_refused(
    folders: dict[str, Path], text: str, message: str, context: Recorder
) -> None:
    pytest.importorskip("compel")
    with pytest.raises(ValueError, match=message):
        encoded(folders["sd"], text, context, prompt_syntax="compel")


def test_a_weighted_prompt_is_never_cut(folders: dict[str, Path], context: Recorder) -> None:
    pytest.importorskip("compel")
    for syntax in ("compel", "a1111"):
        with pytest.raises(ValueError, match=r"expected at most 30 .*long_prompts"):
            encoded(folders["sd"], LONG, context, prompt_syntax=syntax)
    parts = '("' + '", "'.join([PROMPT] * 3) + '").and()'
    assert encoded(folders["sd"], parts, context, prompt_syntax="compel").embeds.shape[1] == 3 * 32


def test_without_the_package_weights_are_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "compel" else real(name, *rest)
    )
    for kind in ("Text2Image", "EncodePrompt"):
        for syntax in ("compel", "a1111"):
            text = {"prompt": "x"} if kind == "Text2Image" else {"text": "x"}
            file = tmp_path / "workflow.json"
            file.write_text(
                json.dumps({"graphflow": 1, "nodes": {"a": {"type": kind, "prompt_syntax": syntax, **text}}})
            )
            assert main(["validate", str(file)]) == 3
            printed = capsys.readouterr().err
            assert "missing.package" in printed
            assert 'pip install "graphflow-diffusion[compel]"' in printed


def test_plain_signs_mean_themselves(folders: dict[str, Path], context: Recorder) -> None:
    signs = encoded(folders["sd"], "a (red:1.3) ball", context)
    assert difference(signs.embeds, encoded(folders["sd"], "a red ball", context).embeds) > 1e-3
