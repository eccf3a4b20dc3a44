"""Memory that was freed goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import os, torch
from graphflow.nodes.diffusion.loading.process import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

small = [torch.ones(4096) for _ in range(8192)]  # 16 kB each: below what glibc asks the system for by itself
kept = small[::8]
full = resident()
del small
before = resident()
give_back()
print(full, before, resident(), sum(float(each.sum()) for each in kept))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_what_lies_free_between_what_is_in_use_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
        env={**os.environ, "MALLOC_TRIM_THRESHOLD_": str(1 << 30)},
    )  # fmt: skip
    full, before, after, total = (float(word) for word in done.stdout.split())
    assert total == 4096 * 1024
    assert full - before < 50e6, "it went back by itself: the test shows nothing"
    assert before - after > 50e6
