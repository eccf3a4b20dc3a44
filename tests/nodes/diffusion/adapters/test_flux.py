"""FLUX.1 dev and schnell: equal to direct calls of diffusers in fp32, distilled guidance, packed latents."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.cli import main
from graphflow.nodes import (
    ControlNetDepth,
    DecodeLatent,
    Denoise,
    EmptyLatent,
    EncodeImage,
    EncodePrompt,
    Image2Image,
    Text2Image,
)
from graphflow.nodes.diffusion.families import Defaults
from graphflow.nodes.diffusion.models.model_info import find_model, require_model
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
def dev(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.flux(tmp_path_factory.mktemp("flux-dev"))


@pytest.fixture(scope="module")
def schnell(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.flux(tmp_path_factory.mktemp("flux-schnell"), schnell=True)


def direct(cls: str, folder: Path) -> Any:
    """A pipeline as its documentation loads it."""
    return quietly(getattr(diffusers(), cls).from_pretrained(str(folder)))


def test_dev_and_schnell_are_told_apart_by_whether_they_take_guidance(dev: Path, schnell: Path, tmp_path: Path) -> None:
    one, two = require_model(str(dev)), require_model(str(schnell))
    assert (one.family.name, one.family.guidance, one.family.text_encoders["text_encoder_2"].window) == (
        "flux",
        "distilled",
        512,
    )
    assert (two.family.name, two.family.guidance, two.family.text_encoders["text_encoder_2"].window) == (
        "flux-schnell",
        "none",
        256,
    )
    assert one.defaults["text-to-image"] == Defaults(steps=28, guidance_scale=3.5)
    assert one.defaults["image-to-image"] == Defaults(steps=28, guidance_scale=7.0, strength=0.6)
    assert two.defaults["text-to-image"].steps == two.defaults["image-to-image"].steps == 4
    assert one.space == two.space == "flux"
    assert one.text_space == two.text_space
    assert (one.latent_channels, one.native_width, one.size_multiple, one.image_multiple) == (16, 1024, 16, 16)
    for folder in sorted(schnell.iterdir()):
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "transformer").unlink()
    problem = find_model(str(tmp_path))
    assert isinstance(problem, gf.Problem)
    assert problem.code == "missing.model_file"


@pytest.mark.parametrize(
    ("model", "steps", "guidance", "batch", "window"),
    [("dev", 4, 3.5, 1, 512), ("dev", 3, 1.0, 2, 512), ("schnell", 4, None, 2, 256), ("schnell", 1, 0.0, 1, 256)],
)
def test_text_to_image(
    model: str, steps: int, guidance: float | None, batch: int, window: int, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(model)
    node = Text2Image(
        model=str(folder), width=64, height=96, steps=steps, guidance_scale=guidance, seed=5, batch_size=batch
    )
    ours = drawn(node, prompt=PROMPT)
    theirs = direct("FluxPipeline", folder)(
        PROMPT, width=64, height=96, num_inference_steps=steps, guidance_scale=guidance or 0.0,
        num_images_per_prompt=batch, generator=generators(5, batch), output_type="pt", max_sequence_length=window,
    ).images  # fmt: skip
    assert ours.pixels.shape == (batch, 3, 96, 64)
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize(
    ("model", "strength", "guidance", "batch", "window"),
    [("dev", 0.6, 7.0, 1, 512), ("dev", 0.25, 3.5, 2, 512), ("dev", 1.0, 7.0, 2, 512), ("schnell", 0.6, None, 1, 256)],
)
@pytest.mark.parametrize("source", ["pixels", "latents"])
def test_image_to_image(
    model: str, strength: float, guidance: float | None, batch: int, window: int, source: str, context: Recorder,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    folder: Path = request.getfixturevalue(model)
    pixels = picture(batch, 64, 96)
    image: Any = gf.Image(pixels)
    if source == "latents":
        image = EncodeImage(model=str(folder)).run(image=image, context=context)
    node = Image2Image(model=str(folder), steps=6, strength=strength, guidance_scale=guidance, seed=9)
    ours = drawn(node, image=image, prompt=PROMPT)
    theirs = direct("FluxImg2ImgPipeline", folder)(
        [PROMPT] * batch, image=pixels if source == "pixels" else image.data, width=96, height=64,
        num_inference_steps=6, strength=strength, guidance_scale=guidance or 0.0, generator=generators(9, batch),
        output_type="pt", max_sequence_length=window,
    ).images  # fmt: skip
    assert ours.pixels.shape == (batch, 3, 64, 96)
    assert difference(ours.pixels, theirs) <= 1e-4


def test_the_defaults_are_those_of_the_pipelines(dev: Path) -> None:
    pixels = picture(1, 32, 32)
    ours = drawn(Image2Image(model=str(dev), seed=3), image=gf.Image(pixels), prompt=PROMPT)
    theirs = direct("FluxImg2ImgPipeline", dev)(
        PROMPT, image=pixels, width=32, height=32, generator=generators(3, 1), output_type="pt"
    ).images
    assert difference(ours.pixels, theirs) <= 1e-4


def test_guidance_is_an_input_of_dev(dev: Path) -> None:
    mild, strict = (
        drawn(Text2Image(model=str(dev), width=64, height=64, steps=2, guidance_scale=scale, seed=1), prompt=PROMPT)
        for scale in (1.0, 9.0)
    )
    assert difference(mild.pixels, strict.pixels) > 1e-3


def test_latents_between_nodes_are_not_packed(dev: Path, context: Recorder) -> None:
    empty = EmptyLatent(model=str(dev), width=64, height=96).run(context=context)
    positive = EncodePrompt(model=str(dev)).run(text=PROMPT, context=context)
    latent = Denoise(model=str(dev), steps=1, seed=2).run(latent=empty, positive=positive, context=context)
    assert (latent.data.shape, latent.space) == ((1, 16, 12, 8), "flux")
    packed = direct("FluxPipeline", dev)(
        PROMPT, width=64, height=96, num_inference_steps=1, generator=generators(2, 1), output_type="latent"
    ).images
    assert packed.shape == (1, 24, 64)
    squares = latent.data.unfold(2, 2, 2).unfold(3, 2, 2)  # (1, 16, 6, 4, 2, 2)
    assert difference(squares.permute(0, 2, 3, 1, 4, 5).reshape(1, 24, 64), packed) <= 1e-4
    assert DecodeLatent(model=str(dev)).run(latent=latent, context=context).pixels.shape == (1, 3, 96, 64)


def test_an_item_of_a_batch_is_its_solo_run(dev: Path) -> None:
    node = Text2Image(model=str(dev), width=64, height=64, steps=3, seed=7, batch_size=3)
    together = drawn(node, prompt=PROMPT)
    for index in range(3):
        alone = drawn(node.model_copy(update={"seed": 7 + index, "batch_size": 1}), prompt=PROMPT)
        assert difference(together.pixels[index : index + 1], alone.pixels) <= 1e-4
    assert difference(together.pixels[:1], together.pixels[1:2]) > 1e-2


@pytest.mark.parametrize(("steps", "strength", "count"), [(4, 0.6, 3), (10, 0.3, 3), (5, 0.01, 1), (3, 1.0, 3)])
def test_as_many_steps_run_as_the_plan_counts(
    dev: Path, steps: int, strength: float, count: int, context: Recorder
) -> None:
    node = Denoise(model=str(dev), steps=steps, strength=strength)
    latent = EncodeImage(model=str(dev)).run(image=gf.Image(picture(1)), context=context)
    node.run(latent=latent, positive=EncodePrompt(model=str(dev)).run(text="", context=context), context=context)
    assert context.progress == [(done + 1, count) for done in range(count)]
    assert node.progress_steps({}) == count


def test_one_prompt_is_encoded_and_no_negative_one(dev: Path) -> None:
    workflow = gf.Workflow()
    workflow.output("out", workflow.add("draw", Text2Image(model=str(dev), width=64, height=64), prompt=PROMPT))
    names = [step.node.type_id for step in workflow.plan().steps]
    assert names.count("EncodePrompt") == 1


def validated(tmp_path: Path, nodes: dict[str, Any]) -> tuple[int, str]:
    """Exit status and words of ``graphflow validate`` on a file with these nodes."""
    file = tmp_path / "file.json"
    file.write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        status = main(["validate", str(file)])
    return status, stream.getvalue()


def test_a_negative_prompt_is_refused(dev: Path, schnell: Path, tmp_path: Path) -> None:
    draw = {"type": "Text2Image", "prompt": PROMPT, "negative_prompt": "a cone"}
    for model in (dev, schnell):
        status, printed = validated(tmp_path, {"draw": {**draw, "model": str(model)}})
        assert status == 2
        assert "node 'draw', field 'negative_prompt': found a negative prompt, but the model" in printed
        assert printed.count("[value.ignored]") == 1
    text = {"type": "EncodePrompt", "model": str(dev), "text": PROMPT}
    latent = {"type": "EmptyLatent", "model": str(dev)}
    fine = {"type": "Denoise", "model": str(dev), "latent": {"from": "latent"}, "positive": {"from": "text"}}
    assert validated(tmp_path, {"text": text, "latent": latent, "denoise": fine})[0] == 0
    led = {**fine, "negative": {"from": "text"}}
    status, printed = validated(tmp_path, {"text": text, "latent": latent, "denoise": led})
    assert status == 2
    assert "field 'negative': found a negative prompt" in printed


def test_a_guidance_scale_is_refused_where_none_is_taken(dev: Path, schnell: Path, tmp_path: Path) -> None:
    first = {"type": "Text2Image", "prompt": PROMPT, "guidance_scale": 3.5}
    again = {"type": "Image2Image", "prompt": PROMPT, "guidance_scale": 7.0, "image": {"from": "first"}}
    nodes = {"first": {**first, "model": str(schnell)}, "again": {**again, "model": str(schnell)}}
    status, printed = validated(tmp_path, nodes)
    assert status == 2
    assert printed.count("takes no guidance [value.ignored]") == 2
    off = {name: {**node, "guidance_scale": 0.0} for name, node in nodes.items()}
    assert validated(tmp_path, off)[0] == 0
    assert validated(tmp_path, {name: {**node, "model": str(dev)} for name, node in nodes.items()})[0] == 0


def test_a_prompt_that_only_t5_reads_to_its_end_is_told_of_once(dev: Path, context: Recorder) -> None:
    encode = EncodePrompt(model=str(dev))
    encode.run(text=PROMPT, context=context)
    assert context.warnings == []
    ours = encode.run(text=BETWEEN, context=context)
    (warning,) = context.warnings
    assert warning.startswith("text_encoder reads only the first 30 of the ")
    with torch.no_grad():
        theirs, pooled, _ = direct("FluxPipeline", dev).encode_prompt(BETWEEN)
    assert difference(ours.embeds, theirs) <= 1e-4
    assert ours.pooled is not None
    assert difference(ours.pooled, pooled) <= 1e-4


@pytest.mark.parametrize(("model", "window"), [("dev", 512), ("schnell", 256)])
def test_a_prompt_that_t5_does_not_read_to_its_end_is_refused(
    model: str, window: int, request: pytest.FixtureRequest, tmp_path: Path, context: Recorder
) -> None:
    folder = tmp_path / "model"
    pipeline = diffusers().FluxPipeline.from_pretrained(str(request.getfixturevalue(model)))
    pipeline.tokenizer_2.model_max_length = 512  # as FLUX ships it
    pipeline.save_pretrained(folder)
    encode = EncodePrompt(model=str(folder))
    assert encode.run(text="a " * (window - 1), context=context).embeds.shape == (1, window, tiny.T5)
    with pytest.raises(ValueError, match=f"found a prompt of {window} tokens, expected at most {window - 1}"):
        encode.run(text="a " * window, context=context)


def test_latents_of_another_family_go_through_pixels_and_the_plan_shows_it(
    dev: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hop = goes_through_pixels(dev, tiny.sd3(tmp_path_factory.mktemp("sd3")), steps=2)
    assert "found Latent[sd3] from 'first', expected Latent[flux]" in hop.message


def test_what_it_cannot_do_is_refused(dev: Path, context: Recorder) -> None:
    depths = gf.PortType(gf.DepthMap, width=64, height=64, batch=1)
    assert [each.code for each in ControlNetDepth(model=str(dev)).check({"depth_map": depths})] == ["model.controlnet"]
    assert [each.code for each in Text2Image(model=str(dev), denoising_end=0.8).check({})] == ["value.hand_over"]
    assert [each.code for each in Text2Image(model=str(dev), width=72, height=64).check({})] == ["value.size_multiple"]
    odd = gf.Latent(torch.zeros(1, 16, 8, 9), "flux", str(dev))
    positive = EncodePrompt(model=str(dev)).run(text="", context=context)
    with pytest.raises(ValueError, match="found latents of 9 x 8 cells, expected multiples of 2"):
        Denoise(model=str(dev)).run(latent=odd, positive=positive, context=context)
