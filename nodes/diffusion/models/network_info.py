"""Single networks (a ControlNet, a depth network) described by their configurations, without reading the weights.

Such a model is a folder with ``config.json`` and safetensors beside it, or a repository of the Hub in that layout.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from graphflow import Problem, WorkflowError
from graphflow.nodes.diffusion.checkpoints.location import locate, model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import (
    Component,
    UnusableError,
    component_in,
    mtime_ns,
    read_json,
)
from graphflow.nodes.diffusion.models.model_info import ModelInfo

__all__ = [
    "DEPTH_ESTIMATORS",
    "IMAGE_PROCESSOR",
    "NetworkInfo",
    "check_controlnet",
    "find_network",
    "gives_distance",
    "require_network",
]

Purpose = Literal["controlnet", "depth"]

DEPTH_ESTIMATORS = (
    "DPTForDepthEstimation",
    "DepthAnythingForDepthEstimation",
    "GLPNForDepthEstimation",
    "ZoeDepthForDepthEstimation",
)
"""Classes of transformers that estimate depth, as ``architectures`` in ``config.json`` names them."""

IMAGE_PROCESSOR = "preprocessor_config.json"
"""The file with the preparation of pictures for a model of transformers."""

_CLASSES: Mapping[Purpose, tuple[str, ...]] = {
    "controlnet": ("ControlNetModel",),
    "depth": ("UNet2DModel", *DEPTH_ESTIMATORS),
}
_NAMES: Mapping[Purpose, str] = {"controlnet": "a ControlNet", "depth": "a depth network"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInfo:
    """A network described by its files; ``cls`` is its class in diffusers or transformers."""

    reference: str
    cls: str
    component: Component
    config: Mapping[str, Any] = field(repr=False)
    """The content of ``config.json``."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything that determines a result; part of every cache key."""
        return hashlib.sha256(json.dumps([self.cls, self.component.digest]).encode()).hexdigest()


def require_network(reference: str, purpose: Purpose) -> NetworkInfo:
    """Describe a network. Raises WorkflowError (MissingError where it is only absent) if it cannot be used."""
    found = find_network(reference, purpose)
    if isinstance(found, Problem):
        raise WorkflowError.of([found])
    return found


def find_network(reference: str, purpose: Purpose, field: str = "model") -> NetworkInfo | Problem:
    """Describe a network, or return the problem that makes it unusable; ``field`` is the parameter that names it."""
    found: NetworkInfo | Problem | Path = locate(reference, _NAMES[purpose].partition(" ")[2])
    if isinstance(found, Path):
        found = _read(
            reference, found, purpose, tuple(mtime_ns(found / name) for name in ("config.json", IMAGE_PROCESSOR))
        )
    return replace(found, field=field) if isinstance(found, Problem) else found


@lru_cache(maxsize=256)
def _read(reference: str, folder: Path, purpose: Purpose, written: tuple[int, ...]) -> NetworkInfo | Problem:
    """Describe the network in a folder. ``written`` (ns) is a part of the cache key only."""
    config_file = folder / "config.json"
    if folder.is_file():
        message = f'the model "{reference}" is a single file; expected {_NAMES[purpose]} in the layout of diffusers'
        return model_problem("model.unsupported", message, "give the folder that holds config.json and the weights")
    if not config_file.is_file():
        held = sorted(path.name for path in folder.iterdir())[:6]
        message = (
            f'the folder of the model "{reference}" has no config.json (it holds {", ".join(held) or "nothing"}); '
            f"expected {_NAMES[purpose]}"
        )
        return model_problem("model.unsupported", message, "give the folder that holds config.json and the weights")
    try:
        config = read_json(reference, config_file)
        cls = str(config.get("_class_name") or next(iter(config.get("architectures") or ["nothing known"])))
        if cls not in _CLASSES[purpose]:
            message = f'the model "{reference}" is {cls}, expected {_NAMES[purpose]} ({", ".join(_CLASSES[purpose])})'
            return model_problem("model.unsupported", message, "choose another model")
        component = component_in(reference, folder)
        if cls in DEPTH_ESTIMATORS:
            read_json(reference, folder / IMAGE_PROCESSOR)
            component = replace(component, files=(*component.files, folder / IMAGE_PROCESSOR))
        return NetworkInfo(reference=reference, cls=cls, component=component, config=config)
    except UnusableError as unusable:
        return unusable.problem


def gives_distance(network: NetworkInfo) -> bool:
    """Return whether a depth network of transformers predicts a distance; the others predict inverse depth.

    A DPT does with a projection before the head (DINOv2), a Depth Anything where its configuration says "metric".
    """
    if network.cls == "DPTForDepthEstimation":
        return bool(network.config.get("add_projection", False))
    if network.cls == "DepthAnythingForDepthEstimation":
        return network.config.get("depth_estimation_type") == "metric"
    return network.cls in DEPTH_ESTIMATORS


def check_controlnet(network: NetworkInfo, info: ModelInfo) -> Problem | None:
    """Return the problem with a ControlNet that is not a copy of a model's own encoder; None where it fits."""
    unet = info.denoiser
    for name, what in (
        ("cross_attention_dim", "width of the text encoder"),
        ("block_out_channels", "widths of the blocks"),
        ("in_channels", "channels of the latents"),
    ):
        found, expected = network.config.get(name), unet.get(name)
        if found != expected:
            return _not_made_for(network, info, f"{what} {found}", f"{expected}")
    cell = 2 ** (len(network.config.get("conditioning_embedding_out_channels") or "abcd") - 1)
    if cell != info.pixels_per_cell:
        return _not_made_for(network, info, f"{cell} pixels a latent cell", f"{info.pixels_per_cell}")
    return None


def _not_made_for(network: NetworkInfo, info: ModelInfo, found: str, expected: str) -> Problem:
    message = (
        f'the ControlNet "{network.reference}" is not made for the model "{info.reference}": found {found}, expected '
        f"{expected}"
    )
    hint = "choose a ControlNet that was trained for this model"
    return Problem("model.controlnet", message, field="controlnet", hint=hint)
