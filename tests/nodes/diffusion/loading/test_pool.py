"""The content of the pool under a budget, eviction to the machine's memory, and the number of loads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import graphflow as gf
from graphflow import Compute
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET_FOLDER
from graphflow.nodes.diffusion.loading import components as models
from graphflow.nodes.diffusion.loading.components import load_component
from graphflow.nodes.diffusion.loading.pool import Pool
from graphflow.nodes.diffusion.loading.process import limit_threads
from graphflow.nodes.diffusion.loading.switches import copied
from graphflow.nodes.diffusion.models.model_info import require_model

GPU = "cuda:0"


class Weights:
    """Stands for a network that knows where it is."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device


class Devices:
    """A pool with a small accelerator and a machine with some memory, and what was loaded and copied."""

    def __init__(self, accelerator: int, machine: int) -> None:
        self.pool = Pool(lambda device: machine if device == "cpu" else accelerator)
        self.happened: list[str] = []

    def get(self, name: str, size: int = 4, *, expected: int = 0, copies: bool = True) -> Weights:
        def load() -> Weights:
            self.happened.append(f"load {name} beside {self.pool.nbytes(GPU)}")
            return Weights(name, GPU)

        def copy(value: Weights, device: str) -> Weights:
            self.happened.append(f"{name} to {device}")
            return Weights(value.name, device)

        found = self.pool.get(GPU, name, load, lambda _: size, expected=expected, copy=copy if copies else None)
        assert (found.name, found.device) == (name, GPU)
        return found


def test_what_an_accelerator_has_no_room_for_goes_to_the_machine_and_comes_back_without_a_load() -> None:
    devices = Devices(accelerator=10, machine=100)
    first = devices.get("a")
    devices.get("b")
    devices.get("c")
    assert devices.happened == ["load a beside 0", "load b beside 4", "load c beside 8", "a to cpu"]
    assert first.device == GPU, "whoever still holds it goes on using it where it is"
    devices.happened.clear()
    devices.get("a")
    assert devices.happened == ["b to cpu", "a to cuda:0"]
    assert (devices.pool.nbytes(GPU), devices.pool.nbytes("cpu"), devices.pool.loads) == (8, 4, 3)


def test_the_machine_keeps_no_more_than_it_has_memory_for() -> None:
    devices = Devices(accelerator=4, machine=8)
    for name in "abcd":
        devices.get(name)
    assert devices.pool.nbytes("cpu") == 8
    devices.happened.clear()
    devices.get("b")
    devices.get("a")
    assert [word for word in devices.happened if word.startswith("load")] == ["load a beside 4"]


def test_what_is_larger_than_the_machines_share_is_dropped() -> None:
    devices = Devices(accelerator=4, machine=3)
    for name in "aba":
        devices.get(name)
    assert devices.happened == ["load a beside 0", "load b beside 4", "load a beside 4"]


def test_what_cannot_be_copied_is_dropped() -> None:
    devices = Devices(accelerator=4, machine=100)
    for name in "aba":
        devices.get(name, copies=False)
    assert (devices.pool.loads, devices.pool.nbytes("cpu")) == (3, 0)


def test_room_is_made_before_something_is_loaded() -> None:
    devices = Devices(accelerator=10, machine=100)
    for name in "abc":
        devices.get(name, expected=4)
    assert devices.happened == ["load a beside 0", "load b beside 4", "a to cpu", "load c beside 4"]


def test_a_limit_holds_for_what_is_kept_too() -> None:
    devices = Devices(accelerator=100, machine=100)
    devices.get("a")
    devices.get("b")
    devices.pool.limit(GPU, 5)
    devices.get("b")
    assert (devices.pool.nbytes(GPU), devices.pool.nbytes("cpu")) == (4, 4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet", "text_encoder", "vae"])
def test_a_copy_of_a_network_is_whole_and_its_own(name: str, one_thread: None) -> None:
    network = load_component(require_model("pocket"), name, Compute())
    other = copied(network, "cpu")
    assert type(other) is type(network)
    assert other.config == network.config
    pairs = list(zip([*network.parameters(), *network.buffers()], [*other.parameters(), *other.buffers()], strict=True))
    assert pairs
    assert all(torch.equal(ours, theirs) and ours.data_ptr() != theirs.data_ptr() for ours, theirs in pairs)
    if name == "text_encoder":
        tokens = torch.tensor([[1, 2, 3]])
        assert torch.equal(network(tokens).last_hidden_state, other(tokens).last_hidden_state)
    moved = copied(network, "meta")
    assert {tensor.device.type for tensor in [*moved.parameters(), *moved.buffers()]} == {"meta"}
    assert {tensor.device.type for tensor in network.parameters()} == {"cpu"}


@pytest.fixture
def fresh_pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    pool = Pool()
    monkeypatch.setattr(models, "pool", pool)
    return pool


@pytest.fixture
def another(tmp_path: Path) -> Path:
    """The embedded model with another UNet."""
    folder = tmp_path / "another"
    shutil.copytree(POCKET_FOLDER / "base", folder)
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file({name: 0.5 * tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    return folder


def test_the_budget_of_a_run_bounds_what_is_kept_and_each_model_is_still_loaded_once(
    fresh_pool: Pool, another: Path, one_thread: None
) -> None:
    """Two models, eight pictures each, and room for one of them."""
    seed = {"input": "seed"}
    draw = {"type": "Text2Image", "prompt": "a ball", "width": 32, "height": 32, "steps": 1, "seed": seed}
    redraw = {
        "type": "Image2Image", "model": str(another), "image": {"from": "draw"}, "prompt": "a cube", "steps": 1,
        "strength": 1.0, "seed": seed,
    }  # fmt: skip
    document = {
        "graphflow": 1, "inputs": {"seed": {"type": "seed"}}, "nodes": {"draw": draw, "redraw": redraw},
        "outputs": {"out": {"from": "redraw"}},
    }  # fmt: skip
    w = gf.loads(json.dumps(document))
    sweep = {"seed": list(range(8))}
    steps = w.plan(device="cpu", dtype="float32", sweep=sweep).steps
    assert sum(step.node.type_id == "Denoise" for step in steps) == 16
    held: list[int] = []

    def pictures(memory_budget: int | None) -> list[torch.Tensor]:
        fresh_pool.clear()
        held.clear()
        run = w.run(
            device="cpu", dtype="float32", sweep=sweep, cache=False, memory_budget=memory_budget,
            listeners=[lambda event: held.append(fresh_pool.nbytes("cpu"))],
        )  # fmt: skip
        return [point["out"].pixels for point in run.points]

    without = pictures(None)
    loads, both = fresh_pool.loads, max(held)
    unet = sum(tensor.nbytes for tensor in load_component(require_model("pocket"), "unet", Compute()).parameters())
    plan = w.plan(device="cpu", dtype="float32", sweep=sweep)
    computing = max(need.activations for step in steps if (need := plan.memory(step)))
    assert computing < unet // 2
    budget = both - unet // 2
    bounded = pictures(budget)
    assert 0 < max(held) <= budget < both
    assert fresh_pool.loads - loads == loads
    assert len(bounded) == 8
    assert all(torch.equal(one, other) for one, other in zip(without, bounded, strict=True))


@pytest.mark.parametrize(
    ("environment", "threads", "usable", "expected"),
    [({}, 8, 2, 2), ({}, 2, 8, 2), ({}, 8, None, 8), ({"OMP_NUM_THREADS": "8"}, 8, 2, 8)],
)
def test_torch_gets_no_more_threads_than_there_are_processors_for_them(
    environment: dict[str, str], threads: int, usable: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = threads

    def set_threads(wanted: int) -> None:
        nonlocal count
        count = wanted

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    monkeypatch.setattr(torch, "set_num_threads", set_threads)
    usable_processors: Callable[[], int | None] = lambda: usable  # noqa: E731
    monkeypatch.setattr("graphflow.nodes.diffusion.loading.process.usable_processors", usable_processors)
    limit_threads()
    assert count == expected
