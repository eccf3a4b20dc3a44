"""What a process may use of its machine, told by files as Linux writes them, and what `auto` makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import graphflow as gf
from graphflow.machine.compute import LARGE
from graphflow.machine.memory import machine_memory
from graphflow.machine.processor import computes_in_bfloat16, usable_processors
from graphflow.machine.switches import Switches


def machine(folder: Path, groups: str, **files: str) -> Path:
    """A folder that looks like the root of a system; the names of files under /sys/fs/cgroup are written with __."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = folder / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.").replace("memory_", "memory.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("groups", "files", "count"),
    [
        ("0::/\n", {"cpu_max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "20000 100000\n"}, 1),
        ("0::/pod/main\n", {"pod__cpu_max": "300000 100000\n", "pod__main__cpu_max": "max 100000\n"}, 3),
        ("0::/../../elsewhere\n", {"cpu_max": "400000 100000\n"}, 4),
        ("2:cpu,cpuacct:/job\n", {"cpu,cpuacct__job__cpu_cfs_quota_us": "250000\n",
                                  "cpu,cpuacct__job__cpu_cfs_period_us": "100000\n"}, 3),
        ("1:cpu:/job\n", {"cpu__job__cpu_cfs_quota_us": "-1\n", "cpu__job__cpu_cfs_period_us": "100000\n"}, 64),
        ("1:memory:/\n", {"memory__cpu_max": "100000 100000\n"}, 64),
        ("0::/\n", {"cpu_max": "nonsense\n"}, 64),
        ("0::/\n", {}, 64),
    ],
)  # fmt: skip
def test_no_more_processors_than_the_control_group_allows(
    groups: str, files: dict[str, str], count: int, tmp_path: Path, many: None
) -> None:
    assert usable_processors(machine(tmp_path, groups, **files)) == count


def test_no_more_processors_than_the_process_may_run_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 7}, raising=False)
    assert usable_processors(machine(tmp_path, "0::/\n", cpu_max="800000 100000\n")) == 3
    assert usable_processors(tmp_path / "another system") == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_processors(tmp_path) is None


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/pod/main\n", {"pod__memory_max": "2000000\n", "pod__main__memory_max": "max\n"}),
        ("4:memory:/job\n", {"memory__job__memory_limit_in_bytes": "2000000\n"}),
    ],
)
def test_no_more_memory_than_the_control_group_allows(groups: str, files: dict[str, str], tmp_path: Path) -> None:
    whole = machine_memory(tmp_path / "no groups")
    assert whole is not None
    assert whole > 2_000_000
    assert machine_memory(machine(tmp_path, groups, **files)) == 2_000_000


@pytest.mark.parametrize(
    ("text", "able"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n", True),
        ("flags\t\t: fpu amx_bf16\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\nbugs\t\t: bf16\n", False),
        ("Features\t: fp asimd ebf16x\n", False),
        ("", False),
    ],
)
def test_instructions_for_bfloat16_are_found(text: str, able: bool, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    assert computes_in_bfloat16(tmp_path) is able
    assert computes_in_bfloat16(tmp_path / "another system") is False


@pytest.mark.parametrize(
    ("able", "weights", "dtype"),
    [(True, LARGE, "bfloat16"), (True, LARGE - 1, "float32"), (True, None, "float32"), (False, LARGE, "float32")],
)
def test_auto_is_bfloat16_where_the_processor_has_it_and_the_network_is_large(
    able: bool, weights: int | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphflow.machine.compute.computes_in_bfloat16", lambda: able)
    found = Switches(device="cpu").resolve(weights=weights)
    assert found == gf.Compute(dtype=dtype, channels_last=dtype == "bfloat16")  # convolutions are quicker so
    assert Switches(device="cpu", dtype="float32").resolve(weights=weights).dtype == "float32"
    assert Switches(device="cpu", dtype="float16").resolve(weights=weights).dtype == "float16"
