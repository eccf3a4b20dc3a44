"""Several steps that denoise, computed at once: equal to each alone, with one call of the denoiser for all."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow import Compute, Conditioning, Latent, PortType
from graphflow.nodes import (
    Denoise,
    DenoiseControlNet,
    DenoiseSuperRes,
    DenoiseUpscale,
    EmptyLatent,
    EncodeImage,
    EncodePrompt,
)
from graphflow.nodes.diffusion.families import families_for
from graphflow.nodes.diffusion.loading.components import load_component
from graphflow.nodes.diffusion.models.model_info import require_model
from graphflow.nodes.diffusion.sampling.samplers import SAMPLERS
from tests.helpers import tiny
from tests.helpers.numerics import difference
from tests.helpers.pictures import depth, picture
from tests.helpers.recorder import Recorder

pytestmark = pytest.mark.numeric

TEXTS = ("a red ball and a blue cube on green grass", "a blue cone", "a green cube and a red cone")
SEEDS = (7, 2**64 - 1, 40)
WIDTH, HEIGHT = 64, 128

Arguments = dict[str, Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_sd: Path, one_thread: None) -> Mapping[str, str]:
    """A model of each family that draws, and the embedded one."""
    made = {name: str(build(tmp_path_factory.mktemp(name))) for name, build in tiny.FAMILIES.items()}
    return {"pocket": "pocket", "stable-diffusion": str(tiny_sd), **made}


@pytest.fixture
def contexts(tmp_path: Path) -> list[Recorder]:
    return [Recorder(tmp_path) for _ in range(3)]


def prompts(node: Denoise, text: str, context: Recorder) -> Arguments:
    """Encode the prompt of a node; a negative prompt too where it is guided away from one."""
    info = node.require_model_info()
    if info.family.prior:  # as good as what a prior imagines, and sooner there
        noise = torch.Generator().manual_seed(len(text))
        imagined = torch.randn(2, 1, tiny.IMAGINED, generator=noise)
        return {port: Conditioning(imagined[row], info.text_space) for row, port in enumerate(("positive", "negative"))}
    encode = EncodePrompt(model=node.model)
    found = {"positive": encode.run(text=text, context=context)}
    if info.family.uses_negative_prompt(node.guidance_scale or 1.0):
        found["negative"] = encode.run(text=f"a cone, no {text[:10]}", context=context)
    return found


def latent(node: Denoise, source: str, pictures: int, index: int, context: Recorder) -> Latent:
    if source == "text":
        return EmptyLatent(model=node.model, width=WIDTH, height=HEIGHT, batch_size=pictures).run(context=context)
    seed = node.seed if node.after_encoding else None
    encode = EncodeImage(model=node.model, seed=seed)
    return encode.run(image=gf.Image((picture(pictures, HEIGHT, WIDTH) + 0.3 * index).clamp(0, 1)), context=context)


def steps_of(
    node: Denoise, source: str, pictures: int, contexts: Sequence[Recorder], *, seeds: Sequence[int] = SEEDS
) -> tuple[list[Denoise], list[Arguments]]:
    """A step for each context, with a seed, a prompt and, where it is redrawn, a picture of its own."""
    nodes = [node.model_copy(update={"seed": seed}) for seed, _ in zip(seeds, contexts, strict=False)]
    arguments = [
        {
            "latent": latent(each, source, pictures, index, context),
            **prompts(each, TEXTS[index], context),
            "context": context,
        }
        for index, (each, context) in enumerate(zip(nodes, contexts, strict=False))
    ]
    return nodes, arguments


@contextmanager
def counted(node: Any) -> Iterator[list[int]]:
    """The sizes of the batches that the denoiser is called with meanwhile."""
    info, rows = node.require_model_info(), []
    network = load_component(info, info.family.denoiser, Compute())

    def called(module: Any, positional: Any, named: Any) -> None:
        first = positional[0] if positional else named.get("sample", named.get("hidden_states"))
        rows.append(len(first))

    handle = network.register_forward_pre_hook(called, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


def check_equal(nodes: Sequence[Any], arguments: Sequence[Arguments]) -> list[Latent]:
    """Computed at once they are what they are alone, in as many calls of the denoiser as one of them takes."""
    alone, calls, reported = [], [], []
    for node, given in zip(nodes, arguments, strict=True):
        given["context"].progress.clear()
        with counted(node) as rows:
            alone.append(node.run(**given))
        calls.append(list(rows))
        reported.append(list(given["context"].progress))
        given["context"].progress.clear()
    with counted(nodes[0]) as rows:
        together = type(nodes[0]).run_batch(nodes, arguments)
    assert rows == [sum(each) for each in zip(*calls, strict=True)]
    assert reported[0]
    assert [given["context"].progress for given in arguments] == reported
    for one, other in zip(together, alone, strict=True):
        assert (one.space, one.model, one.noise, one.steps) == (other.space, other.model, other.noise, other.steps)
        assert one.data.dtype == other.data.dtype
        assert difference(one.data, other.data) <= 1e-4
    assert difference(together[0].data, together[1].data) > 1e-2
    return list(together)


def cases() -> Iterator[tuple[str, str, bool]]:
    for family in ("pocket", *families_for("image-to-image")):
        for source in ("text", "picture"):
            for guided in (True, False):
                refines = family == "sdxl-refiner" and source == "text"
                if not refines and not (family == "flux-schnell" and guided):
                    yield family, source, guided


@pytest.mark.parametrize(("count", "pictures"), [(2, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize(("family", "source", "guided"), list(cases()))
def test_steps_computed_at_once_are_what_they_are_alone(
    family: str, source: str, guided: bool, count: int, pictures: int, models: Mapping[str, str],
    contexts: list[Recorder],
) -> None:  # fmt: skip
    guidance = 0.0 if family == "flux-schnell" else 4.0 if guided else 1.0
    strength = None if source == "text" else 0.6
    node = Denoise(model=models[family], steps=3, guidance_scale=guidance, strength=strength)
    assert require_model(node.model).family.name == family.replace("pocket", "stable-diffusion")
    check_equal(*steps_of(node, source, pictures, contexts[:count]))


@pytest.mark.parametrize("family", ["pocket", *families_for("text-to-image")])
def test_each_picture_is_of_its_own_prompt(family: str, models: Mapping[str, str], contexts: list[Recorder]) -> None:
    """With one seed the steps differ in prompts only; the difference is far beyond the tolerance."""
    node = Denoise(model=models[family], steps=4, guidance_scale=0.0 if family == "flux-schnell" else 4.0)
    nodes, arguments = steps_of(node, "text", 1, contexts, seeds=(3, 3, 3))
    alone = [each.run(**given) for each, given in zip(nodes, arguments, strict=True)]
    assert difference(alone[0].data, alone[1].data) > 1e-3
    for one, other in zip(Denoise.run_batch(nodes, arguments), alone, strict=True):
        assert difference(one.data, other.data) <= 1e-4


@pytest.mark.filterwarnings("ignore")  # numpy's and scipy's, of two schedulers
@pytest.mark.parametrize("sampler", sorted({sampler.method for sampler in SAMPLERS.values()}))
def test_whatever_the_sampler_draws(sampler: str, models: Mapping[str, str], contexts: list[Recorder]) -> None:
    for package in SAMPLERS[sampler].needs:
        pytest.importorskip(package)
    node = Denoise(model=models["stable-diffusion"], steps=4, guidance_scale=3.0, sampler=sampler)
    check_equal(*steps_of(node, "text", 1, contexts))


@pytest.mark.parametrize("family", ["pocket", "sdxl", "sd3", "flux"])
def test_noise_after_an_encoding_with_the_same_seed(
    family: str, models: Mapping[str, str], contexts: list[Recorder]
) -> None:
    node = Denoise(model=models[family], steps=4, guidance_scale=3.0, strength=0.6, after_encoding=True)
    check_equal(*steps_of(node, "picture", 2, contexts))


def test_a_schedule_that_two_models_share(models: Mapping[str, str], contexts: list[Recorder]) -> None:
    base = Denoise(model=models["sdxl"], steps=6, guidance_scale=4.0, denoising_end=0.5)
    nodes, arguments = steps_of(base, "text", 1, contexts)
    left = check_equal(nodes, arguments)
    refine = Denoise(model=models["sdxl-refiner"], guidance_scale=4.0)
    given = [
        {"latent": noisy, **prompts(refine, text, context), "context": context}
        for noisy, text, context in zip(left, TEXTS, contexts, strict=True)
    ]
    assert (left[0].noise, left[0].steps) == (0.5, 6)
    check_equal([refine, refine, refine], given)


@pytest.mark.parametrize(("maps", "pictures"), [("one", 2), ("each", 2), ("one", 1)])
@pytest.mark.parametrize("source", ["text", "picture"])
def test_each_under_its_own_depth_map(source: str, maps: str, pictures: int, contexts: list[Recorder]) -> None:
    strength = None if source == "text" else 0.6
    node = DenoiseControlNet(steps=3, guidance_scale=3.0, strength=strength)
    nodes, arguments = steps_of(node, source, pictures, contexts, seeds=(3, 3, 3) if source == "text" else SEEDS)
    for index, given in enumerate(arguments):
        values = depth(pictures if maps == "each" else 1, HEIGHT, WIDTH)
        given["depth_map"] = gf.DepthMap(values.flip(-1 if index else -2) / (index + 1))
    check_equal(nodes, arguments)


TYPE = PortType(Latent, "pocket", "pocket", 64, 64, 1, noise=1.0)
PROMPTS = {"positive": PortType(Conditioning, "pocket"), "negative": PortType(Conditioning, "pocket")}

ENLARGING = [
    (DenoiseUpscale(steps=3), "latent"),
    (DenoiseUpscale(steps=3, after_encoding=True, guidance_scale=1.0), "latent"),
    (DenoiseSuperRes(steps=3, guidance_scale=4.0), "image"),
    (DenoiseSuperRes(steps=2, tile_size=48, tile_overlap=8, noise_level=30), "image"),
]


@pytest.mark.parametrize(("count", "pictures"), [(3, 1), (2, 2)])
@pytest.mark.parametrize(("node", "port"), ENLARGING)
def test_enlarging_at_once_is_what_it_is_alone(
    node: Any, port: str, count: int, pictures: int, contexts: list[Recorder], one_thread: None
) -> None:
    encode, guided = EncodePrompt(model=node.model), node.guidance_scale is None or node.guidance_scale > 1
    nodes, arguments = [], []
    for index, context in enumerate(contexts[:count]):
        image = gf.Image((picture(pictures, 64, 96) + 0.2 * index).clamp(0, 1))
        given: Arguments = {"image": image, "context": context}
        if port == "latent":
            latents = EncodeImage(model=node.model, seed=SEEDS[index]).run(image=image, context=context)
            given = {"latent": latents, "context": context}
        given["positive"] = encode.run(text=TEXTS[index], context=context)
        if guided:
            given["negative"] = encode.run(text=f"a cone, no {index}", context=context)
        nodes.append(node.model_copy(update={"seed": SEEDS[index]}))
        arguments.append(given)
    check_equal(nodes, arguments)


def test_steps_that_enlarge_go_together_where_seeds_and_prompts_alone_differ() -> None:
    of_latents = {"latent": PortType(Latent, "pocket", "pocket", 64, 64, 1, noise=0.0), "positive": PROMPTS["positive"]}
    of_pixels = {"image": PortType(gf.Image, width=64, height=64, batch=1), "positive": PROMPTS["positive"]}
    for node, inputs in ((DenoiseUpscale(), of_latents), (DenoiseSuperRes(), of_pixels)):
        (port,) = inputs.keys() - {"positive"}
        found = node.batch_key(inputs)
        assert found is not None
        assert found == node.model_copy(update={"seed": 5}).batch_key(inputs)
        others = [
            node.model_copy(update={"steps": 3}).batch_key(inputs),
            node.batch_key({**inputs, "negative": PROMPTS["negative"]}),
            node.batch_key({**inputs, port: replace(inputs[port], width=128)}),
        ]
        assert found not in others
        assert None not in others
        assert node.batch_key({**inputs, port: replace(inputs[port], batch=None)}) is None
    tiled = DenoiseSuperRes(tile_size=64)
    assert tiled.batch_key(of_pixels) != DenoiseSuperRes().batch_key(of_pixels)


def test_prompts_of_another_length_go_by_themselves(contexts: list[Recorder]) -> None:
    node = Denoise(steps=3, guidance_scale=3.0)
    nodes, arguments = steps_of(node, "text", 1, contexts)
    long = arguments[1]
    for port in ("positive", "negative"):
        long[port] = Conditioning(torch.cat([long[port].embeds] * 2, 1), long[port].space)
    alone = [each.run(**given) for each, given in zip(nodes, arguments, strict=True)]
    with counted(node) as rows:
        together = Denoise.run_batch(nodes, arguments)
    assert sorted(rows) == sorted([4] * (len(rows) // 2) + [2] * (len(rows) // 2))
    for one, other in zip(together, alone, strict=True):
        assert difference(one.data, other.data) <= 1e-4


def test_what_does_not_fit_is_told_by_its_own_step(contexts: list[Recorder]) -> None:
    nodes, arguments = steps_of(Denoise(steps=2, guidance_scale=3.0), "text", 1, contexts)
    wrong = arguments[2]["positive"]
    arguments[2]["positive"] = Conditioning(wrong.embeds.repeat(3, 1, 1), wrong.space)
    with pytest.raises(ValueError, match="found 3 encoded prompts for a batch of 1"):
        Denoise.run_batch(nodes, arguments)


def test_a_prompt_for_each_picture_of_a_step(contexts: list[Recorder]) -> None:
    nodes, arguments = steps_of(Denoise(steps=3, guidance_scale=3.0), "text", 2, contexts)
    one, other = (arguments[index]["positive"] for index in range(2))
    arguments[0]["positive"] = Conditioning(torch.cat([one.embeds, other.embeds]), one.space)
    check_equal(nodes, arguments)


def test_the_results_can_go_one_by_one(contexts: list[Recorder]) -> None:
    made = Denoise.run_batch(*steps_of(Denoise(steps=2, guidance_scale=3.0), "text", 1, contexts))
    assert all(latent.data.untyped_storage().nbytes() == latent.nbytes for latent in made)


def test_a_run_that_is_asked_to_stop_stops(contexts: list[Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, arguments = steps_of(Denoise(steps=6, guidance_scale=3.0), "text", 1, contexts)

    def step(done: int, total: int) -> None:
        raise gf.Cancelled

    monkeypatch.setattr(contexts[1], "step", step)
    with counted(nodes[0]) as rows, pytest.raises(gf.Cancelled):
        Denoise.run_batch(nodes, arguments)
    assert rows == [6]


def key(node: Denoise | None = None, latent: PortType = TYPE, **ports: PortType) -> Hashable | None:
    return (node or Denoise()).batch_key({"latent": latent, **(ports or PROMPTS)})


def changed(**fields: Any) -> PortType:
    return PortType(Latent, **{**{name: getattr(TYPE, name) for name in TYPE.__slots__ if name != "kind"}, **fields})


def test_seeds_and_prompts_are_all_that_may_differ() -> None:
    assert key() is not None
    assert key() == key(Denoise(seed=5)) == key(latent=changed(model="other"))
    assert hash(key()) == hash(key(Denoise(seed=5)))
    others = [
        Denoise(steps=3), Denoise(guidance_scale=2.0), Denoise(sampler="euler"), Denoise(strength=0.5),
        Denoise(after_encoding=True), Denoise(denoising_end=0.5), Denoise(model="pocket-x2"), DenoiseControlNet(),
        DenoiseControlNet(conditioning_scale=0.5),
    ]  # fmt: skip
    types = [
        changed(width=128), changed(height=128), changed(batch=2), changed(noise=0.0), changed(noise=0.5, steps=4),
        changed(noise=0.5, steps=5), changed(space="sd"),
    ]  # fmt: skip
    keys = [key(), *map(key, others), *(key(latent=each) for each in types), key(positive=PROMPTS["positive"])]
    assert None not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "fields",
    [{"space": None}, {"width": None}, {"height": None}, {"batch": None}, {"noise": None}, {"noise": 0.5}],
)
def test_what_is_not_known_before_the_run_is_run_alone(fields: dict[str, Any]) -> None:
    assert key(latent=changed(**fields)) is None
    assert Denoise().batch_key({}) is None


def test_a_derived_class_may_do_something_else_and_is_run_alone() -> None:
    class Doubled(Denoise, version=1):
        """Denoise and double."""

        def run(
            self, *, latent: Latent, positive: Conditioning, negative: Conditioning | None = None, context: gf.Context
        ) -> Latent:
            made = super().run(latent=latent, positive=positive, negative=negative, context=context)
            return Latent(2 * made.data, made.space, made.model)

    assert key(Doubled()) is None


def test_other_nodes_are_run_one_after_another(contexts: list[Recorder]) -> None:
    nodes = [EncodePrompt(), EncodePrompt()]
    assert nodes[0].batch_key({"text": PortType(str)}) is None
    made = EncodePrompt.run_batch(nodes, [{"text": text, "context": contexts[0]} for text in TEXTS[:2]])
    assert [difference(one.embeds, nodes[0].run(text=text, context=contexts[0]).embeds) for one, text in
            zip(made, TEXTS, strict=False)] == [0, 0]  # fmt: skip
