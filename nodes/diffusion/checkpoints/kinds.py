"""Checkpoints in a single file, recognised by names and shapes of their tensors.

The names are those of the original implementations (CompVis, Stability AI, Black Forest Labs). The tensors that
identify a kind are those that diffusers tests (``infer_diffusers_model_type``), so that both recognise a file alike. A
family describes its own files (`SingleFileLayout`); this module adds the kinds that belong to no family.
"""

from __future__ import annotations

from pathlib import Path

from graphflow.nodes.diffusion.checkpoints.safetensors_header import Header
from graphflow.nodes.diffusion.families import SingleFileLayout, all_families
from graphflow.nodes.diffusion.families.unet import PREFIX

__all__ = ["OTHER_FILES", "configuration_of", "known_kinds", "other_kind_of"]

_FIRST_CONVOLUTION = f"{PREFIX}input_blocks.0.0.weight"

OTHER_FILES = {
    "lora": ("a LoRA", "name it after a model: MODEL + lora:FILE"),
    "vae": ("a VAE alone", "name it after a model: MODEL + vae:FILE"),
    "controlnet": ("a ControlNet", "give it as the controlnet of a ControlNetDepth"),
    "inpainting": ("an inpainting model, which GraphFlow does not run", "choose another model"),
    "instructions": ("a model of InstructPix2Pix, which GraphFlow does not run", "choose another model"),
    "playground": ("a model of Playground 2.5, which GraphFlow does not run", "choose another model"),
    "flux-tools": ("a FLUX model that is steered by a picture, which GraphFlow does not run", "choose another model"),
    "component": (
        "one component of a model in the layout of diffusers",
        "give the folder that holds model_index.json and all components",
    ),
    "text-encoder": ("a text encoder alone", "give a file that holds the whole model"),
}
"""The kinds of files that are no whole model: a description and a hint, for messages."""


def configuration_of(header: Header) -> Path | None:
    """Return the folder with the configuration of a checkpoint; None for a file that no family recognises."""
    if other_kind_of(header):
        return None
    for layout in _layouts():
        for kind, recognised in layout.kinds.items():
            if recognised(header.shapes):
                return layout.configurations / kind
    return None


def known_kinds() -> list[str]:
    """List the kinds of checkpoints that families recognise, by the names of their folders."""
    return sorted(kind for layout in _layouts() for kind in layout.kinds)


def other_kind_of(header: Header) -> str | None:
    """Return the key of `OTHER_FILES` for a file that GraphFlow cannot run as a model; None otherwise."""
    shapes = header.shapes
    first = shapes.get(_FIRST_CONVOLUTION, (0, 0))
    if any(".lora_" in name or ".lora." in name or name.startswith("lora_") for name in shapes):
        return "lora"
    if any(name.startswith(("control_model.", "controlnet_cond_embedding.", "input_hint_block.")) for name in shapes):
        return "controlnet"
    if len(first) > 1 and first[1] == 9:
        return "inpainting"
    if len(first) > 1 and first[1] == 8:
        return "instructions"
    if "edm_mean" in shapes:
        return "playground"
    picture = shapes.get(f"{PREFIX}img_in.weight") or shapes.get("img_in.weight")
    flux = any("double_blocks.0.img_attn.norm.key_norm.scale" in name for name in shapes)
    if flux and picture and picture[-1] != 64:
        return "flux-tools"
    if header.holds(PREFIX) or any(layout.mark in shapes for layout in _layouts() if "" in layout.prefixes):
        return None
    if flux or header.holds("joint_blocks."):  # a transformer that lacks some of its tensors
        return None
    if "encoder.conv_in.weight" in shapes or header.holds("first_stage_model."):
        return "vae"
    if header.holds("down_blocks.") or header.holds("transformer_blocks."):
        return "component"
    if header.holds("text_model.") or header.holds("encoder.block."):
        return "text-encoder"
    return None


def _layouts() -> list[SingleFileLayout]:
    return [family.single_file for family in all_families() if family.single_file]
