"""Attention, offloading, memory layout, compilation and dtypes: what they change, and what they must not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graphflow import Compute, Image, Latent
from graphflow.nodes import (
    ControlNetDepth,
    DecodeLatent,
    Denoise,
    EmptyLatent,
    EncodeImage,
    EncodePrompt,
    SuperRes,
    Upscale,
)
from graphflow.nodes.diffusion.loading import switches
from graphflow.nodes.diffusion.loading.components import begin_step, load_component, pool
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers import tiny
from tests.helpers.measure import run_on
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.usefixtures("one_thread")

REDUCED = 0.05
"""Tolerance, for a picture in [0, 1], of 8 bits of mantissa over a few steps."""


def drawn(model: str, compute: Compute, context: Recorder) -> torch.Tensor:
    """Pixels of a picture that was drawn, decoded, encoded and redrawn: every component is used, some twice."""
    context.compute = compute
    encode = EncodePrompt(model=model)
    prompts: dict[str, Any] = {
        "positive": encode.run(text="a red ball", context=context),
        "negative": encode.run(text="", context=context),
    }
    latent = EmptyLatent(model=model).run(context=context)
    latent = Denoise(model=model, steps=2, guidance_scale=3.0, seed=1, sampler="ddim").run(
        latent=latent, **prompts, context=context
    )
    image = DecodeLatent(model=model).run(latent=latent, context=context)
    latent = EncodeImage(model=model, seed=2).run(image=image, context=context)
    again = Denoise(model=model, steps=4, strength=0.5, guidance_scale=3.0, seed=2, after_encoding=True, sampler="ddim")
    latent = again.run(latent=latent, **prompts, context=context)
    return DecodeLatent(model=model).run(latent=latent, context=context).pixels


def largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())


class TestOffloading:
    """On a machine without an accelerator the hooks run with the CPU as the device that computes."""

    @pytest.mark.parametrize("offload", ["model", "sequential"])
    def test_pictures_are_bit_equal(self, offload: str, context: Recorder, tiny_sd: Path) -> None:
        for model in ("pocket", str(tiny_sd)):
            plain = drawn(model, Compute(), context)
            assert torch.equal(drawn(model, Compute(offload=offload), context), plain)

    @pytest.mark.parametrize("offload", ["model", "sequential"])
    @pytest.mark.parametrize(
        "node", [ControlNetDepth(steps=2, seed=3), Upscale(seed=3), SuperRes(seed=3, tile_size=48, tile_overlap=8)]
    )
    def test_every_family_and_a_controlnet(self, node: Any, offload: str) -> None:
        image = Image(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        plain, offloaded = (run_on(node, Compute(offload=how), image) for how in ("none", offload))
        assert torch.equal(plain, offloaded)

    def test_weights_leave_the_device_layer_by_layer(self) -> None:
        unet = load_component(require_model("pocket"), "unet", Compute(offload="sequential"))
        assert {parameter.device.type for parameter in unet.parameters()} == {"meta"}

    def test_a_component_comes_when_it_is_called_and_goes_before_the_next_step_there(self) -> None:
        """With a device that holds no data, whose name alone shows where the weights are."""
        compute = Compute(device="meta", offload="model")
        vae = load_component(require_model("pocket"), "vae", compute)
        assert {parameter.device.type for parameter in vae.parameters()} == {"cpu"}
        vae._hf_hook.pre_forward(vae)
        assert {parameter.device.type for parameter in vae.parameters()} == {"meta"}
        vae.to_empty(device="cpu")
        moved: list[Any] = []
        vae.to = moved.append  # what came to "meta" has lost its values: only look where it is sent
        vae.to_empty(device="meta")
        begin_step(Compute(), None)
        assert moved == [], "another device may be computing with it"
        begin_step(compute, None)
        assert moved == ["cpu"]
        pool.clear()

    def test_offloaded_components_are_kept_in_the_memory_of_the_machine(self) -> None:
        pool.clear()
        load_component(require_model("pocket"), "vae", Compute(device="meta", offload="model"))
        assert pool.nbytes("cpu") > 0
        assert pool.nbytes("meta") == 0
        pool.clear()


class TestAttention:
    @pytest.mark.numeric
    def test_eager_draws_the_same_in_another_way(self, context: Recorder) -> None:
        plain = drawn("pocket", Compute(), context)
        assert 0 < largest(drawn("pocket", Compute(attention="eager"), context) - plain) < 1e-4

    def test_eager_reaches_every_network_and_leaves_the_others_alone(self, tiny_sd: Path) -> None:
        from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

        info = require_model(str(tiny_sd))
        for attention, expected in (("eager", AttnProcessor), ("sdpa", AttnProcessor2_0)):
            for name in ("unet", "vae"):
                network = load_component(info, name, Compute(attention=attention))
                found = {type(part.processor) for part in network.modules() if isinstance(part, Attention)}
                assert found == {expected}
            encoder = load_component(info, "text_encoder", Compute(attention=attention))
            assert encoder.config._attn_implementation == attention


class TestLayoutAndCompilation:
    @pytest.mark.numeric
    def test_channels_last_draws_the_same(self, context: Recorder) -> None:
        plain = drawn("pocket", Compute(), context)
        compute = Compute(channels_last=True)
        assert largest(drawn("pocket", compute, context) - plain) < 1e-4
        convolution = load_component(require_model("pocket"), "unet", compute).conv_in.weight
        assert convolution.is_contiguous(memory_format=torch.channels_last)
        assert not convolution.is_contiguous()

    @pytest.mark.parametrize("offload", ["none", "model"])
    def test_denoisers_are_compiled_once(
        self, offload: str, context: Recorder, monkeypatch: pytest.MonkeyPatch, tiny_sd: Path
    ) -> None:
        """With a compiler that changes nothing: how torch compiles is not ours to test."""
        compiled: list[Any] = []
        calls: list[int] = []

        def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
            compiled.append(function.__self__)  # type: ignore[attr-defined]

            def call(*arguments: Any, **named: Any) -> Any:
                calls.append(1)
                return function(*arguments, **named)

            return call

        pool.clear()
        plain = drawn(str(tiny_sd), Compute(offload=offload), context)
        monkeypatch.setattr(torch, "compile", compile_)
        compute = Compute(compile=True, offload=offload)
        for _ in range(2):
            assert torch.equal(drawn(str(tiny_sd), compute, context), plain)
        assert [type(network).__name__ for network in compiled] == ["UNet2DConditionModel"]
        assert len(calls) == 2 * (2 + 2)  # the denoise steps of both runs
        pool.clear()

    @pytest.mark.filterwarnings("ignore")  # the compiler's own
    @pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
    def test_what_is_compiled_answers_as_before(self) -> None:
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU())
        values = torch.rand(1, 3, 8, 8)
        plain = network(values)
        switches.placed(network, Compute(compile=True), compiled=True)
        assert largest(network(values) - plain) < 1e-5


class TestDtype:
    @pytest.mark.numeric
    def test_a_vae_that_overflows_in_float16_computes_in_float32(self, tmp_path: Path, context: Recorder) -> None:
        base = str(tiny.sdxl(tmp_path / "sdxl"))
        info = require_model(base)
        assert info.configs["vae"]["force_upcast"] is True
        for dtype, expected in (("float16", torch.float32), ("bfloat16", torch.bfloat16), ("float32", torch.float32)):
            compute = Compute(dtype=dtype)
            assert load_component(info, "vae", compute).dtype == expected
            assert load_component(info, "unet", compute).dtype == getattr(torch, dtype)
        picture = drawn(base, Compute(dtype="float16"), context)
        assert torch.isfinite(picture).all()
        assert largest(picture - drawn(base, Compute(), context)) < REDUCED

    @pytest.mark.numeric
    def test_one_that_does_not_stays_in_float16(self) -> None:
        assert load_component(require_model("pocket"), "vae", Compute(dtype="float16")).dtype == torch.float16


class TestEncodingInTiles:
    """The group norms of a VAE look at the whole of what they are given, so tiles are near and not equal."""

    def picture(self) -> Image:
        coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return Image(torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic").clamp(0, 1))

    def encoded(self, context: Recorder, **fields: Any) -> Latent:
        return EncodeImage(**fields).run(image=self.picture(), context=context)

    def test_one_tile_is_the_whole(self, context: Recorder) -> None:
        whole = self.encoded(context, tile_size=1024, seed=1)
        assert torch.equal(whole.data, self.encoded(context, tile_size=256, seed=1).data)

    def test_several_are_near_the_whole_without_a_seam(self, context: Recorder) -> None:
        whole = self.encoded(context, tile_size=256).data
        difference = self.encoded(context, tile_size=128).data - whole
        assert 0 < float(difference.abs().mean()) < 0.2 * float(whole.std())
        steps = difference.diff(dim=3).abs().mean((0, 1, 2))
        # cells of 4 pixels: tiles of 32 start at 0, 16 and 32, so their ends are before 16, 32 and 48
        ends = steps[[15, 31, 47]].mean()
        assert float(ends) < 2 * float(steps.mean())

    def test_a_sample_takes_the_noise_of_the_whole_picture(self, context: Recorder) -> None:
        noise = [
            self.encoded(context, tile_size=tile, seed=5).data - self.encoded(context, tile_size=tile).data
            for tile in (256, 128)
        ]
        together = torch.corrcoef(torch.stack([values.flatten() for values in noise]))[0, 1]
        assert float(together) > 0.9


def test_equal_settings_share_a_component_whatever_the_budget() -> None:
    info = require_model("pocket")
    compute = Compute()
    assert load_component(info, "vae", compute) is load_component(info, "vae", replace(compute, memory_budget=10**9))
    assert load_component(info, "vae", compute) is not load_component(info, "vae", replace(compute, attention="eager"))
