"""The published checkpoints of one file, as shapes without memory."""

from __future__ import annotations

import json
from typing import Any

import torch

from graphflow.nodes.diffusion.families.family import CONFIGURATIONS
from tests.helpers.libraries import diffusers, transformers
from tests.helpers.original_layout import Weights, original_clip, original_open_clip, original_unet, original_vae


def described(kind: str, name: str) -> Any:
    """A component as our configuration describes it, without memory."""
    folder = CONFIGURATIONS / kind / name
    config = json.loads((folder / "config.json").read_text())
    cls = config.get("_class_name") or config["architectures"][0]
    with torch.device("meta"):
        if "_class_name" in config:
            return getattr(diffusers(), cls).from_config(config)
        found = getattr(transformers(), cls)
        return found(found.config_class.from_pretrained(str(folder)))


def original(kind: str) -> Weights:
    """All tensors of a published checkpoint of one file, as shapes."""
    data = original_unet(described(kind, "unet").state_dict(), 2) | original_vae(described(kind, "vae").state_dict())
    if kind == "stable-diffusion-1":
        return data | original_clip(described(kind, "text_encoder").state_dict())
    if kind in ("stable-diffusion-2", "x4-upscaler"):
        return data | original_open_clip(described(kind, "text_encoder").state_dict(), "cond_stage_model.model.")
    if kind == "stable-diffusion-xl":
        data |= original_clip(described(kind, "text_encoder").state_dict(), "conditioner.embedders.0.transformer.")
    place = 1 if kind == "stable-diffusion-xl" else 0
    return data | original_open_clip(
        described(kind, "text_encoder_2").state_dict(), f"conditioner.embedders.{place}.model."
    )
