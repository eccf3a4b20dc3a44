"""Memory that a step needs and that there is; what does not fit is refused, as are settings that cannot be."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Self

import pytest

import graphflow as gf
from graphflow.machine.memory import device_memory, parse_bytes, show_bytes
from graphflow.machine.switches import Switches
from graphflow.planning.budget import over_budget
from tests.helpers.engine_pack import REGISTRY

RAN: list[str] = []


class Canvas(gf.Node, version=1):
    """A blank picture of known size."""

    def output_types(self, inputs: Mapping[str, gf.PortType]) -> dict[str, gf.PortType]:
        return {"image": gf.PortType(gf.Image, width=1000, height=500, batch=4)}

    def run(self) -> gf.Image:
        RAN.append("Canvas")
        raise AssertionError("something was run")


class Heavy(gf.Node, version=1):
    """Needs 2 bytes or 4 for each pixel of a tile, and weights."""

    tile_size: int = gf.Field(800, description="pixels")
    known: bool = gf.Field(True, description="whether it tells what it needs")

    def memory(self, inputs: Mapping[str, gf.PortType], compute: gf.Compute) -> gf.Memory | None:
        image = inputs["image"]
        if not self.known or image.width is None or image.height is None or image.batch is None:
            return None
        wide, high = min(self.tile_size, image.width), min(self.tile_size, image.height)
        width = 4 if compute.dtype == "float32" else 2
        return gf.Memory(1000 if compute.offload == "sequential" else 1_000_000, wide * high * image.batch * width)

    def lighter(self) -> Iterable[Self]:
        yield type(self)(tile_size=100, known=self.known)

    def run(self, *, image: gf.Image) -> gf.Image:
        return image


def heavy(compute: gf.Compute, **fields: Any) -> gf.Plan:
    registry = REGISTRY.copy()
    registry.add(Canvas)
    registry.add(Heavy)
    workflow = gf.Workflow()
    workflow.output("out", workflow.add("work", Heavy(**fields), image=workflow.add("canvas", Canvas())))
    return gf.plan(workflow.bind(registry=registry), compute=compute)


NEED = 1_000_000 + 800 * 500 * 4 * 4


def test_a_step_that_just_fits_is_let_through() -> None:
    assert over_budget(heavy(gf.Compute(memory_budget=NEED))) == []
    assert len(over_budget(heavy(gf.Compute(memory_budget=NEED - 1)))) == 1


def test_a_step_that_does_not_fit_is_told_with_what_would_help() -> None:
    (problem,) = over_budget(heavy(gf.Compute(memory_budget=2_000_000)))
    assert (problem.code, problem.node, problem.severity) == ("memory.budget", "work", "error")
    assert problem.message == (
        "needs about 7.4 MB of memory (1 MB for weights, 6.4 MB to compute with), expected at most the budget of 2 MB"
    )
    assert problem.hint == (
        "it would need 2.6 MB with a batch of 1, 1.16 MB with tile_size 100, 3 MB with half the width and height, "
        "4.2 MB with --dtype bfloat16"
    )


def test_on_an_accelerator_offloading_and_float16_are_offered() -> None:
    (problem,) = over_budget(heavy(gf.Compute(device="cuda:0", memory_budget=2_000_000)))
    assert "4.2 MB with --dtype float16" in problem.hint
    assert "6.4 MB with --offload sequential" in problem.hint


def test_what_would_not_help_is_not_offered() -> None:
    compute = gf.Compute(device="cuda:0", dtype="float16", offload="sequential", memory_budget=100)
    (problem,) = over_budget(heavy(compute, tile_size=100))
    assert problem.hint == "it would need 21 kB with a batch of 1"


def test_a_step_that_does_not_tell_is_let_through() -> None:
    plan = heavy(gf.Compute(memory_budget=1), known=False)
    assert over_budget(plan) == []
    assert [plan.memory(step) for step in plan.steps] == [None, None]


def test_without_a_budget_the_machine_is_the_limit() -> None:
    whole = device_memory("cpu")
    assert whole
    assert over_budget(heavy(gf.Compute())) == []
    plan = heavy(gf.Compute(), tile_size=10**9)
    vast = {"image": gf.PortType(gf.Image, width=10**7, height=10**7, batch=1)}
    (problem,) = over_budget(replace(plan, steps=(replace(plan.steps[-1], input_types=vast),)))
    assert f"what the machine can give, {show_bytes(whole)[:2]}" in problem.message


def test_nothing_runs_when_a_step_does_not_fit() -> None:
    RAN.clear()
    registry = REGISTRY.copy()
    registry.add(Canvas)
    registry.add(Heavy)
    workflow = gf.Workflow()
    workflow.output("out", workflow.add("work", Heavy(), image=workflow.add("canvas", Canvas())))
    with pytest.raises(gf.WorkflowError, match=r"node 'work': needs about .* \[memory.budget\]"):
        workflow.run(registry=registry, memory_budget="2MB")
    assert RAN == []
    with pytest.raises(AssertionError, match="something was run"):
        workflow.run(registry=registry, memory_budget="1GB")


@pytest.mark.parametrize(
    ("text", "count"),
    [("8GB", 8 * 10**9), ("7.5 GiB", 7.5 * 2**30), ("900mb", 9 * 10**8), ("123", 123), ("1kib", 1024), ("2TB", 2e12)],
)
def test_sizes_are_read(text: str, count: float) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "8 apples", "-1GB", "0", "1e9", "8GB8", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(gf.WorkflowError, match=r"\[memory.unreadable\]"):
        parse_bytes(text)


def test_sizes_are_shown_with_three_digits() -> None:
    counts = (0, 999, 1000, 12_345_678, 999_999, 10**9, 123_456_789_000, 10**13)
    shown = ["0 bytes", "999 bytes", "1 kB", "12.3 MB", "1000 kB", "1 GB", "123 GB", "10000 GB"]
    assert [show_bytes(count) for count in counts] == shown


def codes(**settings: Any) -> list[str]:
    try:
        Switches(**settings).resolve()
    except gf.WorkflowError as error:
        assert all(problem.hint for problem in error.problems if not problem.code.endswith((".unknown", ".unreadable")))
        return sorted(problem.code for problem in error.problems)
    return []


class TestSettings:
    def test_what_is_left_open_is_torchs_own(self) -> None:
        assert Switches(device="cpu").resolve() == gf.Compute()
        assert Switches().resolve(weights=None) == gf.Compute()

    def test_words_that_mean_nothing(self) -> None:
        assert codes(device="cpu", attention="sdp") == ["attention.unknown"]
        assert codes(device="cpu", offload="all") == ["offload.unknown"]
        assert codes(device="cpu", memory_budget="much") == ["memory.unreadable"]

    def test_all_of_them_are_told_at_once(self) -> None:
        found = codes(device="tpu", attention="sdp", offload="all", memory_budget="much")
        assert found == ["attention.unknown", "device.unknown", "memory.unreadable", "offload.unknown"]

    @pytest.mark.parametrize("offload", ["model", "sequential"])
    def test_the_cpu_has_nothing_to_offload_from(self, offload: str) -> None:
        assert codes(device="cpu", offload=offload) == ["offload.device"]

    def test_xformers_needs_the_package_and_cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert codes(device="cpu", attention="xformers") == ["attention.device", "attention.missing"]
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
        assert codes(device="cpu", attention="xformers") == ["attention.device"]

    def test_compiling_needs_a_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "which", lambda name: None)
        assert codes(device="cpu", compile=True) == ["compile.missing"]
        monkeypatch.setattr(shutil, "which", lambda name: name)
        assert codes(device="cpu", compile=True) == []

    def test_what_is_compiled_cannot_lose_its_layers(self) -> None:
        assert "compile.offload" in codes(device="cpu", compile=True, offload="sequential")
