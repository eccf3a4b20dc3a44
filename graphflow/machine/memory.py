"""Memory in bytes: what a step needs, what a device has, and how both are written.

1 kB is 1000 bytes and 1 KiB 1024, so 8GB is a little less than what a card sold with 8 GB has.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from graphflow.errors import Problem, WorkflowError
from graphflow.machine.accelerators import cuda_memory
from graphflow.machine.processor import control_groups

__all__ = [
    "Memory",
    "device_kind",
    "device_memory",
    "device_number",
    "free_memory",
    "machine_memory",
    "parse_bytes",
    "show_bytes",
]

_UNITS = {"": 1, **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}}
_UNITS |= {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a step on its device at its peak, in bytes.

    ``weights`` are the parameters that must be there at once, ``activations`` everything else: inputs, outputs and what
    is alive between them.
    """

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """The sum of both."""
        return self.weights + self.activations


def show_bytes(count: int) -> str:
    """``12.3 GB``, ``870 MB``, ``40 kB``: three digits at most."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
    return f"{count} bytes"


def parse_bytes(text: str, what: str = "memory budget") -> int:
    """Parse a size: the bytes that ``8GB``, ``7.5 GiB``, ``900MB`` or ``1000000`` mean. Raises WorkflowError."""
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


def device_kind(device: str) -> str:
    """Return the device without its number: "cuda" of "cuda:1"."""
    return device.partition(":")[0]


def device_number(device: str) -> int:
    """Return the number of a device among those of its kind: 1 of "cuda:1", 0 of "cuda"."""
    return int(device.partition(":")[2] or 0)


def device_memory(device: str) -> int | None:
    """Return the bytes to plan with: all of an accelerator's, and for the CPU what the machine can still give.

    None where it is unknown.
    """
    if device_kind(device) == "cpu":
        return _available()
    if device_kind(device) == "cuda":
        return cuda_memory(device_number(device))
    import torch

    return int(torch.mps.recommended_max_memory()) if device == "mps" else None


def free_memory(device: str) -> int | None:
    """Return the bytes that this process can have now: `device_memory` without what others hold on an accelerator."""
    if device_kind(device) != "cuda":
        return device_memory(device)
    import torch

    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return int(free + torch.cuda.memory_reserved(torch.device(device)))


def machine_memory(system: Path = Path("/")) -> int | None:
    """Return the bytes of the machine's memory, and no more than the control groups around this process allow.

    None where it is unknown. ``system`` is where /proc and /sys lie.
    """
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    for group in control_groups("memory", system):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" where version 2 allows everything
                whole = min(whole, int((group / name).read_text()))
    return whole


def _available() -> int | None:
    """Memory that this process can have: what is free, and what it holds itself, such as loaded models."""
    whole = machine_memory()
    if whole is None:
        return None
    try:
        free = int(re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024  # type: ignore[index]
        held = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, TypeError, ValueError, IndexError):
        return whole  # not Linux
    return min(whole, free + held)
