"""Samplers: each against diffusers with that scheduler, under every name that people know it by."""

from __future__ import annotations

import importlib.util
import json
import shutil
from functools import cache
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.cli import main
from graphflow.nodes import ControlNetDepth, Denoise, Image2Image, SuperRes, Text2Image
from graphflow.nodes.diffusion.loading.components import make_scheduler
from graphflow.nodes.diffusion.models.model_info import require_model
from graphflow.nodes.diffusion.sampling.samplers import SAMPLERS
from tests.helpers import tiny
from tests.helpers.drawing import drawn
from tests.helpers.libraries import diffusers, quietly
from tests.helpers.numerics import difference, generators
from tests.helpers.pictures import picture

pytestmark = pytest.mark.numeric

PROMPT = "a red ball on green grass"

MULTISTEP = "DPMSolverMultistepScheduler"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpm++_2m": (MULTISTEP, {}),
    "dpm++_2m_sde": (MULTISTEP, {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++_2m_sde_heun": (MULTISTEP, {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
    "dpm++_3m_sde": (MULTISTEP, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "dpm++_2s": ("DPMSolverSinglestepScheduler", {}),
    "dpm++_sde": ("DPMSolverSDEScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""The scheduler of each sampler in the documentation of diffusers, written independently of the tested table."""

SCHEDULES: dict[str, dict[str, Any]] = {
    "": {},
    **{f"_{name}": {f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")},
    **{f"_{name}": {"timestep_spacing": name} for name in ("trailing", "leading", "linspace")},
}


def parts_of(name: str) -> tuple[str, dict[str, Any]]:
    """The scheduler class of a sampler, and the configuration that it changes."""
    for method, (cls, config) in sorted(METHODS.items(), key=lambda item: -len(item[0])):
        if name.startswith(method) and name.removeprefix(method) in SCHEDULES:
            return cls, config | SCHEDULES[name.removeprefix(method)]
    raise KeyError(name)


def scheduler_for(name: str, folder: Path, seeds: list[int]) -> Any:
    cls, config = parts_of(name)
    if cls in ("DPMSolverSDEScheduler", "LMSDiscreteScheduler") or "use_beta_sigmas" in config:
        pytest.importorskip("scipy")
    if cls == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
        config = config | {"noise_sampler_seed": seeds}
    own = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    made = quietly_made(cls, own, config)
    assert {key: made.config[key] for key in config} == config, "diffusers knows none of it"
    return made


def quietly_made(cls: str, own: dict[str, Any], config: dict[str, Any]) -> Any:
    from graphflow.nodes.diffusion.loading.components import quiet

    with quiet():
        return getattr(diffusers(), cls).from_config(own, **config)


def direct(folder: Path, cls: str, name: str, seeds: list[int]) -> Any:
    scheduler = scheduler_for(name, folder, seeds)
    parts = {**loaded(folder, cls).components, "scheduler": scheduler}
    return quietly(getattr(diffusers(), cls)(**parts, requires_safety_checker=False))


@cache
def loaded(folder: Path, cls: str) -> Any:
    return quietly(getattr(diffusers(), cls).from_pretrained(str(folder), safety_checker=None))


@pytest.fixture(scope="module")
def folder(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a noise schedule of 100 levels: several schedulers walk through all of them when made."""
    copy = tmp_path_factory.mktemp("samplers") / "model"
    shutil.copytree(tiny_sd, copy)
    file = copy / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"num_train_timesteps": 100}))
    return copy


def test_every_method_is_tested_and_every_schedule_is_there() -> None:
    assert {sampler.method for sampler in SAMPLERS.values()} == set(METHODS)
    for name in SAMPLERS:
        parts_of(name)
    for method in ("euler", "heun", "lms", "dpm2", "dpm2_a", "dpm++_2m", "dpm++_2m_sde", "dpm++_sde", "unipc"):
        assert all(method + schedule in SAMPLERS for schedule in SCHEDULES)


WHOLE = [
    name
    for name in SAMPLERS
    if name in METHODS or (name.startswith("euler_") and name.removeprefix("euler") in SCHEDULES)
]
"""Each method, and each schedule once, for what a pipeline does by itself with either."""


@pytest.mark.filterwarnings("ignore")  # numpy's and scipy's, of two schedulers
@pytest.mark.parametrize("name", WHOLE)
def test_text_to_image(name: str, folder: Path) -> None:
    pipeline = direct(folder, "StableDiffusionPipeline", name, [5, 6])
    node = Text2Image(model=str(folder), width=64, height=40, steps=5, seed=5, sampler=name, batch_size=2)
    theirs = pipeline(
        PROMPT, width=64, height=40, num_inference_steps=5, guidance_scale=7.5, num_images_per_prompt=2,
        generator=generators(5, 2), output_type="pt",
    ).images  # fmt: skip
    ours = drawn(node, prompt=PROMPT)
    assert torch.isfinite(ours.pixels).all()
    assert difference(ours.pixels, theirs) <= 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_of_every_schedule(name: str, folder: Path) -> None:
    theirs = walked(scheduler_for(name, folder, [5, 6]))
    ours = walked(make_scheduler(require_model(str(folder)), name, seeds=[5, 6]))
    assert len(ours) == len(theirs) >= 5
    for own, other in zip(ours, theirs, strict=True):
        assert torch.isfinite(own).all()
        assert torch.equal(own, other)


def walked(scheduler: Any) -> list[torch.Tensor]:
    """The latents before the first step of five and after each, where the denoiser is a line."""
    scheduler.set_timesteps(5)
    latents = scheduler.init_noise_sigma * torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    draws = {"generator": generators(5, 2)} if "generator" in signature(scheduler.step).parameters else {}
    found = [latents]
    for timestep in scheduler.timesteps:
        guess = 0.8 * scheduler.scale_model_input(latents, timestep) + 0.1
        latents = scheduler.step(guess, timestep, latents, **draws).prev_sample
        found.append(latents)
    return found


def test_schedules_of_one_method_differ(folder: Path) -> None:
    info = require_model(str(folder))
    ends = [walked(make_scheduler(info, f"euler{schedule}"))[-1] for schedule in SCHEDULES if schedule]
    assert len(ends) == 6
    assert not any(torch.equal(*pair) for pair in combinations(ends, 2))


# How a schedule is spread was compared above; where a redrawing begins in it is a matter of the method, and of the end
# from which the steps are counted.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name for name, sampler in SAMPLERS.items() if name in (sampler.method, f"{sampler.method}_trailing")]
)
def test_image_to_image(name: str, folder: Path) -> None:
    pipeline = direct(folder, "StableDiffusionImg2ImgPipeline", name, [9])
    pixels = picture(1, 40, 64)
    node = Image2Image(model=str(folder), steps=6, strength=0.7, seed=9, sampler=name)
    theirs = pipeline(
        PROMPT, image=pixels, num_inference_steps=6, strength=0.7, guidance_scale=7.5, generator=generators(9, 1),
        output_type="pt",
    ).images  # fmt: skip
    assert difference(drawn(node, image=gf.Image(pixels), prompt=PROMPT).pixels, theirs) <= 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METHODS)
def test_an_item_of_a_batch_is_its_solo_run(name: str, folder: Path) -> None:
    scheduler_for(name, folder, [0])
    node = Text2Image(
        model=str(folder), width=64, height=40, steps=3, seed=3, guidance_scale=1.0, sampler=name, batch_size=2
    )
    together = drawn(node, prompt=PROMPT)
    for index in range(2):
        alone = drawn(node.model_copy(update={"seed": 3 + index, "batch_size": 1}), prompt=PROMPT)
        assert difference(together.pixels[index : index + 1], alone.pixels) <= 1e-4


NAMES = [
    # ours, then A1111, k-diffusion, ComfyUI, InvokeAI, diffusers
    ("dpm++_2m_karras", "DPM++ 2M Karras", "dpmpp_2m karras", "dpmpp_2m_karras", "dpmpp_2m_k"),
    ("dpm++_2m", "DPM++ 2M", "sample_dpmpp_2m", "dpmpp_2m", "DPMSolverMultistepScheduler"),
    ("dpm++_2m_trailing", "DPM++ 2M SGM Uniform", "dpmpp_2m sgm_uniform", "dpmpp_2m/simple"),
    ("dpm++_2m_exponential", "DPM++ 2M Exponential", "dpmpp_2m_exponential"),
    ("dpm++_2m_sde", "DPM++ 2M SDE", "sample_dpmpp_2m_sde", "dpmpp_2m_sde"),
    ("dpm++_2m_sde_heun_karras", "DPM++ 2M SDE Heun Karras"),
    ("dpm++_3m_sde_exponential", "DPM++ 3M SDE Exponential", "dpmpp_3m_sde exponential"),
    ("dpm++_sde", "DPM++ SDE", "sample_dpmpp_sde", "dpmpp_sde", "DPMSolverSDEScheduler"),
    ("dpm++_sde_karras", "DPM++ SDE Karras", "dpmpp_sde karras", "dpmpp_sde_k"),
    ("dpm++_2s", "dpmpp_2s", "DPMSolverSinglestepScheduler"),
    ("euler", "Euler", "sample_euler", "k_euler", "EulerDiscreteScheduler"),
    ("euler_karras", "Euler Karras", "euler_k", "euler karras"),
    ("euler_a", "Euler a", "sample_euler_ancestral", "k_euler_a", "euler_ancestral", "EulerAncestralDiscreteScheduler"),
    ("euler_linspace", "Euler Uniform", "euler normal"),
    ("heun", "Heun", "sample_heun", "HeunDiscreteScheduler"),
    ("lms", "LMS", "sample_lms", "LMSDiscreteScheduler"),
    ("lms_karras", "LMS Karras", "lms_k"),
    ("dpm2", "DPM2", "sample_dpm_2", "dpm_2", "KDPM2DiscreteScheduler"),
    ("dpm2_a", "DPM2 a", "sample_dpm_2_ancestral", "dpm_2_ancestral", "KDPM2AncestralDiscreteScheduler"),
    ("dpm2_a_karras", "DPM2 a Karras"),
    ("ddim", "DDIM", "DDIMScheduler"),
    ("ddim_leading", "ddim ddim_uniform"),
    ("ddpm", "DDPM", "DDPMScheduler"),
    ("pndm", "PLMS", "PNDMScheduler"),
    ("unipc", "UniPC", "uni_pc_bh2", "UniPCMultistepScheduler"),
    ("deis", "DEISMultistepScheduler"),
    ("lcm", "LCM", "LCMScheduler"),
    ("default", "Default"),
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
def test_a_sampler_has_one_spelling_in_a_plan_and_one_key(names: tuple[str, ...]) -> None:
    keys = set()
    for name in names:
        workflow = gf.Workflow()
        workflow.output("out", workflow.add("draw", Text2Image(sampler=name), prompt=PROMPT))
        try:
            steps = workflow.plan().steps
        except gf.MissingError:
            pytest.skip("needs a package that is not here")
        (denoise,) = (step for step in steps if isinstance(step.node, Denoise))
        assert denoise.node.model_dump()["sampler"] == names[0]
        keys.add(denoise.key)
    assert len(keys) == 1


def problems(node: gf.Node, *ports: str) -> dict[str, gf.Problem]:
    workflow = gf.Workflow()
    image = workflow.input("image", "image")
    given: dict[str, Any] = {"prompt": PROMPT} | ({"image": image} if "image" in ports else {})
    workflow.output("out", workflow.add("draw", node, **given))
    return {problem.code: problem for problem in workflow.validate()}


@pytest.mark.parametrize(
    ("name", "near"),
    [("DPM++ 2S a", "dpm++_2s"), ("dpmpp_2s_ancestral", "dpm++_2s"), ("DPM fast", "dpm++_2s"), ("Restart", "heun")],
)
def test_what_diffusers_has_no_scheduler_for_is_told_with_the_nearest(name: str, near: str) -> None:
    problem = problems(Text2Image(sampler=name))["value.sampler"]
    assert f'found the sampler "{name}"' in problem.message
    assert problem.hint == f"diffusers has no scheduler for it; {near} is the nearest"


@pytest.mark.parametrize(
    ("name", "packages"),
    [("DPM++ SDE Karras", "torchsde and scipy"), ("LMS", "scipy"), ("euler_beta", "scipy")],
)
def test_a_package_that_is_not_installed_is_named_before_the_run(
    name: str, packages: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in ("torchsde", "scipy") else real(name, *rest)
    )
    problem = problems(Text2Image(sampler=name))["missing.package"]
    assert f"needs {packages}, which" in problem.message
    assert "graphflow-diffusion[samplers]" in problem.hint
    file = tmp_path / "workflow.json"
    file.write_text(
        json.dumps({"graphflow": 1, "nodes": {"a": {"type": "Text2Image", "prompt": "x", "sampler": name}}})
    )
    assert main(["validate", str(file)]) == 3
    assert packages in capsys.readouterr().err


@pytest.mark.parametrize("node", [Text2Image, Image2Image, ControlNetDepth, SuperRes, Denoise])
def test_a_family_works_with_its_own_samplers_only(node: type[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    from dataclasses import replace

    from graphflow.nodes.diffusion.shared import model_node

    made = node()
    info = require_model(made.model)
    limited = replace(info, family=replace(info.family, samplers=frozenset({"ddim", "euler_karras"})))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_node, "find_model", lambda *_: limited)
        for name in ("ddim", "ddim_trailing", "Euler Karras", "default"):
            assert "value.sampler" not in {problem.code for problem in node(sampler=name).check({})}
        for name in ("euler", "heun"):
            (problem,) = (found for found in node(sampler=name).check({}) if found.code == "value.sampler")
            assert f"family {info.family.name} cannot work with" in problem.message
            assert problem.hint == "this model takes default, ddim, euler_karras"


def test_kandinsky_draws_with_each_sampler_that_it_is_said_to_take(
    tmp_path_factory: pytest.TempPathFactory, one_thread: None
) -> None:
    decoder = tiny.kandinsky(tmp_path_factory.mktemp("kandinsky"))
    allowed = require_model(str(decoder)).family.samplers
    assert allowed is not None
    assert "value.sampler" in problems(Text2Image(model=str(decoder), sampler="euler"))
    for name in allowed:
        for node, given in (
            (Text2Image(model=str(decoder), width=64, height=64, steps=3, sampler=name), {}),
            (Image2Image(model=str(decoder), steps=4, strength=0.5, sampler=name), {"image": gf.Image(picture(1))}),
        ):
            assert torch.isfinite(drawn(node, prompt=PROMPT, **given).pixels).all()


def test_a_latent_consistency_schedule_has_few_steps() -> None:
    assert "value.sampler_steps" not in problems(Text2Image(sampler="lcm", steps=50))
    problem = problems(Text2Image(sampler="LCM", steps=51))["value.sampler_steps"]
    assert problem.field == "steps"
    assert "at most 50" in problem.message
