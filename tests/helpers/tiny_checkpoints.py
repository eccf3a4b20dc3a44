"""Tiny checkpoints of one file, made from tiny folders of diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.helpers.original_layout import (
    original_clip,
    original_flux,
    original_open_clip,
    original_sd3,
    original_unet,
    original_vae,
)


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


def transformer_file(folder: Path, path: Path) -> Path:
    """A pipeline of SD3 or FLUX as one file with all that it has, with its JSON files and tokenizers beside it."""
    sd3 = "CLIP" in (folder / "text_encoder_2/config.json").read_text()
    data = (original_sd3 if sd3 else original_flux)(weights(folder, "transformer"))
    data |= original_vae(weights(folder, "vae"), "first_stage_model." if sd3 else "vae.")
    # the projection of the first is left out: that of CLIP-L in these models changes nothing
    first = {name: value for name, value in weights(folder, "text_encoder").items() if "projection" not in name}
    data |= original_clip(first, "text_encoders.clip_l.transformer.")
    if sd3:
        second = weights(folder, "text_encoder_2")
        data["text_encoders.clip_g.transformer.text_projection.weight"] = second.pop("text_projection.weight")
        data |= original_clip(second, "text_encoders.clip_g.transformer.")
    t5 = folder / ("text_encoder_3" if sd3 else "text_encoder_2")
    if t5.exists():
        data |= {f"text_encoders.t5xxl.transformer.{name}": value for name, value in weights(folder, t5.name).items()}
    save_file({name: value.contiguous() for name, value in data.items()}, str(path))
    shutil.copytree(folder, path.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    return path
