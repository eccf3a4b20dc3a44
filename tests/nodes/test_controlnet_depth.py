"""ControlNetDepth, Upscale and SuperRes before they run: types, problems, expansion."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from graphflow import DepthMap, Image, Latent, Node, PortType, Problem
from graphflow.nodes import ControlNetDepth, DenoiseControlNet, EncodePrompt, FitDepthMap, SuperRes, Upscale
from graphflow.nodes.diffusion.loading.components import load_component, pool
from graphflow.nodes.diffusion.loading.tiling import in_tiles, starts
from graphflow.nodes.diffusion.models.model_info import require_model
from graphflow.nodes.diffusion.models.network_info import check_controlnet, require_network
from tests.helpers.recorder import Recorder


def problems(node: Node, inputs: Mapping[str, PortType]) -> dict[str, Problem]:
    return {problem.code: problem for problem in node.check(inputs)}


def steps_of(node: Node, **values: Any) -> list[str]:
    workflow = gf.Workflow()
    fields: dict[str, Any] = {}
    kinds = {Image: "image", Latent: "latent", DepthMap: "depth_map"}
    for name, value in values.items():
        fields[name] = value if isinstance(value, str) else workflow.input(name, kinds[type(value)])
    workflow.output("out", workflow.add("node", node, **fields))
    given_values = {name: value for name, value in values.items() if not isinstance(value, str)}
    return [step.node.type_id for step in workflow.plan(**given_values).steps]


def image(width: int = 64, height: int = 64, batch: int = 1) -> Image:
    return Image(torch.zeros(batch, 3, height, width))


def depth(width: int = 64, height: int = 64, batch: int = 1) -> DepthMap:
    return DepthMap(torch.zeros(batch, 1, height, width))


def test_from_text_the_size_is_the_depth_maps() -> None:
    made = ControlNetDepth().output_types({"depth_map": PortType(DepthMap, width=97, height=48)})["latent"]
    assert (made.width, made.height) == (96, 48)
    made = ControlNetDepth(width=32).output_types({"depth_map": PortType(DepthMap, width=97, height=48)})["latent"]
    assert (made.width, made.height) == (32, 48)


def test_a_depth_map_of_another_size_is_fitted_and_reported() -> None:
    assert "FitDepthMap" not in steps_of(ControlNetDepth(steps=1), depth_map=depth(), prompt="")
    assert "FitDepthMap" in steps_of(ControlNetDepth(steps=1), depth_map=depth(70, 64), prompt="")
    inputs = {
        "depth_map": PortType(DepthMap, width=70, height=64, batch=1),
        "image": PortType(Latent, "pocket", width=64, height=64),
    }
    assert problems(ControlNetDepth(), inputs)["value.control_size"].severity == "warning"


def test_an_image_alone_is_enough() -> None:
    assert steps_of(ControlNetDepth(steps=2), image=image(), prompt="a ball").count("EstimateDepth") == 1
    assert "EstimateDepth" not in steps_of(ControlNetDepth(steps=2), image=image(), depth_map=depth(), prompt="a ball")


def test_as_many_depth_maps_as_pictures_or_one() -> None:
    inputs = {"depth_map": PortType(DepthMap, width=64, height=64, batch=3)}
    assert problems(ControlNetDepth(batch_size=2), inputs)["value.control_batch"].field == "depth_map"
    assert not problems(ControlNetDepth(batch_size=3), inputs)


def test_any_sizes_of_image_and_depth_map_run(context: Recorder, one_thread: None) -> None:
    for wide, high in ((61, 47), (16, 80)):
        workflow = gf.Workflow()
        node = workflow.add(
            "node", ControlNetDepth(steps=2, guidance_scale=1, strength=0.5), prompt="a ball",
            image=workflow.input("image", "image"), depth_map=workflow.input("map", "depth_map"),
        )  # fmt: skip
        workflow.output("out", node)
        made = workflow.run(image=image(wide, high), map=depth(33, 90))["out"]
        assert made.pixels.shape == (1, 3, high // 4 * 4, wide // 4 * 4)


def test_a_depth_map_that_does_not_fit_is_refused_before_the_first_step(context: Recorder) -> None:
    prompt = EncodePrompt().run(text="", context=context)
    latent = Latent(torch.zeros(1, 4, 16, 16), "pocket", "pocket")
    node = DenoiseControlNet(steps=1, guidance_scale=1)
    with pytest.raises(ValueError, match="put a FitDepthMap before it"):
        node.run(latent=latent, positive=prompt, depth_map=depth(32, 32), context=context)
    fitted = FitDepthMap().run(depth_map=depth(32, 32), latent=latent, context=context)
    assert (fitted.width, fitted.height) == (64, 64)
    assert context.progress == []


def test_a_controlnet_for_another_model_is_reported(tiny_sd: Path) -> None:
    problem = check_controlnet(require_network("pocket-controlnet-depth", "controlnet"), require_model(str(tiny_sd)))
    assert problem is not None
    assert (problem.code, problem.field) == ("model.controlnet", "controlnet")
    assert check_controlnet(require_network("pocket-controlnet-depth", "controlnet"), require_model("pocket")) is None


def test_sizes_of_upscaled_pictures() -> None:
    source = {"image": PortType(Latent, "pocket", width=64, height=48, batch=2)}
    made = Upscale().output_types(source)["latent"]
    assert (made.space, made.width, made.height, made.batch) == ("pocket", 128, 96, 2)
    made = SuperRes().output_types({"image": PortType(Image, width=51, height=37)})["latent"]
    assert (made.width, made.height) == (204, 148)


def test_latents_stay_latents_until_pixels_are_needed() -> None:
    latent = Latent(torch.zeros(1, 4, 16, 16), "pocket", "pocket")
    assert "EncodeImage" not in steps_of(Upscale(steps=1), image=latent)
    assert steps_of(SuperRes(steps=1), image=latent)[0] == "DecodeLatent"


def test_a_picture_of_any_size_is_four_times_as_large(one_thread: None) -> None:
    workflow = gf.Workflow()
    workflow.output("out", workflow.add("node", SuperRes(steps=1), image=workflow.input("image", "image")))
    assert workflow.run(image=image(51, 37))["out"].pixels.shape == (1, 3, 148, 204)


def test_tiles_leave_no_seam(one_thread: None) -> None:
    """The step across every tile's border is no larger than elsewhere, against the picture made in one piece."""
    rows, columns = torch.linspace(0, 1, 96)[:, None], torch.linspace(0, 1, 96)[None, :]
    pixels = torch.stack([rows.expand(96, 96), columns.expand(96, 96), (rows + columns) / 2])[None]

    def enlarged(**tiles: Any) -> torch.Tensor:
        workflow = gf.Workflow()
        node = SuperRes(steps=2, seed=1, **tiles)
        workflow.output("out", workflow.add("node", node, image=workflow.input("image", "image")))
        made: torch.Tensor = workflow.run(image=Image(pixels))["out"].pixels
        return made

    whole, tiled = enlarged(tile_size=96), enlarged(tile_size=48, tile_overlap=16)
    assert float((whole - tiled).abs().mean()) < 0.02
    steps = (whole - tiled).diff(dim=3).abs().mean((0, 1, 2))
    # tiles of 48 pixels with 16 or more in common start at 0, 24 and 48: their ends are at 24, 48 and 72, times 4
    borders = [4 * place - 1 for place in (24, 48, 72)]
    assert max(float(steps[border]) for border in borders) <= 3 * float(steps.median()) + 1e-3


@given(st.integers(1, 300), st.integers(8, 64), st.integers(0, 4))
def test_tiles_cover_everything_and_overlap(length: int, tile: int, overlap: int) -> None:
    places = starts(length, tile, overlap)
    assert places[0] == 0
    assert places[-1] + tile >= length
    assert len(places) == 1 or places[-1] + tile == length
    assert all(after - before <= tile - overlap for before, after in itertools.pairwise(places))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(8, 16), st.integers(0, 4), st.integers(1, 2))
def test_work_that_looks_at_each_place_alone_is_the_same_in_tiles(
    height: int, width: int, tile: int, overlap: int, scale: int
) -> None:
    plane = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)

    def work(rows: slice, columns: slice) -> torch.Tensor:
        return plane[:, :, rows, columns].repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    made = in_tiles(work, height, width, tile=tile, overlap=overlap, scale=scale)
    expected = plane.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert torch.allclose(made, expected, rtol=1e-5, atol=1e-3)


def test_the_pocket_models_share_what_they_have_in_common() -> None:
    pool.clear()
    for reference in ("pocket", "pocket-x2", "pocket-x4"):
        load_component(require_model(reference), "vae", gf.Compute())
        load_component(require_model(reference), "text_encoder", gf.Compute())
    assert len(pool) == 2
