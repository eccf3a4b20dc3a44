"""What the settings of a run do to a loaded network: attention, memory layout, compilation, offloading."""

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
"""Bytes of weights after which what laying them out left free is given back."""

_offloaded: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
"""Networks that come to their device by themselves when they are called, and leave it when `release` says so."""


def placed(network: torch.nn.Module, compute: Compute, *, compiled: bool = False) -> torch.nn.Module:
    """Set a network up that was just loaded, and put it where the settings say. It is changed in place.

    Worth being ``compiled`` is what runs once a denoise step; a VAE or a text encoder runs once, which never pays.
    """
    if compute.attention == "eager":
        _write_scores_out(network)
    elif compute.attention == "xformers" and hasattr(network, "enable_xformers_memory_efficient_attention"):
        known_to_diffusers: Any = network
        known_to_diffusers.enable_xformers_memory_efficient_attention()
    if compute.channels_last:
        _lay_side_by_side(network)
    if compiled:
        # as an attribute, so that the hooks of accelerate stay outside of what is compiled
        network.__dict__["forward"] = torch.compile(network.forward)
    device = torch.device(compute.device)
    if compute.offload == "none":
        return network.to(device)
    if compute.offload == "model":
        cpu_offload_with_hook(network, device)
        _offloaded.add(network)
    else:
        # as diffusers does it: parameters of the network itself, beside its layers, need their buffers moved too
        cpu_offload(network, device, offload_buffers=bool(network._parameters))
    return network


def _lay_side_by_side(network: torch.nn.Module) -> None:
    """Give convolutions their channels last, layer by layer, and the memory of what they had back in between."""
    laid = 0
    for layer in [*(each for each in network.modules() if not any(each.children())), network]:
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        laid += sum(parameter.nbytes for parameter in layer.parameters(recurse=False))
        if laid > PART or layer is network:
            give_back()
            laid = 0


def copied(network: torch.nn.Module, device: str) -> torch.nn.Module:
    """A copy of a network on a device. The network itself stays where it is, for a step that is still using it."""
    copies: dict[int, Any] = {}
    for tensor in [*network.parameters(), *network.buffers()]:
        there = tensor.detach().to(device, copy=True)
        copies[id(tensor)] = (
            torch.nn.Parameter(there, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else there
        )
    return copy.deepcopy(network, copies)


def release(device: str) -> None:
    """Bring what earlier steps left on an accelerator back into the machine's memory."""
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
