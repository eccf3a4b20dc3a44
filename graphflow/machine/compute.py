"""Where and how a run computes: `Compute`, and how its settings are made out of what a person asks for.

Nothing here loads a model. torch is imported only to look for an accelerator, and only where one is asked for.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from graphflow.errors import Problem, WorkflowError, nearest
from graphflow.machine.accelerators import cuda_available
from graphflow.machine.memory import device_kind, device_number, parse_bytes
from graphflow.machine.processor import computes_in_bfloat16

__all__ = [
    "ATTENTIONS",
    "DEVICE_NAMES",
    "DTYPES",
    "OFFLOADS",
    "Compute",
    "resolve_compute",
    "resolve_device",
    "resolve_dtype",
]

DEVICE_NAMES = "auto, cpu, cuda, cuda:N or mps, or several such as cuda:0,cuda:1 or cuda:all"
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "sdpa", "xformers", "eager")
OFFLOADS = ("none", "model", "sequential")

TOGETHER = 8
"""How many equal steps go through a denoiser at once on an accelerator, where memory allows."""
LARGE = 256 << 20
"""Bytes of weights from which ``auto`` is bfloat16 on a processor with instructions for it: smaller networks are so
quick that rounding to and from it costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Where and how to compute; what a running node finds as ``context.compute``.

    `resolve_compute` makes one that this machine can keep; one that is made by hand is not checked.
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
    """What waits in the machine's memory while the device does not use it: no weights ("none"), those of the
    components of other steps ("model"), those of all layers but the one that computes ("sequential")."""
    channels_last: bool = False
    """Whether convolutions keep the channels of a pixel beside each other in memory."""
    compile: bool = False
    """Whether denoisers go through torch.compile."""
    memory_budget: int | None = None
    """Bytes that no step may need more of; None: what the device has."""
    together: int = 1
    """How many equal steps on different values, such as points of a sweep, go through a denoiser at once at most."""

    @property
    def all_devices(self) -> tuple[str, ...]:
        """The devices of the run, each with its own worker."""
        return self.devices or (self.device,)

    @property
    def on_cpu(self) -> bool:
        """Whether tensors stay in the machine's memory."""
        return device_kind(self.device) == "cpu"

    def on(self, device: str) -> Compute:
        """The same settings for what one of the devices computes."""
        return replace(self, device=device, devices=(), together=1)

    def environment(self) -> Mapping[str, str]:
        """The settings that change results in their last digits, and so belong into cache keys.

        Offloading and the budget change nothing, and steps that are computed together give what each gives alone,
        within a tolerance that their node states. A switch that is left alone is not mentioned.
        """
        told = {"device": device_kind(self.device), "dtype": self.dtype}
        if self.attention != "sdpa":
            told["attention"] = self.attention
        for name, on in (("channels_last", self.channels_last), ("compile", self.compile)):
            if on:
                told[name] = "on"
        return told


def resolve_compute(
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    offload: str = "none",
    channels_last: bool = False,
    compile: bool = False,
    memory_budget: int | str | None = None,
    together: int | None = None,
    weights: int | None = 0,
) -> Compute:
    """What a person asks for as settings that this machine can keep. Raises WorkflowError with every problem.

    ``weights`` are the bytes of the largest file of weights that is read, None where no model runs (see
    `largest_weights`): then, with the device left open, nobody is asked for a GPU, which imports torch.
    ``device`` may name several of one kind, with commas between them. ``together`` None is 1 on the CPU, which has
    little to gain, and `TOGETHER` elsewhere.
    """
    if device == "auto" and weights is None and offload == "none":
        device = "cpu"
    problems: list[Problem] = []
    places: tuple[str, ...] = ("cpu",)
    kind, device_known = "float32", False
    try:
        places = resolve_devices(device)
        device_known = True
        kind = resolve_dtype(dtype, places[0], weights or 0)
    except WorkflowError as error:
        problems += error.problems
    budget = memory_budget if isinstance(memory_budget, int) else None
    if isinstance(memory_budget, str):
        try:
            budget = parse_bytes(memory_budget)
        except WorkflowError as error:
            problems += error.problems
    compute = Compute(
        device=places[0],
        devices=places if len(places) > 1 else (),
        dtype=kind,
        attention="sdpa" if attention == "auto" else attention,
        offload=offload,
        # chosen for its speed, a tenth of which convolutions would lose by laying channels side by side themselves
        channels_last=channels_last or (dtype == "auto" and kind == "bfloat16"),
        compile=compile,
        memory_budget=budget,
        together=(1 if device_kind(places[0]) == "cpu" else TOGETHER) if together is None else together,
    )
    problems += _impossible(compute, device_known=device_known)
    if problems:
        raise WorkflowError(problems)
    return compute


def _impossible(compute: Compute, *, device_known: bool) -> Iterator[Problem]:
    """What this machine, or the other settings, do not allow."""
    if compute.attention not in ATTENTIONS:
        message = f"found attention '{compute.attention}', expected one of {', '.join(ATTENTIONS)}"
        yield Problem("attention.unknown", message, hint=nearest(compute.attention, ATTENTIONS))
    if compute.together < 1:
        yield Problem("together.range", f"found together {compute.together}, expected at least 1")
    if compute.offload not in OFFLOADS:
        message = f"found offload '{compute.offload}', expected one of {', '.join(OFFLOADS)}"
        yield Problem("offload.unknown", message, hint=nearest(compute.offload, OFFLOADS))
    elif compute.offload != "none" and device_known and compute.on_cpu:
        yield Problem(
            "offload.device",
            f"found offload '{compute.offload}' on the CPU, expected an accelerator to offload from",
            hint="leave offload out: on the CPU all weights are in the machine's memory already",
        )
    if compute.attention == "xformers":
        yield from _without_xformers(compute.device if device_known else "cuda")
    if compute.compile:
        if compute.offload == "sequential":
            yield Problem(
                "compile.offload",
                "found compile together with offload 'sequential', expected one of them: what is compiled has its "
                "weights at hand",
                hint="use offload 'model' with compile",
            )
        if device_known:
            yield from _without_compiler(compute.device)


def _without_xformers(device: str) -> Iterator[Problem]:
    hint = "leave attention out: torch's own (sdpa) writes no scores out either, and runs everywhere"
    if importlib.util.find_spec("xformers") is None:
        hint += ", or: pip install 'graphflow-diffusion[xformers]'"
        yield Problem(
            "attention.missing", "attention 'xformers' needs the package xformers, which is not there", hint=hint
        )
    if not device.startswith("cuda"):
        yield Problem(
            "attention.device", f"found attention 'xformers' on '{device}', expected a CUDA device", hint=hint
        )


def _without_compiler(device: str) -> Iterator[Problem]:
    """What torch.compile writes its code for: Triton on CUDA, a C++ compiler elsewhere."""
    if device.startswith("cuda"):
        if importlib.util.find_spec("triton") is None:
            message = "compile needs the package triton on CUDA, which is not there"
            yield Problem("compile.missing", message, hint="leave compile out, or: pip install triton")
        return
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX") or usual
    if shutil.which(compiler) is None:
        message = f"compile needs a C++ compiler on the CPU, and there is no '{compiler}' on the PATH"
        yield Problem("compile.missing", message, hint="leave compile out, install one, or name yours in CXX")


def resolve_devices(names: str) -> tuple[str, ...]:
    """The devices in a text like ``cuda:0,cuda:1``; ``cuda:all`` are all there are.

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
