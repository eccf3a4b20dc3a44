"""The processor's instructions, and the share of the machine that this process may use, read from Linux without torch.

On other systems nothing is known: float32, and as many threads as torch takes by itself.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["computes_in_bfloat16", "control_groups", "convolves_with_onednn", "instruction_sets", "usable_processors"]

BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags in /proc/cpuinfo of instructions that multiply matrices in bfloat16: two of x86, one of ARM."""

_AVX = frozenset({"sse4_1", "avx"})
_AVX2 = _AVX | {"avx2"}
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}

INSTRUCTION_SETS = {
    "SSE41": frozenset({"sse4_1"}),
    "AVX": _AVX,
    "AVX2": _AVX2,
    "AVX2_VNNI_2": _AVX2 | {"avx_vnni", "avx_ne_convert"},
    "AVX512_CORE": _AVX512,
    "AVX512_CORE_BF16": _AVX512 | {"avx512_bf16"},
    "AVX512_CORE_FP16": _AVX512 | {"avx512_bf16", "avx512_fp16"},
}
"""Instruction sets of x86 between which oneDNN chooses, the best one last, and the flags that each needs.

Those that differ from one of these in whole numbers only (``_VNNI``) are left out, and so is AMX: what has it has the
last one.
"""
_CONVOLVING = {
    "bfloat16": ("AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_FP16"),
    "float16": ("AVX2_VNNI_2", "AVX512_CORE_FP16"),
}
"""Sets with which torch has oneDNN convolve in half precision: ``mkldnn_bf16_device_check`` and its twin for fp16."""


@cache
def _instructions(system: Path) -> frozenset[str]:
    """Flags of the processor's instructions; none where they are not listed."""
    try:
        text = (system / "proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = frozenset(match[1].split() if match else ())
    return flags | {"avx_ne_convert"} if "avx_vnni" in flags and _converts_bfloat16() else flags


def _converts_bfloat16() -> bool:
    """Ask glibc for AVX-NE-CONVERT, half precision without AVX-512, which Linux leaves out of /proc/cpuinfo."""
    import ctypes  # here, for few processors come so far

    leaf = getattr(ctypes.CDLL(None), "__x86_get_cpuid_feature_leaf", None)  # since glibc 2.33
    if leaf is None:
        return False
    leaf.restype = ctypes.POINTER(ctypes.c_uint32 * 4)
    edx: int = leaf(6).contents[3]  # CPUID_INDEX_7_ECX_1 in sys/platform/x86.h
    return bool(edx & 1 << 5)


def computes_in_bfloat16(system: Path = Path("/")) -> bool:
    """Tell whether the processor has instructions for matrices in bfloat16. ``system`` is where /proc lies."""
    return not BFLOAT16.isdisjoint(_instructions(system))


def instruction_sets(system: Path = Path("/")) -> list[str]:
    """`INSTRUCTION_SETS` that oneDNN may use on the processor, the one that it does use last.

    None is beyond the one that ``ONEDNN_MAX_CPU_ISA``, or ``DNNL_MAX_CPU_ISA``, names.
    """
    flags = _instructions(system)
    named = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA", "")
    limit = INSTRUCTION_SETS.get(named.upper().removesuffix("_VNNI"))
    return [name for name, needed in INSTRUCTION_SETS.items() if needed <= flags and (limit is None or needed <= limit)]


def convolves_with_onednn(dtype: str, system: Path = Path("/")) -> bool:
    """Tell whether torch leaves convolutions in "float16" or "bfloat16" to oneDNN on the processor.

    Where it does not, torch writes out the surroundings of each pixel and multiplies matrices.
    """
    if "bf16" in _instructions(system):  # ARM, whatever oneDNN is limited to
        return dtype == "bfloat16"
    return (instruction_sets(system) or [""])[-1] in _CONVOLVING[dtype]


def usable_processors(system: Path = Path("/")) -> int | None:
    """Processors that this process may keep busy, None where the system does not say.

    That is those it may run on (affinity, cpuset), and no more than the time that its control group and those around it
    are given (``cpu.max`` in version 2, ``cpu.cfs_quota_us`` in version 1), rounded up: a container of 1.5 processors
    gets more done with two threads than with one. ``system`` is where /proc and /sys lie.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    quotas = (_quota(group) for group in control_groups("cpu", system))
    return min([len(os.sched_getaffinity(0)), *(quota for quota in quotas if quota)])


def _quota(group: Path) -> int | None:
    try:
        if (group / "cpu.max").is_file():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text()
        if allowed == "max" or int(allowed) <= 0:  # -1 in version 1
            return None
        return max(1, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):
        return None


def control_groups(controller: str, system: Path = Path("/")) -> Iterator[Path]:
    """Find the control groups that bound this process, from its own outward: their folders for a ``controller``.

    Both versions are looked at, for a machine may use both. ``system`` is where /proc and /sys lie.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    top = system / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            roots = [top, top / "unified"]
        elif controller in controllers.split(","):
            roots = [top / controllers] if controllers == controller else [top / controllers, top / controller]
        else:
            continue
        for root in roots:
            # inside of a container the path may be the one outside, which is not there; its own group is the root then
            folder = root / path.lstrip("/")
            while folder != root:
                yield folder
                folder = folder.parent
            yield root
