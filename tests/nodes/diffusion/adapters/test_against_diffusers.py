"""The nodes against the same calls made directly with the pipelines of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.nodes import (
    DecodeLatent,
    Denoise,
    EmptyLatent,
    EncodeImage,
    EncodePrompt,
    Image2Image,
    LoadImage,
    SaveImage,
    Text2Image,
)
from graphflow.nodes.diffusion.loading.components import make_scheduler
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers.drawing import PROMPT
from tests.helpers.libraries import diffusers
from tests.helpers.numerics import difference, generators
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric

SKETCH = "pencil sketch of a red ball and a blue cube"


def run_latent(
    node: Denoise, latent: gf.Latent, context: Recorder, prompt: str = PROMPT, negative: str = ""
) -> gf.Latent:
    encode = EncodePrompt(model=node.model)
    return node.run(
        latent=latent,
        positive=encode.run(text=prompt, context=context),
        negative=encode.run(text=negative, context=context),
        context=context,
    )


TEXT_GRID = [
    # sampler, steps, guidance, batch
    ("default", 6, 4.0, 1),
    ("default", 3, 1.0, 2),
    ("ddim", 4, 7.5, 1),
    ("ddpm", 3, 3.0, 2),
    ("euler", 4, 4.0, 1),
    ("euler_a", 4, 4.0, 3),
    ("dpm++_2m", 4, 4.0, 1),
    ("dpm++_2m_karras", 5, 2.0, 2),
    ("heun", 3, 4.0, 1),
    ("pndm", 4, 4.0, 1),
    ("unipc", 4, 4.0, 1),
]


@pytest.mark.parametrize(("sampler", "steps", "guidance", "batch"), TEXT_GRID)
def test_text_to_image(sampler: str, steps: int, guidance: float, batch: int, direct: Any, context: Recorder) -> None:
    empty = EmptyLatent(batch_size=batch, width=64, height=48).run(context=context)
    node = Denoise(steps=steps, guidance_scale=guidance, seed=5, sampler=sampler)
    ours = run_latent(node, empty, context, negative="a cone")
    direct.scheduler = make_scheduler(require_model("pocket"), sampler)
    theirs = direct(
        prompt=PROMPT,
        negative_prompt="a cone",
        width=64,
        height=48,
        num_inference_steps=steps,
        guidance_scale=guidance,
        num_images_per_prompt=batch,
        generator=generators(5, batch),
        output_type="latent",
    ).images
    assert difference(ours.data, theirs) <= 1e-5
    assert context.progress[-1] == (steps, steps)
    assert [done for done, _ in context.progress] == sorted(done for done, _ in context.progress)


IMAGE_GRID = [
    # sampler, steps, strength, guidance, batch
    ("default", 10, 0.6, 4.0, 1),
    ("default", 4, 1.0, 1.0, 2),
    ("default", 10, 0.29, 7.5, 1),
    ("euler_a", 6, 0.5, 4.0, 2),
    ("dpm++_2m", 6, 0.7, 4.0, 1),
    ("heun", 5, 0.5, 4.0, 1),
]


@pytest.mark.parametrize(("sampler", "steps", "strength", "guidance", "batch"), IMAGE_GRID)
@pytest.mark.parametrize("source", ["pixels", "latents"])
def test_image_to_image(
    sampler: str,
    steps: int,
    strength: float,
    guidance: float,
    batch: int,
    source: str,
    direct_image_to_image: Any,
    context: Recorder,
) -> None:
    pixels = torch.rand(batch, 3, 40, 64, generator=torch.Generator().manual_seed(1))
    latent = EncodeImage(seed=9 if source == "pixels" else None).run(image=gf.Image(pixels), context=context)
    node = Denoise(
        steps=steps,
        guidance_scale=guidance,
        strength=strength,
        seed=9,
        sampler=sampler,
        after_encoding=source == "pixels",
    )
    ours = run_latent(node, latent, context)
    direct_image_to_image.scheduler = make_scheduler(require_model("pocket"), sampler)
    theirs = direct_image_to_image(
        prompt=[PROMPT] * batch,
        image=pixels if source == "pixels" else latent.data,
        num_inference_steps=steps,
        strength=strength,
        guidance_scale=guidance,
        generator=generators(9, batch),
        output_type="latent",
    ).images
    assert difference(ours.data, theirs) <= 1e-5
    expected = min(int(steps * strength), steps)
    assert context.progress[-1] == (expected, expected)
    assert node.progress_steps({}) == expected


def test_samplers_are_the_schedulers_of_diffusers_on_the_models_configuration(direct: Any) -> None:
    info = require_model("pocket")
    ours = make_scheduler(info, "euler")
    library = diffusers()
    theirs = library.EulerDiscreteScheduler.from_config(
        library.DDIMScheduler.from_pretrained(str(info.folder / "scheduler")).config
    )
    assert type(ours) is type(theirs)
    ours.set_timesteps(7)
    theirs.set_timesteps(7)
    assert torch.equal(ours.sigmas, theirs.sigmas)


def test_text_to_image_to_image_through_the_engine(direct: Any, direct_image_to_image: Any, tmp_path: Path) -> None:
    workflow = gf.Workflow()
    draft = workflow.add("draft", Text2Image(seed=7, steps=8), prompt=PROMPT)
    redraw = workflow.add("redraw", Image2Image(seed=11, steps=10, strength=0.6), image=draft, prompt=SKETCH)
    workflow.add("save", SaveImage(name="sketch"), image=redraw)
    run = workflow.run(out=tmp_path)
    direct.scheduler = make_scheduler(require_model("pocket"), "default")
    latents = direct(
        PROMPT, num_inference_steps=8, guidance_scale=3.0, generator=generators(7, 1), output_type="latent"
    ).images
    direct_image_to_image.scheduler = make_scheduler(require_model("pocket"), "default")
    theirs = direct_image_to_image(
        SKETCH,
        image=latents,
        strength=0.6,
        num_inference_steps=10,
        guidance_scale=3.0,
        generator=generators(11, 1),
        output_type="pt",
    ).images
    assert difference(run["redraw"].pixels, theirs) <= 1e-4
    assert (tmp_path / "sketch.png").is_file()


def test_a_file_redrawn_through_the_engine(direct_image_to_image: Any, tmp_path: Path) -> None:
    import PIL.Image

    picture = PIL.Image.effect_mandelbrot((64, 56), (-2, -1.5, 1, 1.5), 40).convert("RGB")
    picture.save(tmp_path / "start.png")
    workflow = gf.Workflow()
    start = workflow.add("start", LoadImage(path=str(tmp_path / "start.png")))
    redraw = workflow.add("redraw", Image2Image(seed=3, steps=8, strength=0.5), image=start, prompt=SKETCH)
    workflow.add("save", SaveImage(name="redrawn"), image=redraw)
    run = workflow.run(out=tmp_path / "out")
    direct_image_to_image.scheduler = make_scheduler(require_model("pocket"), "default")
    theirs = direct_image_to_image(
        SKETCH,
        image=picture,
        strength=0.5,
        num_inference_steps=8,
        guidance_scale=3.0,
        generator=generators(3, 1),
        output_type="pt",
    ).images
    assert difference(run["redraw"].pixels, theirs) <= 1e-4


@pytest.mark.parametrize("sampler", ["default", "euler_a"])
def test_an_item_of_a_batch_is_its_solo_run(sampler: str, one_thread: None, context: Recorder) -> None:
    empty = EmptyLatent(batch_size=4).run(context=context)
    together = run_latent(Denoise(steps=6, seed=2**64 - 2, sampler=sampler), empty, context)
    redrawn = run_latent(Denoise(steps=6, strength=0.5, seed=40, sampler=sampler), together, context)
    for index in range(4):
        alone = EmptyLatent().run(context=context)
        alone = run_latent(Denoise(steps=6, seed=(2**64 - 2 + index) % 2**64, sampler=sampler), alone, context)
        assert difference(together.data[index : index + 1], alone.data) <= 1e-3
        alone = run_latent(Denoise(steps=6, strength=0.5, seed=40 + index, sampler=sampler), alone, context)
        assert difference(redrawn.data[index : index + 1], alone.data) <= 1e-3


def test_decoding_and_encoding_are_those_of_the_vae(direct: Any, context: Recorder) -> None:
    data = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    latent = gf.Latent(data, "pocket", "pocket")
    ours = DecodeLatent().run(latent=latent, context=context).pixels
    with torch.no_grad():
        theirs = (direct.vae.decode(data / direct.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    assert difference(ours, theirs) <= 1e-5
    assert ours.dtype == torch.float32
    again = EncodeImage().run(image=gf.Image(ours), context=context)
    with torch.no_grad():
        mode = direct.vae.encode(ours * 2 - 1).latent_dist.mode() * direct.vae.config.scaling_factor
    assert difference(again.data, mode) <= 1e-4 * float(mode.abs().max())


def test_a_folder_with_cells_of_eight_pixels(tiny_sd: Path, context: Recorder) -> None:
    pipeline = diffusers().StableDiffusionPipeline.from_pretrained(str(tiny_sd))
    pipeline.set_progress_bar_config(disable=True)
    model = str(tiny_sd)
    empty = EmptyLatent(model=model, width=72, height=40, batch_size=2).run(context=context)
    assert (empty.space, empty.data.shape) == ("sd", (2, 4, 5, 9))
    ours = run_latent(Denoise(model=model, steps=4, seed=1), empty, context)
    theirs = pipeline(
        PROMPT,
        width=72,
        height=40,
        num_inference_steps=4,
        guidance_scale=7.5,
        num_images_per_prompt=2,
        generator=generators(1, 2),
        output_type="latent",
    ).images
    assert difference(ours.data, theirs) <= 1e-5
    assert context.progress[-1] == (4, 4)
    assert DecodeLatent(model=model).run(latent=ours, context=context).pixels.shape == (2, 3, 40, 72)


def test_a_hop_between_latent_spaces_goes_through_pixels(tiny_sd: Path, one_thread: None, tmp_path: Path) -> None:
    workflow = gf.Workflow()
    draft = workflow.add("draft", Text2Image(seed=1, steps=2), prompt=PROMPT)
    hop = workflow.add("hop", Image2Image(model=str(tiny_sd), steps=4, strength=0.5), image=draft, prompt=SKETCH)
    workflow.add("save", SaveImage(name="hop"), image=hop)
    assert [(problem.code, problem.severity) for problem in workflow.validate()] == [("type.hop", "warning")]
    run = workflow.run(out=tmp_path)
    assert [step.node.type_id for step in run.plan.steps] == [
        "EmptyLatent",
        "EncodePrompt",
        "EncodePrompt",
        "Denoise",
        "DecodeLatent",
        "EncodeImage",
        "EncodePrompt",
        "EncodePrompt",
        "Denoise",
        "DecodeLatent",
        "SaveImage",
    ]
    assert run["hop"].pixels.shape == (1, 3, 64, 64)
