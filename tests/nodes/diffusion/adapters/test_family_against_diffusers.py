"""ControlNetDepth, Upscale, SuperRes and EstimateDepth against the same calls made directly with diffusers, fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.nodes import (
    ControlNetDepth,
    EncodeImage,
    EstimateDepth,
    SuperRes,
    Upscale,
)
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET_FOLDER
from graphflow.nodes.diffusion.loading.components import make_scheduler
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers.drawing import PROMPT, drawn
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.numerics import difference, generators
from tests.helpers.pictures import depth, picture
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def parts(direct: Any) -> dict[str, Any]:
    """The components that the pocket models share."""
    return {name: getattr(direct, name) for name in ("vae", "text_encoder", "tokenizer")}


@pytest.fixture(scope="module")
def controlled(direct: Any) -> Any:
    """The ControlNet in the text-to-image pipeline of diffusers."""
    library = diffusers()
    network = library.ControlNetModel.from_pretrained(POCKET_FOLDER / "controlnet-depth", dtype=torch.float32)
    return quietly(
        library.StableDiffusionControlNetPipeline(
            **direct.components, controlnet=network, requires_safety_checker=False
        )
    )


CONTROL_GRID = [
    # steps, guidance, scale, start, end, batch
    (4, 3.0, 1.0, 0.0, 1.0, 1),
    (4, 1.0, 0.6, 0.0, 0.5, 2),
    (4, 3.0, 1.0, 0.25, 1.0, 3),
]


@pytest.mark.parametrize(("steps", "guidance", "scale", "start", "end", "batch"), CONTROL_GRID)
@pytest.mark.parametrize("maps", ["one", "each"])
def test_controlnet_from_text(
    steps: int, guidance: float, scale: float, start: float, end: float, batch: int, maps: str, controlled: Any
) -> None:
    depths = depth(batch if maps == "each" else 1)
    node = ControlNetDepth(
        steps=steps, guidance_scale=guidance, conditioning_scale=scale, control_guidance_start=start,
        control_guidance_end=end, batch_size=batch, seed=5,
    )  # fmt: skip
    ours = drawn(node, prompt=PROMPT, depth_map=gf.DepthMap(depths))
    controlled.scheduler = make_scheduler(require_model("pocket"), "default")
    theirs = controlled(
        [PROMPT] * batch,
        image=depths.expand(batch, 3, -1, -1),
        num_inference_steps=steps,
        guidance_scale=guidance,
        controlnet_conditioning_scale=scale,
        control_guidance_start=start,
        control_guidance_end=end,
        generator=generators(5, batch),
        output_type="pt",
    ).images
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize("source", ["pixels", "latents"])
@pytest.mark.parametrize(("strength", "batch"), [(0.5, 1), (1.0, 2)])
def test_controlnet_from_an_image(source: str, strength: float, batch: int, controlled: Any, context: Recorder) -> None:
    pixels, depths = picture(batch), depth(1)
    image: Any = gf.Image(pixels)
    if source == "latents":
        image = EncodeImage().run(image=image, context=context)
    node = ControlNetDepth(steps=6, guidance_scale=3.0, strength=strength, seed=9)
    ours = drawn(node, prompt=PROMPT, depth_map=gf.DepthMap(depths), image=image)
    pipeline = quietly(
        diffusers().StableDiffusionControlNetImg2ImgPipeline(**controlled.components, requires_safety_checker=False)
    )
    pipeline.scheduler = make_scheduler(require_model("pocket"), "default")
    theirs = pipeline(
        [PROMPT] * batch,
        image=pixels if source == "pixels" else image.data,
        control_image=depths.expand(batch, 3, -1, -1),
        strength=strength,
        num_inference_steps=6,
        guidance_scale=3.0,
        controlnet_conditioning_scale=1.0,
        generator=generators(9, batch),
        output_type="pt",
    ).images
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize(("guidance", "steps", "batch"), [(1.0, 2, 1), (3.0, 3, 2)])
@pytest.mark.parametrize("source", ["pixels", "latents"])
def test_upscale(
    guidance: float, steps: int, batch: int, source: str, parts: dict[str, Any], context: Recorder
) -> None:
    pixels = picture(batch, 48, 64)
    image: Any = gf.Image(pixels)
    if source == "latents":
        image = EncodeImage().run(image=image, context=context)
    ours = drawn(Upscale(steps=steps, guidance_scale=guidance, seed=3), image=image, prompt=PROMPT)
    pipeline = quietly(
        diffusers().StableDiffusionLatentUpscalePipeline.from_pretrained(
            str(POCKET_FOLDER / "x2"), dtype=torch.float32, **parts
        )
    )
    theirs = pipeline(
        [PROMPT] * batch,
        image=pixels if source == "pixels" else image.data,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=[""] * batch,
        generator=generators(3, batch),
        output_type="pt",
    ).images
    assert ours.pixels.shape == (batch, 3, 96, 128)
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize(
    ("guidance", "steps", "noise_level", "sampler", "batch"),
    [(1.0, 2, 0, "default", 1), (2.0, 2, 20, "euler", 2), (1.0, 3, 50, "dpm++_2m", 1)],
)
def test_super_resolution(
    guidance: float, steps: int, noise_level: int, sampler: str, batch: int, parts: dict[str, Any]
) -> None:
    pixels = picture(batch, 32, 48)
    node = SuperRes(steps=steps, guidance_scale=guidance, noise_level=noise_level, sampler=sampler, seed=4)
    ours = drawn(node, image=gf.Image(pixels), prompt=PROMPT)
    pipeline = quietly(
        diffusers().StableDiffusionUpscalePipeline.from_pretrained(
            str(POCKET_FOLDER / "x4"), dtype=torch.float32, **parts
        )
    )
    pipeline.scheduler = make_scheduler(require_model("pocket-x4"), sampler)
    theirs = pipeline(
        [PROMPT] * batch,
        image=pixels,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=[""] * batch,
        noise_level=noise_level,
        generator=generators(4, batch),
        output_type="pt",
    ).images
    assert ours.pixels.shape == (batch, 3, 128, 192)
    assert difference(ours.pixels, theirs) <= 1e-4


def test_estimated_depth(context: Recorder, one_thread: None) -> None:
    network = diffusers().UNet2DModel.from_pretrained(str(POCKET_FOLDER / "depth"), dtype=torch.float32)
    pixels = picture(2)
    ours = EstimateDepth().run(image=gf.Image(pixels), context=context)
    with torch.no_grad():
        theirs = network(pixels * 2 - 1, 0).sample.clamp(0, 1)
    assert difference(ours.pixels, theirs) <= 1e-4
    large = EstimateDepth().run(image=gf.Image(picture(1, 96, 160)), context=context)
    assert large.pixels.shape == (1, 1, 96, 160)


@pytest.mark.parametrize("node", [Upscale(steps=2, seed=7), SuperRes(steps=2, seed=7, noise_level=10)])
def test_an_item_of_a_batch_is_its_solo_run(node: gf.Node) -> None:
    pixels = picture(3, 32, 32)
    together = drawn(node, image=gf.Image(pixels))
    for index in range(3):
        solo = node.model_copy(update={"seed": 7 + index})
        alone = drawn(solo, image=gf.Image(pixels[index : index + 1]))
        assert difference(together.pixels[index : index + 1], alone.pixels) <= 1e-3


def test_a_controlled_item_of_a_batch_is_its_solo_run() -> None:
    node = ControlNetDepth(steps=3, seed=7, batch_size=2)
    maps = gf.DepthMap(depth(2))
    together = drawn(node, prompt=PROMPT, depth_map=maps)
    alone = drawn(ControlNetDepth(steps=3, seed=8), prompt=PROMPT, depth_map=gf.DepthMap(maps.pixels[1:]))
    assert difference(together.pixels[1:], alone.pixels) <= 1e-3
