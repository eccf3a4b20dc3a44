"""What a checkpoint of one file is, told from names and shapes of its tensors. Imports no torch.

The names are those of the original implementations (CompVis, Stability AI, Black Forest Labs); which tensor gives a
kind away is what diffusers looks at too (``infer_diffusers_model_type``): both take a file for the same thing.

Stable Diffusion 2 with the v-prediction and with the epsilon objective have the same tensors. As in diffusers a file is
taken for 2.1 at 768 pixels, which predicts v; one of the other sort needs a folder beside it whose scheduler says so.
"""

from __future__ import annotations

from pathlib import Path

from graphflow.nodes.diffusion.checkpoints.safetensors_header import Header

__all__ = ["CONFIGURATIONS", "OTHER_FILES", "kind_of", "other_kind_of"]

CONFIGURATIONS = Path(__file__).parents[1] / "configurations"
"""A folder for each kind, in the layout of diffusers, with JSON files only."""

_UNET = "model.diffusion_model."
_FIRST_CONVOLUTION = f"{_UNET}input_blocks.0.0.weight"
_TEXT_ATTENTION = f"{_UNET}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight"

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
"""What else a file may be: in words, and what to do with it."""


def kind_of(header: Header) -> str | None:
    """The name of a folder in `CONFIGURATIONS`, None for a file that is none of them."""
    shapes = header.shapes
    if other_kind_of(header):
        return None
    if shapes.get(_TEXT_ATTENTION, (0,))[-1] == 1024:
        return "stable-diffusion-2"
    if "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias" in shapes:
        return "stable-diffusion-xl"
    if "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias" in shapes:
        return "stable-diffusion-xl-refiner"
    if f"{_UNET}input_blocks.10.0.skip_connection.bias" in shapes:
        return "x4-upscaler"
    return _transformer_kind(header) or _first_kind(header)


def _transformer_kind(header: Header) -> str | None:
    for prefix in (_UNET, ""):
        parts = header.starting(prefix)
        if "joint_blocks.0.context_block.adaLN_modulation.1.bias" in parts:
            if "joint_blocks.37.x_block.mlp.fc1.weight" in parts:
                return "stable-diffusion-3.5-large"
            places = parts.get("pos_embed", (1, 0, 0))[1]
            return {192**2: "stable-diffusion-3-medium", 384**2: "stable-diffusion-3.5-medium"}.get(places)
        if "double_blocks.0.img_attn.norm.key_norm.scale" in parts:
            return "flux-dev" if "guidance_in.in_layer.bias" in parts else "flux-schnell"
    return None


def _first_kind(header: Header) -> str | None:
    last = f"{_UNET}output_blocks.11.0.skip_connection.weight"
    known = last in header.shapes and header.shapes.get(_TEXT_ATTENTION, (0,))[-1] == 768
    return "stable-diffusion-1" if known else None


def other_kind_of(header: Header) -> str | None:
    """A key of `OTHER_FILES` for a file that is something else than a model which GraphFlow runs; None otherwise."""
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
    picture = shapes.get(f"{_UNET}img_in.weight") or shapes.get("img_in.weight")
    flux = any("double_blocks.0.img_attn.norm.key_norm.scale" in name for name in shapes)
    if flux and picture and picture[-1] != 64:
        return "flux-tools"
    if header.holds(_UNET) or flux or header.holds("joint_blocks."):
        return None
    if "encoder.conv_in.weight" in shapes or header.holds("first_stage_model."):
        return "vae"
    if header.holds("down_blocks.") or header.holds("transformer_blocks."):
        return "component"
    if header.holds("text_model.") or header.holds("encoder.block."):
        return "text-encoder"
    return None
