"""Depth-estimation models of transformers: the real architectures, with tiny random weights, saved as on the Hub."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from graphflow.nodes.diffusion.loading.components import quiet

__all__ = ["KINDS", "save_depth_model"]


def _library() -> Any:
    return importlib.import_module("transformers")


def _beit() -> Any:
    return _library().BeitConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        use_relative_position_bias=True,
    )


def _dinov2() -> Any:
    return _library().Dinov2Config(
        image_size=28,
        patch_size=14,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )


def _dpt() -> Any:
    return _library().DPTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=16,
        is_hybrid=False,
    )


def _dpt_dinov2() -> Any:
    return _library().DPTConfig(
        backbone_config=_dinov2(), neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=256, add_projection=True
    )


def _depth_anything(**more: Any) -> Any:
    return _library().DepthAnythingConfig(
        backbone_config=_dinov2(),
        patch_size=14,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=16,
        head_hidden_size=8,
        **more,
    )


def _glpn() -> Any:
    return _library().GLPNConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8
    )


def _zoedepth() -> Any:
    return _library().ZoeDepthConfig(
        backbone_config=_beit(),
        backbone_hidden_size=32,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=16,
        bottleneck_features=16,
        num_relative_features=16,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
        bin_embedding_dim=16,
        num_attractors=[4, 2, 2, 1],
    )


_DPT = {"size": {"height": 32, "width": 32}}
_DEPTH_ANYTHING = {"size": {"height": 42, "width": 42}, "keep_aspect_ratio": True, "ensure_multiple_of": 14}

KINDS: Mapping[str, tuple[str, Callable[[], Any], str, Mapping[str, Any]]] = {
    "dpt": ("DPTForDepthEstimation", _dpt, "DPTImageProcessorPil", _DPT),
    "dpt-dinov2": ("DPTForDepthEstimation", _dpt_dinov2, "DPTImageProcessorPil", _DEPTH_ANYTHING),
    "depth-anything": (
        "DepthAnythingForDepthEstimation",
        _depth_anything,
        "DPTImageProcessorPil",
        _DEPTH_ANYTHING,
    ),
    "depth-anything-metric": (
        "DepthAnythingForDepthEstimation",
        lambda: _depth_anything(depth_estimation_type="metric", max_depth=20),
        "DPTImageProcessorPil",
        _DEPTH_ANYTHING,
    ),
    "glpn": ("GLPNForDepthEstimation", _glpn, "GLPNImageProcessorPil", {}),
    "zoedepth": (
        "ZoeDepthForDepthEstimation",
        _zoedepth,
        "ZoeDepthImageProcessorPil",
        {"size": {"height": 32, "width": 32}, "ensure_multiple_of": 8},
    ),
}
"""Class, configuration, image processor and its parameters, of each kind."""


def save_depth_model(kind: str, folder: Path) -> Path:
    """Write a model of a kind into a folder, as its maker would."""
    cls, config, processor, parameters = KINDS[kind]
    library = _library()
    torch.manual_seed(5)
    with quiet():
        model = getattr(library, cls)(config()).eval()
        for name, parameter in model.named_parameters():  # as they are made, most answers are flat or all zero
            if parameter.dim() > 1:
                parameter.data = torch.randn(parameter.shape) * (2 / parameter[0].numel()) ** 0.5
            elif "head" in name and name.endswith("bias"):
                parameter.data = torch.full(parameter.shape, 0.3)
        model.save_pretrained(folder)
        getattr(library, processor)(**parameters).save_pretrained(folder)
    return folder
