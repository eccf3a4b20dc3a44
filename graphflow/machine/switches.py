"""The switches of a run: what a person asks for, in Python or on the command line, and the `Compute` made of it.

A switch is one field of `Switches`. The keywords of ``Workflow.run`` and ``Workflow.plan``, the options of the command
line and their help are read off the fields. Settings that this machine cannot keep are refused with every problem.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from graphflow.errors import Problem, WorkflowError, nearest
from graphflow.machine.compute import DEVICE_NAMES, DTYPES, Compute, resolve_devices, resolve_dtype
from graphflow.machine.memory import device_kind, parse_bytes

__all__ = ["MAX_BATCH", "SPELLINGS", "Switch", "Switches", "all_switches"]

ATTENTIONS = ("auto", "sdpa", "xformers", "eager")
OFFLOADS = ("none", "model", "sequential")

MAX_BATCH = 8
"""Largest number of equal steps in one batch of a denoiser on an accelerator, where memory allows."""


class Switch(NamedTuple):
    """One switch as a person meets it; the first of ``spellings`` is its name."""

    spellings: tuple[str, ...]
    default: Any
    help: str
    choices: Sequence[str] | None
    metavar: str | None

    @property
    def name(self) -> str:
        """Name of its field and of its keyword."""
        return self.spellings[0]


def _switch(
    default: Any, help: str, *, choices: Sequence[str] | None = None, metavar: str | None = None, also: str = ""
) -> Any:
    """Make a field of `Switches`, with its help on the command line and a second spelling that it had before."""
    return field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar, "also": also})


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """Switches of a run, as a person gives them; nothing is checked before `resolve`."""

    device: str = _switch(
        "auto",
        f"{DEVICE_NAMES}; on several, steps run side by side (default: auto, the first GPU or the CPU)",
        metavar="DEVICE",
    )
    dtype: str = _switch(
        "auto", "numbers to compute with (default: what suits the device and the model)", choices=DTYPES
    )
    attention: str = _switch("auto", "how attention is computed (default: sdpa, torch's own)", choices=ATTENTIONS)
    offload: str = _switch(
        "none",
        "keep weights off the accelerator while another component (model) or another layer (sequential) computes",
        choices=OFFLOADS,
    )
    channels_last: bool = _switch(
        False, "keep the channels of a pixel side by side in memory (always so where dtype auto is bfloat16)"
    )
    compile: bool = _switch(False, "compile denoisers once: a slow start, which long runs may earn back")
    memory_budget: int | str | None = _switch(
        None,
        "what no step may need more of, pooled models included, such as 8GB (default: what the device has)",
        metavar="SIZE",
    )
    max_batch: int | None = _switch(
        None,
        "how many points of a sweep go through a denoiser in one batch at most, as far as memory allows "
        "(default: 1 on the CPU, 8 on a GPU)",
        metavar="N",
        also="together",
    )

    def resolve(self, weights: int | None = 0) -> Compute:
        """Make settings that this machine can keep. Raises WorkflowError with every problem.

        ``weights`` are the bytes of the largest file of weights that is read, None where no model runs (see
        `largest_weights`): then, with the device left open, nobody is asked for a GPU, which imports torch.
        The device may name several of one kind, with commas between them. A ``max_batch`` of None is 1 on the CPU,
        which has little to gain, and `MAX_BATCH` elsewhere.
        """
        device, dtype, budget = self.device, self.dtype, self.memory_budget
        if device == "auto" and weights is None and self.offload == "none":
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
        if isinstance(budget, str):
            try:
                budget = parse_bytes(budget)
            except WorkflowError as error:
                problems += error.problems
                budget = None
        default_batch = 1 if device_kind(places[0]) == "cpu" else MAX_BATCH
        compute = Compute(
            device=places[0],
            devices=places if len(places) > 1 else (),
            dtype=kind,
            attention="sdpa" if self.attention == "auto" else self.attention,
            offload=self.offload,
            # chosen for its speed, a tenth of which convolutions would lose by laying channels side by side themselves
            channels_last=self.channels_last or (dtype == "auto" and kind == "bfloat16"),
            compile=self.compile,
            memory_budget=budget,
            max_batch=default_batch if self.max_batch is None else self.max_batch,
        )
        problems += _impossible(compute, device_known=device_known)
        if problems:
            raise WorkflowError(problems)
        return compute


def all_switches() -> Iterator[Switch]:
    """Read the switches off the fields."""
    for each in fields(Switches):
        details = each.metadata
        spellings = (each.name, *([details["also"]] if details["also"] else []))
        yield Switch(spellings, each.default, details["help"], details["choices"], details["metavar"])


SPELLINGS: Mapping[str, str] = {spelling: each.name for each in all_switches() for spelling in each.spellings}
"""Every keyword that stands for a switch, with the name of its field."""


def _impossible(compute: Compute, *, device_known: bool) -> Iterator[Problem]:
    """Find what this machine, or the other settings, do not allow."""
    if compute.attention not in ATTENTIONS:
        message = f"found attention '{compute.attention}', expected one of {', '.join(ATTENTIONS)}"
        yield Problem("attention.unknown", message, hint=nearest(compute.attention, ATTENTIONS))
    if compute.max_batch < 1:
        yield Problem("together.range", f"found max_batch {compute.max_batch}, expected at least 1")
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
    """Find what torch.compile lacks: Triton on CUDA, a C++ compiler elsewhere."""
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
