"""While the first steps compute, the system is told which files of weights the later ones will read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import graphflow as gf
from graphflow.graph.bound import largest_weights
from graphflow.machine.read_ahead import CHUNK, read_ahead
from graphflow.machine.switches import Switches
from tests.helpers.engine_pack import REGISTRY

HAPPENED: list[str] = []


class Load(gf.Node, version=1):
    """Adds one, with the weights of some files."""

    files: str = gf.Field("", description="paths, with commas")

    def weight_files(self) -> Iterable[Path]:
        return [Path(name) for name in self.files.split(",") if name]

    def models(self) -> tuple[str, ...]:
        return tuple(self.files.split(","))

    def run(self, *, number: int = 0) -> int:
        HAPPENED.append(f"run {self.files or 'nothing'}")
        return number + 1


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    HAPPENED.clear()
    monkeypatch.setattr(
        "graphflow.run.scheduler.read_ahead", lambda files: HAPPENED.append(f"read {','.join(map(str, files))}")
    )
    return HAPPENED


def chain(*files: str) -> tuple[gf.Workflow, gf.Registry]:
    registry, w = REGISTRY.copy(), gf.Workflow()
    registry.add(Load)
    handle: Any = None
    for index, name in enumerate(files):
        ports = {} if handle is None else {"number": handle}
        handle = w.add(f"n{index}", Load(files=name), **ports)
    w.output("sum", handle)
    return w, registry


def test_the_weights_of_all_steps_are_asked_for_in_the_order_in_which_they_are_wanted(happened: list[str]) -> None:
    w, registry = chain("b", "", "a,c", "b")
    assert w.run(registry=registry, device="cpu")["sum"] == 4
    assert happened == ["read b,a,c,b", "run b", "run nothing", "run a,c", "run b"]


def test_what_is_cached_needs_no_files(happened: list[str]) -> None:
    cache = gf.MemoryCache()
    w, registry = chain("a", "b")
    w.run(registry=registry, device="cpu", cache=cache)
    happened.clear()
    w, registry = chain("a", "b", "c")
    w.run(registry=registry, device="cpu", cache=cache)
    assert happened == ["read c", "run c"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    record: Callable[..., None] = lambda fd, start, length, advice: calls.append((start, length))  # noqa: E731
    monkeypatch.setattr(os, "posix_fadvise", record, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    return calls


def told_of(*files: Path) -> None:
    thread = read_ahead(files)
    if thread is not None:
        thread.join()


def test_a_file_is_asked_for_piece_by_piece_and_once(tmp_path: Path, told: list[tuple[int, int]]) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(2 * CHUNK + 1))
    told_of(tmp_path / "missing", file)
    assert told == [(0, CHUNK), (CHUNK, CHUNK), (2 * CHUNK, CHUNK)]
    told_of(file)
    assert len(told) == 3
    os.utime(file, (1, 1))
    told_of(file)
    assert len(told) == 6


def test_no_more_is_read_ahead_than_there_is_memory_for(
    tmp_path: Path, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("first", "second", "third")]
    for file, size in zip(files, (500, 400, 100), strict=True):
        file.write_bytes(bytes(size))
    monkeypatch.setattr("graphflow.machine.read_ahead.device_memory", lambda device: 1000)
    told_of(*files)
    assert len(told) == 1
    told_of(*files)
    assert len(told) == 3, "what did not fit may be asked for again, what did is not"


def test_systems_that_cannot_be_told_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert read_ahead([tmp_path]) is None


def test_the_largest_file_of_weights_decides_what_auto_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphflow.machine.compute.computes_in_bfloat16", lambda: True)
    monkeypatch.setattr("graphflow.machine.compute.LARGE", 100)
    for name, size in (("small", 60), ("large", 100)):
        (tmp_path / name).write_bytes(bytes(size))
    small, large = str(tmp_path / "small"), str(tmp_path / "large")
    for files, dtype in (
        ((small, small), "float32"),
        ((small, f"{small},{large}"), "bfloat16"),
        (("gone",), "float32"),
    ):
        w, registry = chain(*files)
        run = w.run(registry=registry, device="cpu")
        assert (run.plan.compute.dtype, run.plan.environment["dtype"]) == (dtype, dtype)
        assert Switches(device="cpu").resolve(weights=largest_weights([w.bind(registry=registry)])).dtype == dtype
