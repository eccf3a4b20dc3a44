"""Where a run computes: device and dtype."""

from __future__ import annotations

import re
from functools import cache

from graphflow.errors import Problem, WorkflowError

__all__ = ["DTYPES", "resolve_device", "resolve_dtype"]

DTYPES = ("auto", "float32", "bfloat16", "float16")


@cache
def resolve_device(name: str) -> str:
    """``auto`` becomes ``cuda:0`` or ``cpu``; other names are checked. Raises WorkflowError for an absent device."""
    if name == "cpu":
        return name
    if name != "auto" and not re.fullmatch(r"cuda(:\d+)?|mps", name):
        raise WorkflowError(
            [Problem("device.unknown", f"found device '{name}', expected auto, cpu, cuda, cuda:N or mps")]
        )
    import torch  # only to look: a run on the CPU by name never pays for it here

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if name == "mps":
        there = torch.backends.mps.is_available()
    else:
        there = torch.cuda.is_available() and int(name.partition(":")[2] or 0) < torch.cuda.device_count()
    if not there:
        raise WorkflowError(
            [Problem("device.missing", f"the device '{name}' is not on this machine", hint="use --device auto or cpu")]
        )
    return "cuda:0" if name == "cuda" else name


def resolve_dtype(name: str, device: str) -> str:
    """``auto`` is float32 on the CPU and float16 on an accelerator."""
    if name not in DTYPES:
        raise WorkflowError([Problem("dtype.unknown", f"found dtype '{name}', expected one of {', '.join(DTYPES)}")])
    if name != "auto":
        return name
    return "float32" if device == "cpu" else "float16"
