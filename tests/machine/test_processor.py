"""The share of a machine that a process may use, from files as Linux writes them, and the choice of `auto`."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

import graphflow as gf
from graphflow.machine import processor
from graphflow.machine.compute import LARGE
from graphflow.machine.memory import machine_memory
from graphflow.machine.processor import (
    computes_in_bfloat16,
    convolves_with_onednn,
    instruction_sets,
    usable_processors,
)
from graphflow.machine.switches import Switches
from tests.helpers.instruction_sets import further_sets


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


AVX2 = "flags : sse4_1 avx f16c avx2"
AVX512 = f"{AVX2} avx512f avx512dq avx512bw avx512vl avx512_vnni"
FLOAT16 = f"{AVX512} avx_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("flags", "limit", "sets", "bfloat16", "float16"),
    [
        ("flags : sse4_1", "", ["SSE41"], False, False),
        (AVX2, "", ["AVX", "AVX2"], False, False),
        (AVX2, "AVX512_CORE_BF16", ["AVX", "AVX2"], False, False),
        (f"{AVX2} avx_vnni", "", ["AVX", "AVX2", "AVX2_VNNI_2"], True, True),
        (f"{AVX2} avx_vnni", "AVX2_VNNI", ["AVX", "AVX2"], False, False),
        (f"{AVX2} avx_vnni", "avx2_vnni_2", ["AVX", "AVX2", "AVX2_VNNI_2"], True, True),
        (f"{AVX2} avx512f", "", ["AVX", "AVX2"], False, False),
        (AVX512, "", ["AVX2", "AVX512_CORE"], True, False),
        (AVX512, "AVX2", ["AVX", "AVX2"], False, False),
        (AVX512, "AVX", ["SSE41", "AVX"], False, False),
        (f"{AVX512} avx512_bf16", "", ["AVX512_CORE", "AVX512_CORE_BF16"], True, False),
        (f"{AVX512} avx512_bf16", "avx512_core_vnni", ["AVX2", "AVX512_CORE"], True, False),
        (FLOAT16, "", ["AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_FP16"], True, True),
        (FLOAT16, "ALL", ["AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_FP16"], True, True),
        (FLOAT16, "AVX512_CORE_AMX", ["AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_FP16"], True, True),
        (FLOAT16, "AVX512_CORE_BF16", ["AVX2", "AVX512_CORE", "AVX512_CORE_BF16"], True, False),
        (FLOAT16, "AVX2", ["AVX", "AVX2"], False, False),
        ("Features : fp asimd i8mm bf16", "", [], True, False),
        ("Features : fp asimd i8mm bf16", "AVX2", [], True, False),
        ("Features : fp asimd fphp asimdhp", "", [], False, False),
        ("", "", [], False, False),
    ],
)
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_instruction_sets_of_onednn(
    flags: str,
    limit: str,
    sets: list[str],
    bfloat16: bool,
    float16: bool,
    variable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\n{flags}\n")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv(variable, limit)
    monkeypatch.setattr(processor, "_converts_bfloat16", lambda: "avx512f" not in flags)
    assert instruction_sets(tmp_path)[-len(sets) :] == sets
    assert convolves_with_onednn("bfloat16", tmp_path) is bfloat16
    assert convolves_with_onednn("float16", tmp_path) is float16


@pytest.mark.parametrize(
    ("available", "further"),
    [
        ([], []),
        (["SSE41", "AVX"], []),
        (["SSE41", "AVX", "AVX2"], []),
        (["SSE41", "AVX", "AVX2", "AVX2_VNNI_2"], ["AVX2"]),
        (["SSE41", "AVX", "AVX2", "AVX512_CORE"], ["AVX2"]),
        (["AVX", "AVX2", "AVX512_CORE", "AVX512_CORE_BF16"], ["AVX2", "AVX512_CORE"]),
        (
            ["AVX", "AVX2", "AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_FP16"],
            ["AVX2", "AVX512_CORE", "AVX512_CORE_BF16"],
        ),
    ],
)
def test_numeric_tests_run_again_with_every_other_set(available: list[str], further: list[str]) -> None:
    assert further_sets(available) == further


@pytest.mark.numeric
@pytest.mark.skipif(sys.platform != "linux", reason="the processor is known on Linux only")
def test_torch_convolves_with_onednn_where_we_say_so() -> None:
    import torch

    assert convolves_with_onednn("bfloat16") is torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert convolves_with_onednn("float16") is torch.ops.mkldnn._is_mkldnn_fp16_supported()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="an instruction of x86")
def test_glibc_is_asked_without_harm() -> None:
    assert processor._converts_bfloat16() in (True, False)


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
