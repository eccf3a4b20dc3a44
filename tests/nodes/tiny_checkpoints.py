"""Tiny checkpoints of one file, made from tiny folders of diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.nodes.original_layout import original_clip, original_open_clip, original_unet, original_vae


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights of a component."""
    (path,) = (folder / name).glob("*.safetensors")
    return load_file(str(path))


def single_file(folder: Path, path: Path, *, configured: bool = True) -> Path:
    """A pipeline of Stable Diffusion 1 or XL as one file, with its JSON files and tokenizers in a folder beside it."""
    layers = json.loads((folder / "unet/config.json").read_text())["layers_per_block"]
    data = original_unet(weights(folder, "unet"), layers) | original_vae(weights(folder, "vae"))
    if (folder / "text_encoder_2").exists():
        data |= original_clip(weights(folder, "text_encoder"), "conditioner.embedders.0.transformer.")
        data |= original_open_clip(weights(folder, "text_encoder_2"), "conditioner.embedders.1.model.")
    else:
        data |= original_clip(weights(folder, "text_encoder"))
    save_file({name: value.contiguous() for name, value in data.items()}, str(path))
    if configured:
        shutil.copytree(folder, path.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    return path
