"""The options that say where and how to compute and where results are kept, shared by ``run`` and ``plan``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from graphflow.cli.parser import Options, Parser
from graphflow.graph.bound import Graph, largest_weights
from graphflow.machine.compute import ATTENTIONS, DEVICE_NAMES, DTYPES, OFFLOADS, Compute, resolve_compute
from graphflow.store.disk import default_store
from graphflow.store.interface import Store

__all__ = ["add_computing", "add_store", "compute_for", "store_for"]


def add_computing(parser: Parser, *, device: str, told_device: str) -> None:
    """The options ``--device`` to ``--memory-budget``; ``device`` is the default of the first, told in other words."""
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default=device,
        help=f"{DEVICE_NAMES}; on several, steps run side by side (default: {told_device})",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="numbers to compute with (default: what suits the device and the model)",
    )
    parser.add_argument(
        "--attention", choices=ATTENTIONS, default="auto", help="how attention is computed (default: sdpa, torch's own)"
    )
    parser.add_argument(
        "--offload",
        choices=OFFLOADS,
        default="none",
        help="keep weights off the accelerator while another component (model) or another layer (sequential) computes",
    )
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="keep the channels of a pixel side by side in memory (always so where dtype auto is bfloat16)",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile denoisers once: a slow start, which long runs may earn back"
    )
    parser.add_argument(
        "--memory-budget",
        metavar="SIZE",
        help="what no step may need more of, pooled models included, such as 8GB (default: what the device has)",
    )
    parser.add_argument(
        "--together",
        metavar="N",
        type=_count,
        help="how many points of a sweep go through a denoiser at once at most, as far as memory allows "
        "(default: 1 on the CPU, 8 on a GPU)",
    )


def add_store(parser: Parser) -> None:
    """The option ``--no-cache``."""
    parser.add_argument(
        "--no-cache", action="store_true", help="neither use the results that earlier runs kept, nor keep any"
    )


def store_for(options: Options) -> Store | None:
    """Where results are looked up and kept; None for nowhere."""
    return None if options.no_cache else default_store()


def compute_for(options: Options, graphs: Iterable[Graph]) -> Compute:
    """The settings for graphs that make one plan. Raises WorkflowError for what this machine cannot do."""
    return resolve_compute(
        device=options.device,
        dtype=options.dtype,
        attention=options.attention,
        offload=options.offload,
        channels_last=options.channels_last,
        compile=options.compile,
        memory_budget=options.memory_budget,
        together=options.together,
        weights=largest_weights(graphs),
    )


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"found '{word}', expected a whole number from 1 on")
    return int(word)
