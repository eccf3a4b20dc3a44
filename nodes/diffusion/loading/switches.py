"""Settings of a run applied to a loaded network: attention, memory layout, compilation, offloading."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from accelerate import cpu_offload, cpu_offload_with_hook

from graphflow import Compute
from graphflow.nodes.diffusion.loading.process import give_back

__all__ = ["copied", "placed", "release"]

PART = 64 << 20
"""Bytes of weights to convert between two calls of `give_back`."""

_offloaded: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
"""Networks that move to their device when they are called, and leave it in `release`."""


def placed(network: torch.nn.Module, compute: Compute, *, compiled: bool = False) -> torch.nn.Module:
    """Apply the settings of a run to a network that was just loaded, in place, and move it to its device.

    Only networks that run at each denoise step should be ``compiled``: for one run of a VAE or a text encoder it takes
    longer than it saves.
    """
    if compute.attention == "eager":
        _write_scores_out(network)
    elif compute.attention == "xformers" and hasattr(network, "enable_xformers_memory_efficient_attention"):
        known_to_diffusers: Any = network
        known_to_diffusers.enable_xformers_memory_efficient_attention()
    if compute.channels_last:
        _lay_side_by_side(network)
    if compiled:
        # as an attribute, so that the hooks of accelerate stay outside the compiled function
        network.__dict__["forward"] = torch.compile(network.forward)
    device = torch.device(compute.device)
    if compute.offload == "none":
        return network.to(device)
    if compute.offload == "model":
        cpu_offload_with_hook(network, device)
        _offloaded.add(network)
    else:
        # as in diffusers: a network with parameters of its own, beside its layers, needs its buffers moved too
        cpu_offload(network, device, offload_buffers=bool(network._parameters))
    return network


def _lay_side_by_side(network: torch.nn.Module) -> None:
    """Convert a network to channels last, layer by layer, returning freed memory to the system in between."""
    laid = 0
    for layer in [*(each for each in network.modules() if not any(each.children())), network]:
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        laid += sum(parameter.nbytes for parameter in layer.parameters(recurse=False))
        if laid > PART or layer is network:
            give_back()
            laid = 0


def copied(network: torch.nn.Module, device: str) -> torch.nn.Module:
    """Copy a network to a device. The network itself stays where it is, since a step may still be using it."""
    copies: dict[int, Any] = {}
    for tensor in [*network.parameters(), *network.buffers()]:
        there = tensor.detach().to(device, copy=True)
        copies[id(tensor)] = (
            torch.nn.Parameter(there, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else there
        )
    return copy.deepcopy(network, copies)


def release(device: str) -> None:
    """Move the offloaded networks that earlier steps left on a device back to the machine's memory."""
    for network in list(_offloaded):
        if next(network.parameters()).device == torch.device(device):
            network.to("cpu")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _write_scores_out(network: torch.nn.Module) -> None:
    from diffusers.models.attention_processor import (
        Attention,
        AttnAddedKVProcessor,
        AttnAddedKVProcessor2_0,
        AttnProcessor,
        AttnProcessor2_0,
    )

    eager: dict[type, Any] = {AttnProcessor2_0: AttnProcessor, AttnAddedKVProcessor2_0: AttnAddedKVProcessor}
    for part in network.modules():
        if isinstance(part, Attention) and type(part.processor) in eager:
            part.set_processor(eager[type(part.processor)]())
