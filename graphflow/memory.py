"""Memory in bytes: what a step needs, what a device has, and how both are written.

1 kB is 1000 bytes and 1 KiB 1024, so 8GB is a little less than what a card sold with 8 GB has.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from graphflow.errors import Problem, WorkflowError

__all__ = ["Memory", "device_memory", "parse_bytes", "show_bytes"]

_UNITS = {"": 1, **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}


@dataclass(frozen=True, slots=True)
class Memory:
    """What a step needs on its device at its peak, in bytes.

    ``weights`` are the parameters that must be there at once, ``activations`` everything else: inputs, outputs and what
    is alive between them.
    """

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.activations


def show_bytes(count: int) -> str:
    """``12.3 GB``, ``870 MB``, ``40 kB``: three digits at most."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
    return f"{count} bytes"


def parse_bytes(text: str, what: str = "memory budget") -> int:
    """The bytes that ``8GB``, ``7.5 GiB``, ``900MB`` or ``1000000`` mean. Raises WorkflowError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B|)", text.strip(), re.IGNORECASE)
    count = 0
    if match:
        unit = match[2].upper().replace("IB", "iB")
        count = int(float(match[1]) * _UNITS[unit])
    if not count:
        raise WorkflowError(
            [Problem("memory.unreadable", f"found the {what} '{text}', expected one like 8GB, 7.5GiB or 900MB")]
        )
    return count


def device_memory(device: str) -> int | None:
    """Bytes that a run may use: all of an accelerator's, and what the machine can still give for the CPU.

    None where nobody tells. Asking an accelerator imports torch.
    """
    if device == "cpu":
        return _available()
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)
    return int(torch.mps.recommended_max_memory()) if device == "mps" else None


def _available() -> int | None:
    """Memory that this process can have.

    That is what is free and what it holds itself, such as loaded models, and no more than its control group allows.
    """
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        whole = os.sysconf("SC_PHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):
        return None
    try:
        free = int(re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
        held = int(Path("/proc/self/statm").read_text().split()[1]) * page
        whole = min(whole, free + held)
        allowed = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return min(whole, int(allowed)) if allowed.isdigit() else whole
    except (OSError, TypeError, ValueError, IndexError):
        return whole  # not Linux, or no control group: the memory of the machine
