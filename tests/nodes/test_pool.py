"""What the pool holds under a budget, what goes to the machine's memory, and how often models are loaded for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import graphflow as gf
from graphflow import Compute
from graphflow.nodes import Image2Image, Text2Image
from graphflow.nodes.diffusion import models
from graphflow.nodes.diffusion.model_info import require_model
from graphflow.nodes.diffusion.models import load_component
from graphflow.nodes.diffusion.pool import Pool
from graphflow.nodes.diffusion.switches import copied
from graphflow.nodes.diffusion.threads import limit_threads

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


def test_the_budget_of_a_run_bounds_what_is_kept_between_steps(
    fresh_pool: Pool, tiny_sd: Path, one_thread: None
) -> None:
    w = gf.Workflow()
    draft = w.add("draft", Text2Image(width=64, height=64, steps=1), prompt="a ball")
    w.output(
        "out", w.add("redraw", Image2Image(model=str(tiny_sd), steps=1, strength=1.0), image=draft, prompt="a cube")
    )
    planned = w.plan(device="cpu", dtype="float32")
    budget = max(need.total for step in planned.steps if (need := planned.memory(step)))
    held: list[int] = []
    without = w.run(device="cpu", dtype="float32", listeners=[lambda event: held.append(fresh_pool.nbytes("cpu"))])
    assert max(held) > budget, "or the budget would bound nothing"
    loads = fresh_pool.loads
    fresh_pool.clear()
    held.clear()
    bounded = w.run(
        device="cpu", dtype="float32", memory_budget=budget,
        listeners=[lambda event: held.append(fresh_pool.nbytes("cpu"))],
    )  # fmt: skip
    assert 0 < max(held) <= budget
    assert fresh_pool.loads - loads == loads, "each network is loaded once: none is needed again later"
    assert torch.equal(without["out"].pixels, bounded["out"].pixels)


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
    monkeypatch.setattr("graphflow.nodes.diffusion.threads.usable_processors", usable_processors)
    limit_threads()
    assert count == expected
