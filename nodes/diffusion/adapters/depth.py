"""Depth networks: the embedded one, and the depth-estimation models of transformers.

The embedded network, a U-Net of diffusers, predicts inverse depth in [0, 1]. Those of transformers predict inverse
depth of any range, or a distance: a distance is inverted, then each prediction is normalised to [0, 1] on its own, with
1 at the nearest point of a picture and 0 at its farthest. A constant prediction becomes 0 everywhere.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional

from graphflow import Compute, Memory
from graphflow.nodes.diffusion.loading.components import begin_step, load_image_processor, load_network
from graphflow.nodes.diffusion.models.network_info import NetworkInfo, gives_distance

__all__ = ["estimate_depth"]

NEAREST = 1e-3
"""The least distance, in metres, that is inverted: nearer points are clamped to it, against division by zero."""


@torch.no_grad()
def estimate_depth(network: NetworkInfo, pixels: torch.Tensor, compute: Compute, need: Memory | None) -> torch.Tensor:
    """Estimate the inverse depth of pixels (batch, 3, height, width) in [0, 1].

    Return (batch, 1, height, width), float32 in [0, 1] on the CPU, 1 the nearest. Pictures run one at a time, since an
    item must not depend on its batch. Raises ValueError for a picture that the image processor cannot prepare.
    """
    begin_step(compute, need)
    model = load_network(network.component, network.cls, compute)
    if network.cls == "UNet2DModel":
        return _embedded(model, pixels.to(compute.device, model.dtype) * 2 - 1, int(network.config["sample_size"]))
    processor = load_image_processor(network.component.folder)
    distance = gives_distance(network)
    depths = [_inverse_depth(model, processor, item, compute.device, distance) for item in pixels]
    return torch.stack(depths)[:, None].cpu()


def _embedded(unet: Any, values: torch.Tensor, size: int) -> torch.Tensor:
    """Run the U-Net on values in [-1, 1] at the size it was trained at; resize its output to that of the pictures."""
    depths = []
    for index in range(len(values)):
        item = values[index : index + 1]
        if item.shape[-2:] != (size, size):
            item = functional.interpolate(item, (size, size), mode="bilinear", antialias=True)
        depth = unet(item, 0).sample
        if values.shape[-2:] != (size, size):
            depth = functional.interpolate(depth, values.shape[-2:], mode="bilinear", antialias=True)
        depths.append(depth)
    return torch.cat(depths).float().cpu().clamp(0, 1)


def _inverse_depth(model: Any, processor: Any, item: torch.Tensor, device: str, distance: bool) -> torch.Tensor:
    """Run a model of transformers on a picture (3, height, width); return float32 (height, width) in [0, 1].

    The processors of transformers resize in 8 bits, so the picture is rounded to 8 bits first, like one from a file.
    """
    height, width = item.shape[-2:]
    array = (item.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    try:
        values = processor(images=array, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    except ValueError as error:  # mostly because the next smaller size that fits is zero
        what = f"the image processor of {type(model).__name__}"
        raise ValueError(f"{what} cannot prepare a picture of {width} x {height} pixels: {error}") from error
    raw = model(values.to(device, model.dtype)).predicted_depth.float()
    if type(model).__name__ == "ZoeDepthForDepthEstimation":
        depth = _without_rim(raw, height, width) if processor.do_pad else _resized(raw, height, width)
    else:
        answer = SimpleNamespace(predicted_depth=raw)
        depth = processor.post_process_depth_estimation(answer, [(height, width)])[0]["predicted_depth"]
    depth = depth.reshape(height, width)
    if distance:
        # Bicubic resampling overshoots at edges: unclamped, one pixel near zero would take up the whole range.
        depth = 1 / depth.clamp(min=max(NEAREST, float(raw.min())))
    least, most = depth.min(), depth.max()
    return (depth - least) / (most - least) if most > least else torch.zeros_like(depth)


def _without_rim(raw: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Crop the mirrored border that ZoeDepth's processor adds; its own method for this needs torchvision."""
    down, across = (int(math.sqrt(length / 2) * 3) for length in (height, width))
    depth = _resized(raw, height + 2 * down, width + 2 * across)
    return depth[..., down : down + height, across : across + width]


def _resized(raw: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return functional.interpolate(raw[:, None], (height, width), mode="bicubic", align_corners=False)
