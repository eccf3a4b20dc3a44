"""Upscaling networks in a single file, pixels to pixels; spandrel detects the architecture and loads them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from graphflow import Compute, WorkflowError
from graphflow.nodes.diffusion.checkpoints.location import model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import UnusableError
from graphflow.nodes.diffusion.checkpoints.upscaler_file import UpscalerFile
from graphflow.nodes.diffusion.loading.components import begin_step, pool, quiet
from graphflow.nodes.diffusion.loading.switches import placed
from graphflow.nodes.diffusion.loading.tiling import in_tiles, starts
from graphflow.nodes.diffusion.loading.weights_file import read_weights

__all__ = ["enlarge"]


def enlarge(
    file: UpscalerFile,
    pixels: torch.Tensor,
    *,
    compute: Compute,
    tile: int,
    overlap: int,
    progress: Callable[[int, int], None],
    warn: Callable[[str], None],
) -> torch.Tensor:
    """Enlarge pixels (batch, 3, height, width) in [0, 1] by the scale of the network.

    Return (batch, 3, scale x height, scale x width), float32 in [0, 1] on the CPU. Pictures run one at a time; one
    larger than ``tile`` pixels in tiles that overlap by ``overlap``. ``progress`` is called with (done, total) after
    each tile. Raises WorkflowError for a file that holds no upscaler.
    """
    begin_step(compute, None)
    network = _load(file, compute)
    if network.dtype != getattr(torch, compute.dtype):
        name = f'"{file.reference}" ({network.architecture.name})'
        warn(f"the upscaler {name} cannot run in {compute.dtype}: it runs in float32")
    height, width = pixels.shape[-2:]
    if network.tiling is _spandrel().ModelTiling.INTERNAL:  # it needs the whole picture
        tile = max(height, width)
    total = len(pixels) * len(starts(height, tile, overlap)) * len(starts(width, tile, overlap))
    done = 0

    def enlarged(item: torch.Tensor) -> torch.Tensor:
        def part(rows: slice, columns: slice) -> torch.Tensor:
            nonlocal done
            answer: torch.Tensor = network(item[..., rows, columns].to(compute.device, network.dtype))
            done += 1
            progress(done, total)
            return answer.float().cpu().clone()  # a copy, since spandrel's tensors cannot be written to

        return in_tiles(part, height, width, tile=tile, overlap=overlap, scale=network.scale)

    return torch.cat([enlarged(item[None]) for item in pixels]).clamp(0, 1)


def _load(file: UpscalerFile, compute: Compute) -> Any:
    """Return spandrel's descriptor of the network, in evaluation mode and ready to compute, from the pool."""

    def load() -> Any:
        network = _described(file)
        able = {"float16": network.supports_half, "bfloat16": network.supports_bfloat16}.get(compute.dtype, True)
        network = network.to(getattr(torch, compute.dtype if able else "float32")).eval()
        placed(network.model.requires_grad_(False), compute)
        return network

    held_on = compute.device if compute.offload == "none" else "cpu"
    key = (*file.identity, replace(compute, memory_budget=None))
    return pool.get(held_on, key, load, lambda network: sum(t.nbytes for t in network.model.state_dict().values()))


def _described(file: UpscalerFile) -> Any:
    spandrel = _spandrel()
    try:
        weights = spandrel.canonicalize_state_dict(read_weights(file.reference, file.path))
    except UnusableError as unusable:
        raise WorkflowError.of([unusable.problem]) from unusable.__cause__
    try:
        with quiet():
            network = spandrel.ModelLoader().load_from_state_dict(weights)
    except spandrel.UnsupportedModelError:
        raise _unsupported(file, "spandrel knows no architecture with its tensors") from None
    except Exception as error:  # its detection of architectures can raise anything
        raise _unsupported(file, f"spandrel cannot load it: {type(error).__name__}: {error}") from error
    name, purpose = network.architecture.name, network.purpose
    if not isinstance(network, spandrel.ImageModelDescriptor) or purpose not in ("SR", "Restoration"):
        raise _unsupported(file, f"{name} is made for {purpose}")
    if (network.input_channels, network.output_channels) != (3, 3):
        found = f"{network.input_channels} and gives {network.output_channels}"
        raise _unsupported(file, f"{name} takes {found} channels, expected 3 and 3")
    return network


def _spandrel() -> Any:
    try:
        return importlib.import_module("spandrel")
    except (ImportError, RuntimeError) as error:  # the second where torchvision was built for another torch
        raise RuntimeError(
            f"the package spandrel cannot be imported: {error}; install torchvision in the version and the build "
            f"(CPU or CUDA) that belong to torch {torch.__version__}"
        ) from error


def _unsupported(file: UpscalerFile, reason: str) -> WorkflowError:
    message = f'the file "{file.reference}" is no upscaler for colour pictures: {reason}'
    return WorkflowError.of([model_problem("model.unsupported", message, "choose another file")])
