"""The settings of a run: `Compute`, and the devices and numbers that a person's words stand for.

`graphflow.machine.switches` makes a Compute out of what a person asks for. Nothing here loads a model. torch is
imported only to look for an accelerator, and only where one is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from graphflow.errors import Problem, WorkflowError
from graphflow.machine.accelerators import cuda_available
from graphflow.machine.memory import device_kind, device_number
from graphflow.machine.processor import computes_in_bfloat16

__all__ = ["DEVICE_NAMES", "DTYPES", "LARGE", "Compute", "resolve_device", "resolve_devices", "resolve_dtype"]

DEVICE_NAMES = "auto, cpu, cuda, cuda:N or mps, or several such as cuda:0,cuda:1 or cuda:all"
DTYPES = ("auto", "float32", "bfloat16", "float16")

LARGE = 256 << 20
"""Bytes of weights from which ``auto`` is bfloat16 on a processor with instructions for it: smaller networks are so
quick that rounding to and from it costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Settings of a run: where and how to compute; a running node finds them as ``context.compute``.

    `Switches.resolve` makes one that this machine can keep; one that is made by hand is not checked.
    """

    device: str = "cpu"
    """"cpu", "cuda:0", "mps": where tensors are while they are computed with."""
    devices: tuple[str, ...] = ()
    """All devices of a run that has several, ``device`` first: each computes other steps at the same time."""
    dtype: str = "float32"
    """"float32", "float16" or "bfloat16"."""
    attention: str = "sdpa"
    """"sdpa" is torch's scaled_dot_product_attention, "eager" writes the scores of all pairs of tokens out."""
    offload: str = "none"
    """Weights that wait in the machine's memory while the device does not use them: none ("none"), those of the
    components of other steps ("model"), those of all layers but the one that computes ("sequential")."""
    channels_last: bool = False
    """True if convolutions keep the channels of a pixel beside each other in memory."""
    compile: bool = False
    """True if denoisers go through torch.compile."""
    memory_budget: int | None = None
    """Bytes that no step may need more of; None: what the device has."""
    max_batch: int = 1
    """Largest number of equal steps on different values, such as points of a sweep, in one batch of a denoiser."""

    @property
    def all_devices(self) -> tuple[str, ...]:
        """The devices of the run, each with its own worker."""
        return self.devices or (self.device,)

    @property
    def on_cpu(self) -> bool:
        """True if tensors stay in the machine's memory."""
        return device_kind(self.device) == "cpu"

    def on(self, device: str) -> Compute:
        """Return the same settings for what one of the devices computes."""
        return replace(self, device=device, devices=(), max_batch=1)

    def environment(self) -> Mapping[str, str]:
        """Return the settings that change results in their last digits, and so belong into cache keys.

        Offloading and the budget change nothing, and the steps of a batch give what each gives alone, within a
        tolerance that their node states. A switch that is left alone is not mentioned.
        """
        values = {"device": device_kind(self.device), "dtype": self.dtype}
        if self.attention != "sdpa":
            values["attention"] = self.attention
        for name, on in (("channels_last", self.channels_last), ("compile", self.compile)):
            if on:
                values[name] = "on"
        return values


def resolve_devices(names: str) -> tuple[str, ...]:
    """Find the devices in a text like ``cuda:0,cuda:1``; ``cuda:all`` are all there are.

    Raises WorkflowError for an absent device, and for devices that do not go together.
    """
    if names != "cuda:all" and "cuda:all" in names.split(","):
        raise WorkflowError([Problem("device.mixed", f"found '{names}', expected cuda:all by itself")])
    devices = _all_of_cuda() if names == "cuda:all" else tuple(resolve_device(name) for name in names.split(","))
    problems = []
    if len(set(devices)) < len(devices):
        problems.append(Problem("device.twice", f"found a device twice in '{names}', expected each once"))
    if len({device_kind(device) for device in devices}) > 1:
        hint = "results on another kind of device differ in their last digits, and so do their keys"
        problems.append(Problem("device.mixed", f"found '{names}', expected devices of one kind", hint=hint))
    if problems:
        raise WorkflowError(problems)
    return devices


def _all_of_cuda() -> tuple[str, ...]:
    first = resolve_device("cuda")
    import torch

    return (first, *(f"cuda:{number}" for number in range(1, torch.cuda.device_count())))


@cache
def resolve_device(name: str) -> str:
    """``auto`` becomes ``cuda:0`` or ``cpu``; other names are checked. Raises WorkflowError for an absent device."""
    if re.fullmatch(r"cpu(:\d+)?", name):
        return name
    if name != "auto" and not re.fullmatch(r"cuda(:\d+)?|mps", name):
        raise WorkflowError([Problem("device.unknown", f"found device '{name}', expected {DEVICE_NAMES}")])
    if name == "auto":
        return "cuda:0" if cuda_available() else "cpu"
    import torch  # only to look: a run on the CPU by name never pays for it here

    if name == "mps":
        there = torch.backends.mps.is_available()
    else:
        there = torch.cuda.is_available() and device_number(name) < torch.cuda.device_count()
    if not there:
        raise WorkflowError(
            [Problem("device.missing", f"the device '{name}' is not on this machine", hint="use --device auto or cpu")]
        )
    return "cuda:0" if name == "cuda" else name


def resolve_dtype(name: str, device: str, weights: int = 0) -> str:
    """``auto`` is float16 on an accelerator, and float32 on the CPU.

    There it is bfloat16 where the processor computes in it and the largest file of ``weights`` (bytes) is `LARGE`.
    """
    if name not in DTYPES:
        raise WorkflowError([Problem("dtype.unknown", f"found dtype '{name}', expected one of {', '.join(DTYPES)}")])
    if name != "auto":
        return name
    if device_kind(device) != "cpu":
        return "float16"
    return "bfloat16" if weights >= LARGE and computes_in_bfloat16() else "float32"
