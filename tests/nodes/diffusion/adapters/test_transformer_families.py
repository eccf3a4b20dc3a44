"""Every family with a diffusion transformer: offloading, and half precision against diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import graphflow as gf
from graphflow import Compute
from graphflow.nodes import Image2Image
from tests.helpers import tiny
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.measure import run_on
from tests.helpers.numerics import generators
from tests.helpers.pictures import picture

pytestmark = pytest.mark.numeric

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "StableDiffusion3Img2ImgPipeline": tiny.sd3,
    "FluxImg2ImgPipeline": tiny.flux,
    "ZImageImg2ImgPipeline": tiny.z_image,
}

GUIDANCE = {"ZImageImg2ImgPipeline": {"guidance_scale": 0.0}}
"""Where the default of the pipeline is another than that of the model."""


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, one_thread: None
) -> tuple[str, Path]:
    """The name of the image-to-image pipeline, and a model of it."""
    name: str = request.param
    return name, FAMILIES[name](tmp_path_factory.mktemp(name))


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloaded_it_draws_the_same(offload: str, family: tuple[str, Path]) -> None:
    node = Image2Image(model=str(family[1]), steps=4, strength=0.5, seed=3)
    plain, offloaded = (run_on(node, Compute(offload=how), gf.Image(picture(1))) for how in ("none", offload))
    assert torch.equal(plain, offloaded)


def test_in_bfloat16_it_equals_the_pipeline_too(family: tuple[str, Path]) -> None:
    name, model = family
    node = Image2Image(model=str(model), steps=4, strength=0.5, seed=3)
    ours = run_on(node, Compute(dtype="bfloat16"), gf.Image(picture(1)))
    pipeline = quietly(getattr(diffusers(), name).from_pretrained(str(model), dtype=torch.bfloat16))
    theirs = pipeline(
        "a red ball", image=picture(1), width=64, height=64, num_inference_steps=4, strength=0.5,
        generator=generators(3, 1), output_type="pt", **GUIDANCE.get(name, {}),
    ).images  # fmt: skip
    assert theirs.dtype == torch.bfloat16
    assert (ours - theirs).abs().mean() < 0.002
    assert (ours - run_on(node, Compute(), gf.Image(picture(1)))).abs().mean() > 0.002
