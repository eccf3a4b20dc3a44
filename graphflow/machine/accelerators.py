"""CUDA devices and their memory as torch would find them, without importing it.

Importing torch takes seconds; a run whose results are all known must not wait for that. The build of torch is read from
its file of versions, and the driver is asked how many devices there are.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import sys
from functools import cache
from pathlib import Path

__all__ = ["cuda_available", "cuda_memory"]


@cache
def cuda_available() -> bool:
    """Answer as ``torch.cuda.is_available()`` would. A build for ROCm is asked itself, which imports torch."""
    if "torch" not in sys.modules:
        build = _build_of_torch()
        if build == "cpu":
            return False
        if build == "cuda":
            return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and _devices_of_driver() > 0
    import torch

    return bool(torch.cuda.is_available())


def cuda_memory(number: int) -> int:
    """Return the bytes of the whole memory of the device "cuda:<number>", which is there."""
    if "torch" not in sys.modules and _build_of_torch() == "cuda":
        driver, handle, size = _driver(), ctypes.c_int(), ctypes.c_size_t()
        if (
            driver is not None
            and driver.cuDeviceGet(ctypes.byref(handle), number) == 0
            and driver.cuDeviceTotalMem_v2(ctypes.byref(size), handle) == 0
        ):
            return size.value
    import torch

    return int(torch.cuda.get_device_properties(number).total_memory)


def _build_of_torch() -> str | None:
    """Find what the installed torch was built for: "cuda", "cpu", or None where its file leaves that open."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = (Path(found.origin).parent / "version.py").read_text()
    except OSError:
        return None
    built = dict(re.findall(r"^(cuda|hip)\b[^=\n]*= *(.+)$", text, re.MULTILINE))
    if built.get("hip", "None") != "None" or "cuda" not in built:
        return None
    return "cpu" if built["cuda"] == "None" else "cuda"


def _devices_of_driver() -> int:
    """Count the devices that the CUDA driver sees, 0 where there is no driver."""
    driver, count = _driver(), ctypes.c_int(0)
    return count.value if driver is not None and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def _driver() -> ctypes.CDLL | None:
    """Load the CUDA driver, ready to be asked, None where there is none."""
    for name in ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so"):
        with contextlib.suppress(OSError, AttributeError):
            driver = ctypes.CDLL(name)
            if driver.cuInit(0) == 0:
                return driver
    return None
