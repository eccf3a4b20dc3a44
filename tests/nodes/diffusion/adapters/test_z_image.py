"""Z-Image and Z-Image-Turbo: equal to direct calls of diffusers in fp32, prompts with a mask, guidance from 0 on."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import graphflow as gf
from graphflow.nodes import ControlNetDepth, Denoise, EmptyLatent, EncodeImage, EncodePrompt, Image2Image, Text2Image
from graphflow.nodes.diffusion.checkpoints.safetensors_header import read_header
from graphflow.nodes.diffusion.families import Defaults
from graphflow.nodes.diffusion.families.z_image import Z_IMAGE_TURBO
from graphflow.nodes.diffusion.loading.components import load_component, quiet
from graphflow.nodes.diffusion.memory.transformers import denoiser_activations, language_model_activations
from graphflow.nodes.diffusion.models.model_info import find_problems, require_model
from tests.helpers import tiny
from tests.helpers.drawing import PROMPT, drawn, goes_through_pixels
from tests.helpers.libraries import diffusers, quietly, transformers
from tests.helpers.measure import check_estimate, peak_of
from tests.helpers.numerics import difference, generators
from tests.helpers.pictures import picture
from tests.helpers.recorder import Recorder
from tests.helpers.tiny_checkpoints import weights

pytestmark = pytest.mark.numeric

NEGATIVE = "a yellow cone"
COMPUTE = gf.Compute()


@pytest.fixture(scope="module")
def turbo(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.z_image(tmp_path_factory.mktemp("z-image-turbo"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    return tiny.z_image(tmp_path_factory.mktemp("z-image"), turbo=False, seed=1)


def direct(cls: str, folder: Path) -> Any:
    """A pipeline as its documentation loads it."""
    return quietly(getattr(diffusers(), cls).from_pretrained(str(folder)))


def test_the_two_models_are_told_apart_by_the_shift_of_their_schedule(turbo: Path, base: Path) -> None:
    one, two = require_model(str(turbo)), require_model(str(base))
    assert (one.family.name, two.family.name) == ("z-image-turbo", "z-image")
    assert one.defaults["text-to-image"] == Defaults(steps=8, guidance_scale=0.0)
    assert two.defaults["image-to-image"] == Defaults(steps=50, guidance_scale=4.0, strength=0.6)
    assert one.text_space == two.text_space == f"z-image-{tiny.QWEN}"
    assert (one.latent_channels, one.native_width, one.size_multiple, one.image_multiple) == (16, 1024, 16, 16)


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("guidance", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("batch", [1, 3])
def test_text_to_image(steps: int, guidance: float, batch: int, turbo: Path) -> None:
    node = Text2Image(
        model=str(turbo), width=64, height=96, steps=steps, guidance_scale=guidance, seed=5, batch_size=batch
    )
    ours = drawn(node, prompt=PROMPT, negative_prompt=NEGATIVE)
    theirs = direct("ZImagePipeline", turbo)(
        PROMPT, negative_prompt=NEGATIVE, width=64, height=96, num_inference_steps=steps, guidance_scale=guidance,
        num_images_per_prompt=batch, generator=generators(5, batch), output_type="pt",
    ).images  # fmt: skip
    assert ours.pixels.shape == (batch, 3, 96, 64)
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize(("steps", "strength"), [(4, 0.25), (6, 0.6), (5, 1.0)])
@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("source", ["pixels", "latents"])
def test_image_to_image(
    steps: int, strength: float, guidance: float, batch: int, source: str, base: Path, context: Recorder
) -> None:
    pixels = picture(batch, 64, 96)
    image: Any = gf.Image(pixels)
    if source == "latents":
        image = EncodeImage(model=str(base)).run(image=image, context=context)
    node = Image2Image(model=str(base), steps=steps, strength=strength, guidance_scale=guidance, seed=9)
    ours = drawn(node, image=image, prompt=PROMPT, negative_prompt=NEGATIVE)
    pipeline = direct("ZImageImg2ImgPipeline", base)
    # as it comes it takes latents of four channels for latents, and those of its own VAE for pixels
    pipeline.image_processor.register_to_config(vae_latent_channels=16)
    theirs = pipeline(
        [PROMPT] * batch, negative_prompt=[NEGATIVE] * batch, image=pixels if source == "pixels" else image.data,
        width=96, height=64, num_inference_steps=steps, strength=strength, guidance_scale=guidance,
        generator=generators(9, batch), output_type="pt",
    ).images  # fmt: skip
    assert ours.pixels.shape == (batch, 3, 64, 96)
    assert difference(ours.pixels, theirs) <= 1e-4


def test_the_defaults_of_both_models(turbo: Path, base: Path) -> None:
    for folder, steps, scale in ((turbo, 8, 0.0), (base, 50, 4.0)):
        ours = drawn(Image2Image(model=str(folder), seed=3), image=gf.Image(picture(1, 32, 32)), prompt=PROMPT)
        theirs = direct("ZImageImg2ImgPipeline", folder)(
            PROMPT, image=picture(1, 32, 32), width=32, height=32, num_inference_steps=steps, guidance_scale=scale,
            generator=generators(3, 1), output_type="pt",
        ).images  # fmt: skip
        assert difference(ours.pixels, theirs) <= 1e-4


def test_an_item_of_a_batch_is_its_solo_run(turbo: Path) -> None:
    node = Text2Image(model=str(turbo), width=64, height=64, steps=3, guidance_scale=2.0, seed=7, batch_size=3)
    batch = drawn(node, prompt=PROMPT, negative_prompt=NEGATIVE)
    for index in range(3):
        alone = drawn(
            node.model_copy(update={"seed": 7 + index, "batch_size": 1}), prompt=PROMPT, negative_prompt=NEGATIVE
        )
        assert difference(batch.pixels[index : index + 1], alone.pixels) <= 1e-4
    assert difference(batch.pixels[:1], batch.pixels[1:2]) > 1e-2


def test_a_prompt_is_filled_up_to_the_window_and_the_mask_tells_which_tokens_are_its_own(
    turbo: Path, context: Recorder
) -> None:
    ours = EncodePrompt(model=str(turbo)).run(text=PROMPT, context=context)
    with torch.no_grad():
        (theirs,), _ = direct("ZImagePipeline", turbo).encode_prompt(PROMPT, do_classifier_free_guidance=False)
    assert ours.embeds.shape == (1, 512, tiny.QWEN)
    assert ours.mask is not None and ours.pooled is None
    assert difference(ours.embeds[0][ours.mask[0].bool()], theirs) <= 1e-4
    assert not ours.embeds[0][~ours.mask[0].bool()].any()


def test_prompts_of_different_lengths_are_one_batch_and_draw_what_each_draws_alone(turbo: Path) -> None:
    prompts = ["a ball", PROMPT, f"{PROMPT}, and {PROMPT}"]
    workflow = gf.Workflow()
    prompt = workflow.input("prompt", "text")
    draw = Text2Image(model=str(turbo), width=64, height=64, steps=2, seed=3)
    workflow.output("image", workflow.add("draw", draw, prompt=prompt))
    run = workflow.run(sweep={"prompt": prompts}, max_batch=3, cache=False)
    (batch,) = {step.batch for step in run.plan.steps if step.node.type_id == "Denoise"}
    assert len(batch) == 3
    for point, text in zip(run.points, prompts, strict=True):
        assert difference(point["image"].pixels, drawn(draw, prompt=text).pixels) <= 1e-4


def test_a_prompt_that_does_not_fit_beside_the_chat_template_is_refused(turbo: Path, context: Recorder) -> None:
    encode = EncodePrompt(model=str(turbo))
    around = int(encode.run(text="", context=context).mask.sum())  # type: ignore[union-attr]
    assert encode.run(text="a" * (512 - around), context=context).embeds.shape == (1, 512, tiny.QWEN)
    with pytest.raises(ValueError, match=f"found a prompt of {513 - around} tokens, expected at most {512 - around}"):
        encode.run(text="a" * (513 - around), context=context)


def test_the_chat_template_is_part_of_the_key(turbo: Path, tmp_path: Path) -> None:
    before = require_model(str(turbo)).digest
    for folder in sorted(turbo.iterdir()):
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "tokenizer").unlink()
    (tmp_path / "tokenizer").mkdir()
    for file in (turbo / "tokenizer").iterdir():
        text = file.read_text()
        (tmp_path / "tokenizer" / file.name).write_text(text + " " if file.suffix == ".jinja" else text)
    assert require_model(str(tmp_path)).digest != before


def test_guidance_is_off_at_zero_only(turbo: Path, base: Path) -> None:
    def encoded(model: Path, scale: float) -> int:
        workflow = gf.Workflow()
        node = Text2Image(model=str(model), width=64, height=64, guidance_scale=scale)
        workflow.output("out", workflow.add("draw", node, prompt=PROMPT, negative_prompt=NEGATIVE))
        return [step.node.type_id for step in workflow.plan().steps].count("EncodePrompt")

    assert (encoded(turbo, 0.0), encoded(turbo, 0.5), encoded(base, 1.0)) == (1, 2, 2)
    latent, positive = gf.PortType(gf.Latent, noise=1.0), gf.PortType(gf.Conditioning)
    (fault,) = Denoise(model=str(base)).check({"latent": latent, "positive": positive})
    assert (fault.code, fault.hint.endswith("or set guidance_scale to 0")) == ("port.missing", True)


def test_latents_stand_for_those_of_flux_and_go_through_pixels_to_other_families(
    turbo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    flux = tiny.flux(tmp_path_factory.mktemp("flux"))
    workflow = gf.Workflow()
    first = workflow.add("first", Text2Image(model=str(turbo), width=64, height=64), prompt=PROMPT)
    again = workflow.add("again", Image2Image(model=str(flux), strength=0.5), image=first, prompt=PROMPT)
    workflow.output("image", again)
    assert workflow.validate() == []
    hop = goes_through_pixels(turbo, tiny.sd3(tmp_path_factory.mktemp("sd3")), steps=2)
    assert "found Latent[sd3] from 'first', expected Latent[flux]" in hop.message


def test_what_it_cannot_do_is_refused(turbo: Path, context: Recorder) -> None:
    depths = gf.PortType(gf.DepthMap, width=64, height=64, batch=1)
    assert [each.code for each in ControlNetDepth(model=str(turbo)).check({"depth_map": depths})] == [
        "model.controlnet"
    ]
    for node, code in (
        (Text2Image(model=str(turbo), denoising_end=0.8), "value.hand_over"),
        (Text2Image(model=str(turbo), width=72, height=64), "value.size_multiple"),
        (Text2Image(model=str(turbo), sampler="ddim"), "value.sampler"),
        (Text2Image(model=str(turbo), clip_skip=1), "value.ignored"),
    ):
        assert [each.code for each in node.check({})] == [code]
    odd = gf.Latent(torch.zeros(1, 16, 8, 9), "flux", str(turbo))
    positive = EncodePrompt(model=str(turbo)).run(text="", context=context)
    with pytest.raises(ValueError, match="found latents of 9 x 8 cells, expected multiples of 2"):
        Denoise(model=str(turbo)).run(latent=odd, positive=positive, context=context)


def test_latents_have_the_dtype_of_the_run(turbo: Path, context: Recorder) -> None:
    context.compute = gf.Compute(dtype="bfloat16")
    empty = EmptyLatent(model=str(turbo), width=64, height=64).run(context=context)
    positive = EncodePrompt(model=str(turbo)).run(text=PROMPT, context=context)
    latent = Denoise(model=str(turbo), steps=1).run(latent=empty, positive=positive, context=context)
    assert latent.data.dtype == torch.bfloat16


LAYERS = r"^(layers|noise_refiner|context_refiner)\.\d+\.(attention\.to_(q|k|v|out\.0)|feed_forward\.w[12])$"
"""Matrices of the transformer that LoRAs change."""


def lora(folder: Path, path: Path, *, prefix: str, alpha: float | None = None, width: int | None = None) -> Path:
    """A LoRA with random numbers; with ``alpha`` as trainers outside of diffusers write it."""
    generator = torch.Generator().manual_seed(1)
    data: dict[str, torch.Tensor] = {}
    for name, value in sorted(weights(folder, "transformer").items()):
        module = name.removesuffix(".weight")
        if re.match(LAYERS, module):
            data[f"{prefix}.{module}.lora_A.weight"] = torch.randn(2, width or value.shape[1], generator=generator) / 4
            data[f"{prefix}.{module}.lora_B.weight"] = torch.randn(value.shape[0], 2, generator=generator) / 4
            if alpha is not None:
                data[f"{prefix}.{module}.alpha"] = torch.tensor(alpha)
    save_file(data, str(path))
    return path


@pytest.mark.parametrize(("prefix", "alpha"), [("transformer", None), ("diffusion_model", 1.0)])
def test_a_lora_changes_the_picture_as_in_diffusers(
    prefix: str, alpha: float | None, turbo: Path, tmp_path: Path
) -> None:
    file = lora(turbo, tmp_path / "style.safetensors", prefix=prefix, alpha=alpha)
    node = Text2Image(model=f"{turbo} + lora:{file}*0.7", width=64, height=64, steps=2, seed=4)
    ours = drawn(node, prompt=PROMPT).pixels
    pipeline = direct("ZImagePipeline", turbo)
    pipeline.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name="style")
    pipeline.set_adapters("style", 0.7)
    theirs = pipeline(
        PROMPT, width=64, height=64, num_inference_steps=2, guidance_scale=0.0, generator=generators(4, 1),
        output_type="pt",
    ).images  # fmt: skip
    assert difference(ours, theirs) <= 1e-4
    assert difference(ours, drawn(node.model_copy(update={"model": str(turbo)}), prompt=PROMPT).pixels) > 1e-3


def test_a_lora_for_another_transformer_is_refused(turbo: Path, tmp_path: Path) -> None:
    wide = lora(turbo, tmp_path / "wide.safetensors", prefix="transformer", width=48)
    foreign = {
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, 8),
        "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": torch.zeros(8, 2),
    }
    save_file(foreign, str(tmp_path / "foreign.safetensors"))
    for file in (wide, tmp_path / "foreign.safetensors"):
        (found,) = find_problems(f"{turbo} + lora:{file}")
        assert (found.code, "is not made for the model" in found.message) == ("model.lora", True)


def original_layout(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The transformer under the names of the first implementation, query, key and value in one matrix."""
    data: dict[str, torch.Tensor] = {}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in weights(folder, "transformer").items():
        name = name.replace("all_final_layer.2-1.", "final_layer.").replace("all_x_embedder.2-1.", "x_embedder.")
        name = name.replace(".to_out.0.", ".out.").replace(".norm_q.", ".q_norm.").replace(".norm_k.", ".k_norm.")
        found = re.fullmatch(r"(.*\.attention)\.to_([qkv])\.weight", name)
        if found:
            parts.setdefault(found[1], {})[found[2]] = value
        else:
            data[prefix + name] = value
    for module, matrices in parts.items():
        data[f"{prefix}{module}.qkv.weight"] = torch.cat([matrices[part] for part in "qkv"])
    return data


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_transformer_in_one_file_draws_with_the_folder_beside_it(prefix: str, turbo: Path, tmp_path: Path) -> None:
    file = tmp_path / "dreams.safetensors"
    save_file(original_layout(turbo, prefix), str(file))
    shutil.copytree(turbo, tmp_path / "dreams")
    (weights_file,) = (tmp_path / "dreams/transformer").glob("*.safetensors")
    weights_file.unlink()
    assert require_model(str(file)).family.name == "z-image-turbo"
    node = Text2Image(model=str(turbo), width=64, height=64, steps=2, seed=4)
    ours = drawn(node.model_copy(update={"model": str(file)}), prompt=PROMPT).pixels
    assert difference(ours, drawn(node, prompt=PROMPT).pixels) <= 1e-5
    one, other = (load_component(require_model(str(path)), "transformer", COMPUTE) for path in (file, turbo))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_transformer_in_one_file_without_the_rest_is_refused(turbo: Path, tmp_path: Path) -> None:
    layout = Z_IMAGE_TURBO.single_file
    assert layout is not None
    config = json.loads((layout.configurations / "z-image-turbo/transformer/config.json").read_text())
    file = tmp_path / "z_image_turbo.safetensors"
    save_file(original_layout(turbo, ""), str(file))
    shapes = read_header(file).shapes
    assert [what for what, _, _ in layout.mismatches(shapes, config)] == [
        "width of it", "width of the text encoding it takes", "number of its blocks",
    ]  # fmt: skip
    (found,) = find_problems(str(file))
    assert (found.code, "the transformer in the file of the model" in found.message) == ("model.shape", True)
    with torch.device("meta"):
        whole = diffusers().ZImageTransformer2DModel.from_config(config)
    assert sum(parameter.numel() for parameter in whole.parameters()) == 6_154_908_736


@pytest.mark.parametrize(("rows", "columns", "text", "items"), [(64, 64, 77, 1), (32, 32, 333, 2), (24, 40, 512, 1)])
def test_the_memory_of_the_denoiser(rows: int, columns: int, text: int, items: int) -> None:
    with quiet():
        network = diffusers().ZImageTransformer2DModel(
            dim=256, n_layers=2, n_refiner_layers=1, n_heads=4, n_kv_heads=4, cap_feat_dim=128, axes_dims=[16, 24, 24],
            axes_lens=[2048, 256, 256],
        ).eval()  # fmt: skip
    latents = [torch.zeros(16, 1, rows, columns)] * items
    with torch.no_grad():
        real = peak_of(partial(network, latents, torch.ones(items), [torch.zeros(text, 128)] * items))
    assert Z_IMAGE_TURBO.denoiser_memory is not None
    check_estimate(
        denoiser_activations(Z_IMAGE_TURBO.denoiser_memory, network.config, rows, columns, text, items, COMPUTE), real
    )


@pytest.mark.parametrize(("width", "inner", "heads", "layers"), [(128, 512, 4, 2), (256, 640, 8, 2), (256, 974, 8, 4)])
def test_the_memory_of_the_text_encoder(width: int, inner: int, heads: int, layers: int) -> None:
    library = transformers()
    config = library.Qwen3Config(
        vocab_size=10, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads // 4, head_dim=width // heads, max_position_embeddings=1024,
    )  # fmt: skip
    with quiet(), torch.no_grad():
        network = library.Qwen3Model(config).eval()
        ids, mask = torch.zeros(1, 512, dtype=torch.long), torch.arange(512)[None] < 100
        real = peak_of(partial(network, input_ids=ids, attention_mask=mask, output_hidden_states=True))
    check_estimate(language_model_activations(config.to_dict(), 512, COMPUTE), real)


def test_the_plan_knows_the_memory_of_every_step_and_a_budget_holds(turbo: Path) -> None:
    workflow = gf.Workflow()
    node = Text2Image(model=str(turbo), width=512, height=512, guidance_scale=2.0)
    workflow.output("image", workflow.add("draw", node, prompt=PROMPT, negative_prompt=NEGATIVE))
    planned = workflow.plan()
    known = {step.node.type_id: planned.memory(step) for step in planned.steps}
    assert all(known[name] for name in ("EncodePrompt", "Denoise", "DecodeLatent"))
    with pytest.raises(gf.WorkflowError, match=r"memory\.budget"):
        workflow.run(memory_budget=1_000_000, cache=False)
