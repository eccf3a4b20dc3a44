"""Depth networks: the embedded one, a U-Net of diffusers that answers a picture with its inverse depth."""

from __future__ import annotations

import torch
from torch.nn import functional

from graphflow import Compute, Memory
from graphflow.nodes.diffusion.models import begin_step, load_network
from graphflow.nodes.diffusion.network_info import NetworkInfo

__all__ = ["estimate_depth"]


@torch.no_grad()
def estimate_depth(network: NetworkInfo, pixels: torch.Tensor, compute: Compute, need: Memory | None) -> torch.Tensor:
    """Inverse depth (batch, 1, height, width), float32 in [0, 1] on the CPU, near 1, of pixels (batch, 3, …) in [0, 1].

    The network looks at the picture in the size it was trained at; its answer is brought back to the picture's.
    """
    begin_step(compute, need)
    unet = load_network(network.component, network.cls, compute)
    size = int(network.config["sample_size"])
    values = pixels.to(compute.device, unet.dtype) * 2 - 1
    depths = []
    for index in range(len(values)):  # one by one: an item must not depend on its batch
        item = values[index : index + 1]
        if item.shape[-2:] != (size, size):
            item = functional.interpolate(item, (size, size), mode="bilinear", antialias=True)
        depth = unet(item, 0).sample
        if pixels.shape[-2:] != (size, size):
            depth = functional.interpolate(depth, pixels.shape[-2:], mode="bilinear", antialias=True)
        depths.append(depth)
    return torch.cat(depths).float().cpu().clamp(0, 1)
