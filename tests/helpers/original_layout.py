"""Weights of diffusers under the names that the original implementations give them: the way back of from_single_file.

Tensors may be real or on the meta device; then only their shapes count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

Weights = dict[str, torch.Tensor]

_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding": "label_emb",
}
_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
           "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
_OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
              "self_attn.out_proj": "attn.out_proj"}  # fmt: skip


def original_unet(weights: Mapping[str, torch.Tensor], layers: int, prefix: str = "model.diffusion_model.") -> Weights:
    """A UNet2DConditionModel with ``layers`` in each block."""
    attended = {name.split(".")[1] for name in weights if name.startswith("up_blocks.") and ".attentions." in name}
    return {prefix + _unet_name(name, layers, attended): value for name, value in weights.items()}


def _unet_name(name: str, layers: int, attended: set[str]) -> str:
    for ours, theirs in _UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    kind, block, part, index, rest = re.fullmatch(
        r"(down_blocks|up_blocks|mid_block)\.?(\d+)?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name
    ).groups()  # type: ignore[union-attr]
    if part == "resnets":
        head, _, tail = rest.partition(".")
        rest = f"{_RESNET[head]}.{tail}"
    if kind == "mid_block":
        return f"middle_block.{1 if part == 'attentions' else 2 * int(index)}.{rest}"
    place = int(block) * (layers + 1) + int(index)
    if part == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.{rest.replace('conv', 'op')}"
    if part == "upsamplers":
        return f"output_blocks.{int(block) * (layers + 1) + layers}.{2 if block in attended else 1}.{rest}"
    inner = 1 if part == "attentions" else 0
    return (
        f"input_blocks.{1 + place}.{inner}.{rest}" if kind == "down_blocks" else f"output_blocks.{place}.{inner}.{rest}"
    )


def original_vae(weights: Mapping[str, torch.Tensor], prefix: str = "first_stage_model.") -> Weights:
    """An AutoencoderKL."""
    levels = len({name.split(".")[2] for name in weights if name.startswith("encoder.down_blocks.")})
    renamed: Weights = {}
    for name, value in weights.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        if "mid_block.attentions.0" in new:
            new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            new = re.sub(r"\bto_([qkv])\b", r"\1", new).replace("to_out.0", "proj_out")
            value = value[:, :, None, None] if value.dim() == 2 else value
        renamed[prefix + new] = value
    return renamed


def original_clip(weights: Mapping[str, torch.Tensor], prefix: str = "cond_stage_model.transformer.") -> Weights:
    """A CLIPTextModel under its names in transformers, which the original of Stable Diffusion 1 uses."""
    return {f"{prefix}text_model.{name.removeprefix('text_model.')}": value for name, value in weights.items()}


def original_open_clip(weights: Mapping[str, torch.Tensor], prefix: str) -> Weights:
    """A CLIP text encoder under the names of OpenCLIP, with the three projections of attention in one."""
    plain = {name.removeprefix("text_model."): value for name, value in weights.items()}
    renamed = {
        "positional_embedding": plain.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": plain.pop("embeddings.token_embedding.weight"),
        "ln_final.weight": plain.pop("final_layer_norm.weight"),
        "ln_final.bias": plain.pop("final_layer_norm.bias"),
    }
    if "text_projection.weight" in plain:
        renamed["text_projection"] = plain.pop("text_projection.weight").T.contiguous()
    for name in list(plain):
        layer, _, rest = name.removeprefix("encoder.layers.").partition(".")
        new = f"transformer.resblocks.{layer}."
        if rest in ("self_attn.q_proj.weight", "self_attn.q_proj.bias"):
            parts = [plain[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            renamed[f"{new}attn.in_proj_{rest.rpartition('.')[2]}"] = torch.cat(parts)
        elif not re.match(r"self_attn\.[kv]_proj", rest):
            head, _, tail = rest.rpartition(".")
            renamed[f"{new}{_OPEN_CLIP[head]}.{tail}"] = plain[name]
    return {prefix + name: value.clone() if not value.is_meta else value for name, value in renamed.items()}


_TIMES_SD3 = {"time_text_embed.timestep_embedder": "t_embedder", "time_text_embed.text_embedder": "y_embedder"}
_EMBEDDERS_FLUX = {
    "time_text_embed.timestep_embedder": "time_in",
    "time_text_embed.text_embedder": "vector_in",
    "time_text_embed.guidance_embedder": "guidance_in",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
}
_ENDS_SD3 = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_ENDS_FLUX = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_QUERIES_SD3 = {"attn.to_q": "x_block.attn", "attn.add_q_proj": "context_block.attn", "attn2.to_q": "x_block.attn2"}
_QUERIES_FLUX = {"attn.to_q": "img_attn", "attn.add_q_proj": "txt_attn"}
_ENDS_FLUX_SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}


def _swapped(value: torch.Tensor) -> torch.Tensor:
    """Swap the halves: diffusers has scale and shift, the originals have shift and scale."""
    return torch.cat(value.chunk(2)[::-1])


def original_sd3(weights: Mapping[str, torch.Tensor], prefix: str = "model.diffusion_model.") -> Weights:
    """An SD3Transformer2DModel."""
    last = max(int(name.split(".")[1]) for name in weights if name.startswith("transformer_blocks."))
    made: Weights = {}
    for name, value in weights.items():
        stem, _, kind = name.rpartition(".")
        head, _, layer = stem.rpartition(".")
        if stem == "pos_embed":
            made["pos_embed"] = value
        elif head in _TIMES_SD3:
            made[f"{_TIMES_SD3[head]}.mlp.{'0' if layer == 'linear_1' else '2'}.{kind}"] = value
        elif name.startswith("transformer_blocks."):
            _, number, end = stem.split(".", 2)
            block = f"joint_blocks.{number}."
            if end in _QUERIES_SD3:
                made[f"{block}{_QUERIES_SD3[end]}.qkv.{kind}"] = _joined(weights, name)
            elif end in _ENDS_SD3:
                other = int(number) == last and end == "norm1_context.linear"
                made[f"{block}{_ENDS_SD3[end]}.{kind}"] = _swapped(value) if other else value
        else:
            ends = {
                "pos_embed.proj": "x_embedder.proj", "context_embedder": "context_embedder",
                "proj_out": "final_layer.linear", "norm_out.linear": "final_layer.adaLN_modulation.1",
            }  # fmt: skip
            made[f"{ends[stem]}.{kind}"] = _swapped(value) if stem == "norm_out.linear" else value
    return {prefix + name: value for name, value in made.items()}


def original_flux(weights: Mapping[str, torch.Tensor], prefix: str = "model.diffusion_model.") -> Weights:
    """A FluxTransformer2DModel."""
    made: Weights = {}
    for name, value in weights.items():
        stem, _, kind = name.rpartition(".")
        head, _, layer = stem.rpartition(".")
        if name.startswith(("transformer_blocks.", "single_transformer_blocks.")):
            single = name.startswith("single")
            _, number, end = stem.split(".", 2)
            block = f"{'single' if single else 'double'}_blocks.{number}."
            kind = "scale" if ".norm_" in stem else kind
            if single and end == "attn.to_q":
                more = weights[f"single_transformer_blocks.{number}.proj_mlp.{kind}"]
                made[f"{block}linear1.{kind}"] = torch.cat([_joined(weights, name), more])
            elif end in _QUERIES_FLUX:
                made[f"{block}{_QUERIES_FLUX[end]}.qkv.{kind}"] = _joined(weights, name)
            elif end in (ends := _ENDS_FLUX_SINGLE if single else _ENDS_FLUX):
                made[f"{block}{ends[end]}.{kind}"] = value
        elif head in _EMBEDDERS_FLUX:
            made[f"{_EMBEDDERS_FLUX[head]}.{'in' if layer == 'linear_1' else 'out'}_layer.{kind}"] = value
        elif stem in _EMBEDDERS_FLUX:
            made[f"{_EMBEDDERS_FLUX[stem]}.{kind}"] = value
        elif stem == "norm_out.linear":
            made[f"final_layer.adaLN_modulation.1.{kind}"] = _swapped(value)
        else:
            made[f"final_layer.linear.{kind}"] = value
    return {prefix + name: value for name, value in made.items()}


def _joined(weights: Mapping[str, torch.Tensor], query: str) -> torch.Tensor:
    """The three projections of attention in one, which the originals have."""
    return torch.cat([weights[re.sub(r"_q(_proj)?\.", rf"_{letter}\1.", query)] for letter in "qkv"])


def save_header_only(weights: Mapping[str, torch.Tensor], path: Path, dtype: str = "F16") -> None:
    """A safetensors file of the right size whose data is a hole: it takes no room on the disk."""
    header: dict[str, Any] = {}
    end = 0
    for name, value in weights.items():
        begin, end = end, end + 2 * value.numel()
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
