"""The estimates of memory against what torch allocates, weights against what is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from graphflow import Compute, DepthMap, Image, Latent, Memory, Node, PortType
from graphflow.nodes import (
    DecodeLatent,
    Denoise,
    DenoiseControlNet,
    DenoiseSuperRes,
    DenoiseUpscale,
    EmptyLatent,
    EncodeImage,
    EncodePrompt,
    EstimateDepth,
)
from graphflow.nodes.diffusion.loading.components import load_component, pool, quiet
from graphflow.nodes.diffusion.memory import networks
from graphflow.nodes.diffusion.memory.networks import (
    controlnet_activations,
    decoder_activations,
    encoder_activations,
    unet_activations,
    weight_bytes,
)
from graphflow.nodes.diffusion.models.model_info import require_model
from graphflow.nodes.diffusion.models.network_info import require_network
from tests.helpers.libraries import diffusers
from tests.helpers.measure import check_estimate, peak_of
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric


@pytest.fixture(autouse=True)
def _single(one_thread: None) -> Iterator[None]:
    with torch.no_grad():
        yield


def kind_of(value: Any, cell: int) -> PortType:
    if isinstance(value, Latent):
        rows, columns = value.data.shape[-2:]
        return PortType(Latent, width=columns * cell, height=rows * cell, batch=len(value), noise=value.noise)
    if isinstance(value, (Image, DepthMap)):
        return PortType(type(value), width=value.width, height=value.height, batch=len(value))
    return PortType(type(value))


def check_step(node: Any, context: Recorder, cell: int, **values: Any) -> Memory:
    """The estimate of a step, which was held against what a run of it allocates once its model is loaded."""
    need = node.memory({name: kind_of(value, cell) for name, value in values.items()}, context.compute)
    assert need is not None
    node.run(**values, context=context)  # loads the model
    check_estimate(need.activations, peak_of(lambda: node.run(**values, context=context)))
    assert isinstance(need, Memory)
    return need


def prompts(model: str, context: Recorder, *, guided: bool) -> dict[str, Any]:
    encode = EncodePrompt(model=model)
    made = {"positive": encode.run(text="a red ball", context=context)}
    return made | ({"negative": encode.run(text="", context=context)} if guided else {})


class TestStepsOfThePocketModels:
    @pytest.mark.parametrize("guided", [False, True])
    @pytest.mark.parametrize(("width", "height", "batch"), [(64, 64, 1), (64, 64, 4), (128, 192, 1), (256, 128, 2)])
    def test_denoise(self, width: int, height: int, batch: int, guided: bool, context: Recorder) -> None:
        latent = EmptyLatent(width=width, height=height, batch_size=batch).run(context=context)
        node = Denoise(steps=1, guidance_scale=3.0 if guided else 1.0)
        check_step(node, context, 4, latent=latent, **prompts("pocket", context, guided=guided))

    @pytest.mark.parametrize(("size", "batch"), [(64, 1), (128, 2)])
    def test_denoise_under_a_controlnet(self, size: int, batch: int, context: Recorder) -> None:
        latent = EmptyLatent(width=size, height=size, batch_size=batch).run(context=context)
        depth = DepthMap(torch.zeros(1, 1, size, size))
        node = DenoiseControlNet(steps=1, guidance_scale=3.0)
        values = {"latent": latent, "depth_map": depth, **prompts("pocket", context, guided=True)}
        with_network = check_step(node, context, 4, **values)
        without = Denoise(steps=1).memory({"latent": kind_of(latent, 4)}, context.compute)
        assert without
        assert without.weights < with_network.weights
        assert without.activations < with_network.activations

    @pytest.mark.parametrize(("size", "batch"), [(128, 1), (128, 3), (256, 1)])
    def test_upscale(self, size: int, batch: int, context: Recorder) -> None:
        latent = Latent(torch.zeros(batch, 4, size // 4, size // 4), "pocket", "pocket-x2")
        node = DenoiseUpscale(steps=1)
        check_step(node, context, 4, latent=latent, **prompts("pocket-x2", context, guided=False))

    @pytest.mark.parametrize(("size", "tile", "batch"), [(64, 192, 1), (64, 192, 2), (160, 64, 1)])
    def test_super_resolution(self, size: int, tile: int, batch: int, context: Recorder) -> None:
        node = DenoiseSuperRes(steps=1, tile_size=tile, tile_overlap=16)
        pixels = Image(torch.zeros(batch, 3, size, size))
        check_step(node, context, 4, image=pixels, **prompts("pocket-x4", context, guided=False))

    @pytest.mark.parametrize(("size", "tile", "batch"), [(64, 1024, 1), (64, 1024, 8), (256, 1024, 1), (256, 128, 2)])
    def test_decode_and_encode(self, size: int, tile: int, batch: int, context: Recorder) -> None:
        latent = Latent(torch.zeros(batch, 4, size // 4, size // 4), "pocket", "pocket")
        check_step(DecodeLatent(tile_size=tile), context, 4, latent=latent)
        check_step(EncodeImage(tile_size=tile), context, 4, image=Image(torch.zeros(batch, 3, size, size)))

    @pytest.mark.parametrize(("width", "height", "batch"), [(64, 64, 1), (64, 64, 3), (320, 256, 2)])
    def test_depth(self, width: int, height: int, batch: int, context: Recorder) -> None:
        check_step(EstimateDepth(), context, 4, image=Image(torch.zeros(batch, 3, height, width)))

    @pytest.mark.parametrize(("attention", "dtype"), [("eager", "float32"), ("sdpa", "bfloat16"), ("sdpa", "float16")])
    def test_other_settings(self, attention: str, dtype: str, context: Recorder) -> None:
        context.compute = Compute(attention=attention, dtype=dtype)
        latent = EmptyLatent(width=96, height=64).run(context=context)
        node = Denoise(steps=1, guidance_scale=3.0)
        check_step(node, context, 4, latent=latent, **prompts("pocket", context, guided=True))

    @pytest.mark.parametrize(("onednn", "measured"), [(False, 2_848_416), (True, 1_550_000)])
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_half_precision_is_estimated_as_the_processor_convolves(
        self, dtype: str, onednn: bool, measured: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Peaks of the step above on a processor with AVX2, and in bfloat16 on one with AVX512-BF16."""
        monkeypatch.setattr(networks, "convolves_with_onednn", lambda dtype: onednn)
        latent = PortType(Latent, "pocket", "pocket", width=96, height=64, batch=1)
        need = Denoise(steps=1, guidance_scale=3.0).memory({"latent": latent}, Compute(dtype=dtype))
        assert need
        check_estimate(need.activations, measured)

    def test_what_is_not_known_before_the_run_has_no_estimate(self) -> None:
        unknown = PortType(Latent, "pocket", "pocket", 64, 64, None)
        assert Denoise().memory({"latent": unknown}, Compute()) is None
        assert DecodeLatent().memory({"latent": replace(unknown, width=None, batch=1)}, Compute()) is None
        assert Denoise(model="no/model").memory({"latent": unknown}, Compute()) is None

    @pytest.mark.parametrize(
        ("node", "port"),
        [(Denoise(guidance_scale=3.0), "latent"), (DecodeLatent(), "latent"), (EncodeImage(), "image")],
    )
    def test_more_of_everything_needs_more(self, node: Node, port: str) -> None:
        small = PortType(Latent, "pocket", "pocket", 64, 64, 1)
        grown = [replace(small, width=128), replace(small, height=128), replace(small, batch=2)]
        needs = [node.memory({port: kind}, Compute()) for kind in (small, *grown)]
        totals = [need.total for need in needs if need]
        assert len(totals) == 4
        assert all(total > totals[0] for total in totals[1:])


def tiny_unet(**config: Any) -> Any:
    """The architecture of Stable Diffusion 1.x or SDXL with a quarter of its channels."""
    with quiet():
        return diffusers().UNet2DConditionModel(norm_num_groups=16, cross_attention_dim=96, **config).eval()


SD = {"block_out_channels": (80, 160, 320, 320), "attention_head_dim": 8}
SDXL = {
    "block_out_channels": (80, 160, 320), "transformer_layers_per_block": [1, 2, 3], "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip


class TestArchitectures:
    @pytest.mark.parametrize("config", [SD, SDXL], ids=["sd", "sdxl"])
    def test_unets(self, config: dict[str, Any]) -> None:
        unet = tiny_unet(**config)
        for items, rows, columns in ((2, 32, 32), (1, 64, 32)):
            latents, embeds = torch.zeros(items, 4, rows, columns), torch.zeros(items, 7, 96)
            real = peak_of(partial(unet, latents, 1, embeds, return_dict=False))
            check_estimate(unet_activations(unet.config, rows, columns, items, Compute()), real)

    def test_controlnet(self) -> None:
        with quiet():
            network = diffusers().ControlNetModel(norm_num_groups=16, cross_attention_dim=96, **SD).eval()
        latents, embeds, pixels = torch.zeros(2, 4, 32, 32), torch.zeros(2, 7, 96), torch.zeros(2, 3, 256, 256)
        real = peak_of(lambda: network(latents, 1, embeds, controlnet_cond=pixels, return_dict=False))
        check_estimate(controlnet_activations(network.config, 32, 32, 2, Compute()), real)

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_autoencoder(self, attention: str) -> None:
        with quiet():
            vae = diffusers().AutoencoderKL(
                block_out_channels=(32, 64, 128, 128), down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, norm_num_groups=8,
            ).eval()  # fmt: skip
        if attention == "eager":
            vae.set_default_attn_processor()
        compute = Compute(attention=attention)
        for rows, columns in ((16, 16), (48, 32)):
            latents, pixels = torch.zeros(1, 4, rows, columns), torch.zeros(1, 3, rows * 8, columns * 8)
            check_estimate(
                decoder_activations(vae.config, rows, columns, compute), peak_of(partial(vae.decode, latents))
            )
            check_estimate(
                encoder_activations(vae.config, rows, columns, compute), peak_of(partial(vae.encode, pixels))
            )


class TestWeights:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_are_those_that_are_loaded(self, dtype: str, tiny_sd: Path) -> None:
        compute = Compute(dtype=dtype)
        for info in (require_model("pocket"), require_model(str(tiny_sd))):
            for name, component in info.components.items():
                network = load_component(info, name, compute)
                real = sum(tensor.nbytes for tensor in network.parameters())
                assert weight_bytes(component, info.configs[name], compute) == pytest.approx(real, rel=0.01, abs=2000)

    def test_offloaded_layer_by_layer_only_the_largest_is_there(self) -> None:
        network = require_network("pocket-controlnet-depth", "controlnet")
        whole = weight_bytes(network.component, network.config, Compute())
        layer = weight_bytes(network.component, network.config, Compute(offload="sequential"))
        assert whole
        assert layer
        assert 0 < layer < whole / 4

    def test_a_file_that_is_no_safetensors_has_no_estimate(self, tmp_path: Path) -> None:
        info = require_model("pocket")
        for content in (b"", b"\xff" * 20, (4).to_bytes(8, "little") + b"[1]]", (2).to_bytes(8, "little") + b"{}"):
            path = tmp_path / f"{len(content)}.safetensors"
            path.write_bytes(content)
            component = replace(info.components["vae"], files=(path,))
            assert weight_bytes(component, info.configs["vae"], Compute()) is None


def test_a_step_is_given_room_by_the_pool(context: Recorder) -> None:
    """Models of earlier steps are evicted, least recently used first, so that the step fits into the budget."""
    pool.clear()
    encode = EncodePrompt()
    encode.run(text="a red ball", context=context)
    latent = EmptyLatent().run(context=context)
    clean = replace(latent, noise=0.0)
    decode = DecodeLatent()
    need = decode.memory({"latent": kind_of(clean, 4)}, context.compute)
    assert need
    held = pool.nbytes("cpu")
    decode.run(latent=clean, context=context)
    assert pool.nbytes("cpu") > held, "without a budget both stay"
    context.compute, context.memory = Compute(memory_budget=need.total), need
    decode.run(latent=clean, context=context)
    assert pool.nbytes("cpu") <= need.total - need.activations
    context.compute, context.memory = Compute(), None
    encode.run(text="a red ball", context=context)
