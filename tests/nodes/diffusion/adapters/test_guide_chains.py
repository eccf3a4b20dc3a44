"""The chains of image-to-image as workflow files, by their inputs alone, against the same calls of diffusers, fp32.

The calls leave out what a chain leaves out, so strength and guidance are the defaults of each pipeline; of the steps
there are few. Latents are handed over as ``.images[0]`` of ``output_type="latent"``, pixels as tensors, which lose
nothing to 8 bits.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

import graphflow as gf
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET_FOLDER
from tests.helpers import tiny
from tests.helpers.drawing import PROMPT
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.numerics import difference

pytestmark = pytest.mark.numeric

WORKFLOWS = Path(__file__).parents[4] / "workflows"
SECOND, THIRD = "a yellow cone on sand", "pixel art of a pink cylinder"
NEGATIVE = "blurry, low quality"
STEPS = 10


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path) -> dict[str, Path]:
    """A folder of each kind that the chains go through, and fine-tunes that differ in the denoiser alone."""
    folder = tmp_path_factory.mktemp("chains")
    return {
        "sd": tiny_sd,
        "second": fine_tuned(folder / "second", tiny_sd, 21),
        "third": fine_tuned(folder / "third", tiny_sd, 22),
        "sdxl": tiny.sdxl(folder / "sdxl"),
        "sdxl-refiner": tiny.sdxl_refiner(folder / "sdxl-refiner", folder / "sdxl"),
        "kandinsky": tiny.kandinsky(folder / "kandinsky"),
        "controlnet": tiny.controlnet(folder / "controlnet", tiny_sd),
        "x2": tiny.latent_upscaler(folder / "x2", tiny_sd),
        "x4": tiny.upscaler(folder / "x4"),
    }


def fine_tuned(folder: Path, model: Path, seed: int) -> Path:
    def build() -> Any:
        pipeline = diffusers().StableDiffusionPipeline.from_pretrained(str(model))
        pipeline.unet = tiny.unet(tiny.WIDTH)
        return pipeline

    return tiny.save(folder, build, seed)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("photo") / "photo.png", 64)


@pytest.fixture(scope="module")
def small_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("photo") / "small.png", 32)


def saved(file: Path, side: int) -> Path:
    PIL.Image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 40).convert("RGB").save(file)
    return file


def from_pretrained(cls: str, folder: Path, **parts: Any) -> Any:
    return quietly(getattr(diffusers(), cls).from_pretrained(str(folder), dtype=torch.float32, **parts))


def auto(folder: Path) -> Any:
    """The pipeline that redraws with the model of a folder."""
    return from_pretrained("AutoPipelineForImage2Image", folder)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def kandinsky(decoder: Path, prompt: str, image: Any, seed: int, negative: str | None = None, **arguments: Any) -> Any:
    """Prior and decoder, each with a generator of its own."""
    prior = from_pretrained("KandinskyV22PriorPipeline", decoder.parent / "prior")
    wanted, unwanted = prior(prompt, negative_prompt=negative, generator=seeded(seed), return_dict=False)
    pipeline = from_pretrained("KandinskyV22Img2ImgPipeline", decoder)
    return pipeline(
        image=image, image_embeds=wanted, negative_image_embeds=unwanted, width=64, height=64,
        num_inference_steps=STEPS, generator=seeded(seed), output_type="pt", **arguments,
    ).images  # fmt: skip


def run(name: str, tmp_path: Path, **inputs: Any) -> gf.Run:
    """The workflow file with these inputs; files that it calls are beside it, and all take ``STEPS`` steps."""
    registry, copies = gf.default_registry(), tmp_path / "workflows"
    copies.mkdir()
    for path in WORKFLOWS.glob("*.json"):
        document = json.loads(path.read_text())
        for entry in document["nodes"].values():
            cls = registry.get(entry["type"])
            if cls is not None and "steps" in cls.model_fields:
                entry["steps"] = STEPS
        (copies / path.name).write_text(json.dumps(document))
    given: dict[str, Any] = {key: str(value) if isinstance(value, Path) else value for key, value in inputs.items()}
    return gf.load(copies / f"{name}.json").run(out=tmp_path / "out", device="cpu", **given)


def assert_same(ours: gf.Image, theirs: torch.Tensor) -> None:
    """Equal to 1e-4, and a picture: random weights must not have made one colour of everything."""
    assert float(theirs.std()) > 0.01
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("sd", {"strength": 0.8, "guidance_scale": 7.5}),
        ("sd", {"strength": 0.4, "guidance_scale": 7.5}),
        ("sd", {"strength": 0.8, "guidance_scale": 1.0}),
        ("sd", {"strength": 0.8, "guidance_scale": 7.5, "negative_prompt": NEGATIVE}),
        ("sdxl", {"strength": 0.3, "guidance_scale": 5.0, "negative_prompt": NEGATIVE}),
        ("sdxl-refiner", {"strength": 0.3, "guidance_scale": 5.0, "negative_prompt": NEGATIVE}),
    ],
)
def test_a_picture_redrawn_by_each_kind_of_model_with_each_setting(
    model: str, settings: dict[str, Any], models: dict[str, Path], photo: Path, tmp_path: Path
) -> None:
    ours = run("image_to_image", tmp_path, file=photo, prompt=PROMPT, model=models[model], seed=3, **settings)
    theirs = auto(models[model])(
        PROMPT,
        image=PIL.Image.open(photo),
        num_inference_steps=STEPS,
        generator=seeded(3),
        output_type="pt",
        **settings,
    ).images
    assert_same(ours["image"], theirs)


@pytest.mark.parametrize(
    ("model", "own"),
    [
        ("sd", {"strength": 0.8, "guidance_scale": 7.5}),
        ("sdxl-refiner", {"strength": 0.3, "guidance_scale": 5.0}),
    ],
)
def test_strength_and_guidance_that_are_not_given_are_the_models_own(
    model: str, own: dict[str, Any], models: dict[str, Path], photo: Path, tmp_path: Path
) -> None:
    ours = run("image_to_image", tmp_path, file=photo, prompt=PROMPT, model=models[model], seed=3)
    theirs = auto(models[model])(
        PROMPT, image=PIL.Image.open(photo), num_inference_steps=STEPS, generator=seeded(3), output_type="pt", **own
    ).images
    assert_same(ours["image"], theirs)


def test_a_prompt_with_weights(models: dict[str, Path], photo: Path, tmp_path: Path) -> None:
    compel = pytest.importorskip("compel")
    weighted, negative = "a red ball and a (blue cube)1.4 on (green grass)0.5", "(blurry)1.3, low quality"
    ours = run(
        "prompt_weighting", tmp_path, file=photo, prompt=weighted, negative_prompt=negative, model=models["sd"], seed=3
    )
    pipeline = auto(models["sd"])
    made = compel.CompelForSD(pipeline)(weighted, negative_prompt=negative)

    def redrawn(**prompt: Any) -> torch.Tensor:
        start = PIL.Image.open(photo)
        made = pipeline(image=start, num_inference_steps=STEPS, generator=seeded(3), output_type="pt", **prompt)
        pictures: torch.Tensor = made.images
        return pictures

    theirs = redrawn(prompt_embeds=made.embeds, negative_prompt_embeds=made.negative_embeds)
    assert_same(ours["image"], theirs)
    as_characters = redrawn(prompt=weighted, negative_prompt=negative)
    assert difference(theirs, as_characters) > 0.01, "the weights make no difference"


def test_a_picture_redrawn_by_kandinsky(models: dict[str, Path], photo: Path, tmp_path: Path) -> None:
    settings = {"strength": 0.3, "guidance_scale": 4.0}
    ours = run(
        "image_to_image", tmp_path, file=photo, prompt=PROMPT, model=models["kandinsky"], seed=3,
        negative_prompt=NEGATIVE, **settings,
    )  # fmt: skip
    theirs = kandinsky(models["kandinsky"], PROMPT, PIL.Image.open(photo), 3, NEGATIVE, **settings)
    assert_same(ours["image"], theirs)


def test_text_to_image_to_image_hands_latents_over(models: dict[str, Path], tmp_path: Path) -> None:
    ours = run("text_to_image_to_image", tmp_path, model=models["sd"], prompt=PROMPT, redraw_prompt=SECOND, seed=7)
    drawn = from_pretrained("StableDiffusionPipeline", models["sd"])(
        PROMPT, num_inference_steps=STEPS, generator=seeded(7), output_type="latent"
    ).images[0]
    theirs = auto(models["sd"])(
        SECOND, image=drawn, strength=0.6, num_inference_steps=STEPS, generator=seeded(11), output_type="pt"
    ).images  # fmt: skip
    assert_same(ours["image"], theirs)
    assert hops(ours) == 0


def test_stable_diffusion_to_kandinsky_goes_through_pixels(models: dict[str, Path], tmp_path: Path) -> None:
    ours = run(
        "text_to_image_to_another_model", tmp_path, model=models["sd"], redraw_model=models["kandinsky"],
        prompt=PROMPT, redraw_prompt=SECOND, seed=7, redraw_seed=11,
    )  # fmt: skip
    drawn = from_pretrained("AutoPipelineForText2Image", models["sd"])(
        PROMPT, num_inference_steps=STEPS, generator=seeded(7), output_type="pt"
    ).images
    assert_same(ours["draft"], drawn)
    assert_same(ours["image"], kandinsky(models["kandinsky"], SECOND, drawn, 11))
    assert hops(ours) == 1
    assert [problem.code for problem in ours.plan.warnings] == ["type.hop"]


def test_two_models_of_one_space_hand_latents_over(models: dict[str, Path], tmp_path: Path) -> None:
    ours = run(
        "text_to_image_to_another_model", tmp_path, model=models["sd"], redraw_model=models["second"],
        prompt=PROMPT, redraw_prompt=SECOND, seed=7, redraw_seed=11,
    )  # fmt: skip
    drawn = from_pretrained("AutoPipelineForText2Image", models["sd"])(
        PROMPT, num_inference_steps=STEPS, generator=seeded(7), output_type="latent"
    ).images[0]
    theirs = auto(models["second"])(
        SECOND, image=drawn, num_inference_steps=STEPS, generator=seeded(11), output_type="pt"
    ).images
    assert_same(ours["image"], theirs)
    assert hops(ours) == 0


def hops(run: gf.Run) -> int:
    """Count the encodings of pixels in the plan, without that of a loaded picture."""
    kinds = [step.node.type_id for step in run.plan.steps]
    return kinds.count("EncodeImage") - kinds.count("LoadImage")


def test_image_to_image_to_image_over_three_checkpoints(models: dict[str, Path], photo: Path, tmp_path: Path) -> None:
    ours = run(
        "image_to_image_to_image", tmp_path, file=photo, prompt=PROMPT, second_prompt=SECOND, third_prompt=THIRD,
        model=models["sd"], second_model=models["second"], third_model=models["third"], seed=3,
    )  # fmt: skip
    first = auto(models["sd"])(
        PROMPT, image=PIL.Image.open(photo), num_inference_steps=STEPS, generator=seeded(3), output_type="latent"
    ).images[0]
    second = auto(models["second"])(
        SECOND, image=first, num_inference_steps=STEPS, generator=seeded(3), output_type="latent"
    ).images[0]
    theirs = auto(models["third"])(
        THIRD, image=second, num_inference_steps=STEPS, generator=seeded(3), output_type="pt"
    ).images
    assert_same(ours["image"], theirs)
    assert hops(ours) == 0
    made = [ours[name].pixels for name in ("first", "second", "image")]
    assert all(difference(before, after) > 0.01 for before, after in itertools.pairwise(made))


def test_image_to_upscaler_to_super_resolution(models: dict[str, Path], small_photo: Path, tmp_path: Path) -> None:
    ours = run(
        "image_to_upscale_to_super_res", tmp_path, file=small_photo, prompt=PROMPT, model=models["sd"],
        upscaler=models["x2"], super_resolution=models["x4"], seed=7,
    )  # fmt: skip
    first = auto(models["sd"])(
        PROMPT, image=PIL.Image.open(small_photo), num_inference_steps=STEPS, generator=seeded(7), output_type="latent"
    ).images[0]
    second = from_pretrained("StableDiffusionLatentUpscalePipeline", models["x2"])(
        PROMPT, image=first, num_inference_steps=STEPS, generator=seeded(7), output_type="pt"
    ).images
    theirs = from_pretrained("StableDiffusionUpscalePipeline", models["x4"])(
        PROMPT, image=second, num_inference_steps=STEPS, generator=seeded(7), output_type="pt"
    ).images
    assert theirs.shape == (1, 3, 256, 256)
    assert_same(ours["image"], theirs)
    assert hops(ours) == 0


def controlled(models: dict[str, Path], cls: str = "StableDiffusionControlNetImg2ImgPipeline") -> Any:
    network = from_pretrained_network(models["controlnet"])
    return from_pretrained(cls, models["sd"], controlnet=network)


def from_pretrained_network(folder: Path) -> Any:
    return diffusers().ControlNetModel.from_pretrained(str(folder), dtype=torch.float32)


@pytest.fixture(scope="module")
def depth_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("depth") / "depth.png"
    PIL.Image.radial_gradient("L").resize((64, 64)).save(file)
    return file


def test_a_depth_map_holds_the_picture_that_another_model_styles(
    models: dict[str, Path], photo: Path, depth_map: Path, tmp_path: Path
) -> None:
    inputs: dict[str, Any] = {
        "file": photo, "depth_file": depth_map, "prompt": PROMPT, "style_prompt": SECOND, "negative_prompt": NEGATIVE,
        "model": models["sd"], "controlnet": models["controlnet"], "style_model": models["second"],
        "style_guidance_scale": 10.5, "seed": 4,
    }  # fmt: skip
    ours = run("controlnet_depth_to_image", tmp_path, **inputs)
    held = controlled(models)(
        PROMPT, negative_prompt=NEGATIVE, image=PIL.Image.open(photo),
        control_image=PIL.Image.open(depth_map).convert("RGB"), num_inference_steps=STEPS, generator=seeded(4),
        output_type="latent",
    ).images[0]  # fmt: skip
    theirs = auto(models["second"])(
        SECOND, negative_prompt=NEGATIVE, image=held, strength=0.45, guidance_scale=10.5, num_inference_steps=STEPS,
        generator=seeded(4), output_type="pt",
    ).images  # fmt: skip
    assert_same(ours["image"], theirs)
    assert hops(ours) == 0
    few = [
        controlled(models, "StableDiffusionControlNetPipeline")(
            PROMPT, image=PIL.Image.open(depth_map).convert("RGB"), controlnet_conditioning_scale=scale,
            num_inference_steps=3, generator=seeded(4), output_type="pt",
        ).images
        for scale in (0.0, 0.8)
    ]  # fmt: skip
    assert difference(*few) > 0.01, "the depth map makes no difference"


def test_depth_that_is_estimated_and_depth_from_a_file(
    models: dict[str, Path], photo: Path, depth_map: Path, tmp_path: Path
) -> None:
    ours = run(
        "controlnet_depth", tmp_path, file=photo, depth_file=depth_map, prompt=PROMPT, other_prompt=SECOND,
        model=models["sd"], controlnet=models["controlnet"], seed=4,
    )  # fmt: skip
    pixels = torch.frombuffer(bytearray(PIL.Image.open(photo).convert("RGB").tobytes()), dtype=torch.uint8)
    planes = pixels.reshape(1, 64, 64, 3).permute(0, 3, 1, 2) / 255
    estimator = diffusers().UNet2DModel.from_pretrained(str(POCKET_FOLDER / "depth"), dtype=torch.float32)
    with torch.no_grad():
        estimated = estimator(planes * 2 - 1, 0).sample.clamp(0, 1)
    redrawn = controlled(models)(
        PROMPT, image=PIL.Image.open(photo), control_image=estimated.expand(-1, 3, -1, -1), strength=0.9,
        controlnet_conditioning_scale=1.0, num_inference_steps=STEPS, generator=seeded(4), output_type="pt",
    ).images  # fmt: skip
    assert_same(ours["redrawn"], redrawn)
    drawn = controlled(models, "StableDiffusionControlNetPipeline")(
        SECOND,
        image=PIL.Image.open(depth_map).convert("RGB"),
        num_inference_steps=STEPS,
        generator=seeded(4),
        output_type="pt",
    ).images
    assert_same(ours["drawn"], drawn)
