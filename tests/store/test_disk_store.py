"""The store on the disk: what is kept comes back as it was, and nothing else ever does."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from benchmarks import shared_store
from graphflow import Conditioning, DepthMap, Image, Latent, PortType
from graphflow.store.value_files import DamagedError, decode, encode

KEY = "ab" * 32


def silent(message: str) -> None:
    raise AssertionError(message)


def tensors(kind: torch.dtype) -> torch.Tensor:
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1)).to(kind)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_values_come_back_bit_for_bit_with_their_types(tmp_path: Path, kind: torch.dtype) -> None:
    store = gf.DiskStore(tmp_path)
    outputs: dict[str, Any] = {
        "latent": Latent(tensors(kind), "sdxl", "a/model", noise=0.25, steps=12),
        "conditioning": Conditioning(tensors(kind), "sd", pooled=None),
        "image": Image(torch.rand(1, 3, 2, 2)),
        "depth": DepthMap(torch.rand(1, 1, 2, 2)),
        "text": "0" * 64,
        "number": 0.1,
        "whole": 2**63,
        "yes": True,
    }
    store.put(KEY, outputs, silent)
    types = {name: PortType(type(value)) for name, value in outputs.items()}
    found = gf.DiskStore(tmp_path).get(KEY, types, silent)
    assert found is not None and found.keys() == outputs.keys()
    for name, value in outputs.items():
        again = found[name]
        assert type(again) is type(value)
        if not hasattr(value, "nbytes"):
            assert again == value
            continue
        for field in [each.name for each in dataclasses.fields(value)]:
            before, after = getattr(value, field), getattr(again, field)
            if isinstance(before, torch.Tensor):
                assert after.dtype == before.dtype and torch.equal(after, before)
            else:
                assert after == before


@given(st.dictionaries(st.text(max_size=8), st.text() | st.integers() | st.booleans() | st.floats(allow_nan=False)))
def test_any_plain_values_come_back(outputs: dict[str, Any]) -> None:
    data = encode(outputs)
    assert data is not None
    assert decode(data) == outputs


@given(st.data())
def test_a_changed_or_missing_byte_is_noticed(data: st.DataObject) -> None:
    written = encode({"latent": Latent(torch.ones(1, 1, 2, 2), "sd", "m"), "text": "a"})
    assert written is not None
    damaged = bytearray(written)
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(written) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    else:
        del damaged[data.draw(st.integers(0, len(written) - 1)) :]
    with pytest.raises(DamagedError):
        decode(bytes(damaged), [Latent])


def test_a_file_decides_nothing_about_what_is_imported() -> None:
    written = encode({"latent": Latent(torch.ones(1, 1, 1, 1), "sd", "m")})
    assert written is not None
    with pytest.raises(DamagedError, match=r"class graphflow\.types\.Latent, expected graphflow\.types\.Image"):
        decode(written, [Image])


def test_what_no_file_can_hold_is_left_out(tmp_path: Path) -> None:
    store = gf.DiskStore(tmp_path)
    store.put(KEY, {"odd": object()}, silent)
    assert not store.has(KEY) and list(store.entries()) == []


def test_a_damaged_result_is_told_of_and_removed(tmp_path: Path) -> None:
    store = gf.DiskStore(tmp_path)
    store.put(KEY, {"value": "x" * 100}, silent)
    (entry,) = store.entries()
    entry.path.write_bytes(entry.path.read_bytes()[:-3])
    told: list[str] = []
    assert store.get(KEY, {"value": PortType(str)}, told.append) is None
    assert len(told) == 1 and "damaged" in told[0] and str(entry.path) in told[0]
    assert not store.has(KEY)


def test_a_result_of_another_form_than_the_step_gives_is_not_taken(tmp_path: Path) -> None:
    store = gf.DiskStore(tmp_path)
    store.put(KEY, {"value": 1}, silent)
    told: list[str] = []
    assert store.get(KEY, {"low": PortType(int), "high": PortType(int)}, told.append) is None
    assert "found value, expected low, high" in told[0]


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    store = gf.DiskStore(tmp_path, max_bytes=4500)
    keys = [f"{number:02x}" * 32 for number in range(4)]
    for number, key in enumerate(keys[:3]):
        store.put(key, {"value": "x" * 1000}, silent)
        os.utime(store._path(key), (number, number))
    assert store.get(keys[0], {"value": PortType(str)}, silent)
    store.put(keys[3], {"value": "x" * 1000}, silent)
    assert [store.has(key) for key in keys] == [True, False, True, True]
    store.put(KEY, {"value": "x" * 5000}, silent)
    assert not store.has(KEY), "larger than the whole store"
    removed = store.prune(unused_seconds=3600)
    assert [entry.path.stem for entry in removed] == [keys[2]]
    assert len(store.clear()) == 2 and list(store.entries()) == []


def test_a_full_disk_is_told_of_once_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.helpers.engine_pack import REGISTRY, Add, Number

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    workflow = gf.Workflow()
    workflow.add("two", Add(by=1), left=workflow.add("one", Number(value=1)))
    monkeypatch.setattr("graphflow.store.disk.os.fsync", full)
    run = workflow.run(registry=REGISTRY, cache=gf.DiskStore(tmp_path / "full"))
    assert run["two"] == 2
    assert run.outcome.warnings == [f"results are not kept: {tmp_path / 'full'}: No space left on device"]
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name == "writing"] == []


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    store = gf.DiskStore(tmp_path / "file")
    store.put(KEY, {"value": 1}, told.append)
    store.put(KEY, {"value": 1}, told.append)
    assert len(told) == 1
    claim = store.claim(KEY)
    assert claim is not None
    claim.release()


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    import socket

    writing = tmp_path / "writing"
    writing.mkdir()
    dead, alive = (
        writing / f"2147483647@{socket.gethostname()}@00",
        writing / f"{os.getpid()}@{socket.gethostname()}@00",
    )
    foreign, old = writing / "1@elsewhere@00", writing / "1@elsewhere@01"
    for path in (dead, alive, foreign, old):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    gf.DiskStore(tmp_path).put(KEY, {"value": 1}, silent)
    assert sorted(path.name for path in writing.iterdir()) == sorted([alive.name, foreign.name])


def test_one_at_a_time_may_compute_a_key(tmp_path: Path) -> None:
    first, second = gf.DiskStore(tmp_path), gf.DiskStore(tmp_path)
    claim = first.claim(KEY)
    assert claim is not None
    assert second.claim(KEY) is None
    other = second.claim("cd" * 32)
    assert other is not None
    claim.release()
    again = second.claim(KEY)
    assert again is not None
    again.release()
    other.release()


def test_the_size_in_the_environment_bounds_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHFLOW_CACHE", str(tmp_path))
    monkeypatch.setenv("GRAPHFLOW_CACHE_SIZE", "2GB")
    assert gf.DiskStore().max_bytes == 2 * 10**9
    assert gf.DiskStore().folder == tmp_path / "results"
    monkeypatch.setenv("GRAPHFLOW_CACHE_SIZE", "much")
    with pytest.raises(gf.WorkflowError, match="GRAPHFLOW_CACHE_SIZE 'much', expected one like 8GB"):
        gf.DiskStore()


def test_killed_runs_are_finished_right_with_nothing_repeated_and_nothing_left(tmp_path: Path) -> None:
    expected = shared_store.digest(tmp_path, steps=8)
    for trial in range(3):
        folder = tmp_path / str(trial)
        folder.mkdir()
        assert shared_store.killed(folder, random.Random(trial), expected, steps=8) == (True, 0, 0)


def test_processes_on_one_store_share_the_work(tmp_path: Path) -> None:
    printed, twice = shared_store.raced(tmp_path, 3, steps=8)
    assert printed == {shared_store.digest(tmp_path, steps=8)}
    assert twice == 0
