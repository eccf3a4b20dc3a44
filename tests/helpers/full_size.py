"""Checkpoints of the real sizes without their numbers: configurations, and safetensors files of a header and a hole.

The memory that a network needs follows from its configuration and the shapes of its weights: nothing else is read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from graphflow.nodes.diffusion.loading.components import quiet
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers.libraries import diffusers, transformers

_NAMES = {torch.float32: "F32", torch.int64: "I64"}


def write_header(network: torch.nn.Module, path: Path) -> None:
    """Write a safetensors file for a network on the device "meta": as long as a real one, and without data."""
    header, offset = {}, 0
    for name, tensor in network.state_dict().items():
        places = [offset, offset := offset + tensor.nbytes]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": places}
    text = json.dumps(header).encode()
    # as in a Hugging Face cache, under its hash: so nobody hashes gigabytes of nothing
    blob = path.parent / "blobs" / hashlib.sha256(text).hexdigest()
    blob.parent.mkdir(exist_ok=True)
    with blob.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    path.symlink_to(blob)


def pipeline(folder: Path, cls: str, **parts: Any) -> Path:
    """A pipeline of these networks and schedulers, in the layout of diffusers."""
    index: dict[str, Any] = {"_class_name": cls, "_diffusers_version": "0.42.1"}
    for name, part in parts.items():
        (folder / name).mkdir(parents=True)
        if isinstance(part, torch.nn.Module):
            library = "transformers" if name == "text_encoder" else "diffusers"
            network: Any = part
            save = network.config.save_pretrained if library == "transformers" else network.save_config
            save(folder / name)
            write_header(
                part, folder / name / f"{'' if library == 'transformers' else 'diffusion_pytorch_'}model.safetensors"
            )
        else:
            library = "diffusers"
            part.save_pretrained(folder / name)
        index[name] = [library, type(part).__name__]
    shutil.copytree(require_model("pocket").folder / "tokenizer", folder / "tokenizer")
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def text_encoder(width: int, layers: int, heads: int) -> Any:
    library = transformers()
    return library.CLIPTextModel(
        library.CLIPTextConfig(
            hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads
        )
    )


def autoencoder(*channels: int, **config: Any) -> Any:
    levels = len(channels)
    return diffusers().AutoencoderKL(
        block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, layers_per_block=2, **config,
    )  # fmt: skip


def latent_upscaler(folder: Path) -> Path:
    """Of the size of sd-x2-latent-upscaler: a UNet of 357 million parameters."""
    library = diffusers()
    with quiet(), torch.device("meta"):
        unet = library.UNet2DConditionModel(
            sample_size=128, in_channels=8, out_channels=5, block_out_channels=(384, 384, 768, 768),
            down_block_types=("KDownBlock2D", *("KCrossAttnDownBlock2D",) * 3),
            up_block_types=(*("KCrossAttnUpBlock2D",) * 3, "KUpBlock2D"), mid_block_type=None, act_fn="gelu",
            attention_head_dim=64, cross_attention_dim=768, layers_per_block=[2, 4, 4, 4], norm_num_groups=None,
            conv_in_kernel=1, conv_out_kernel=1, resnet_time_scale_shift="scale_shift",
            time_embedding_type="fourier", timestep_post_act="gelu", time_cond_proj_dim=896,
        )  # fmt: skip
        parts = {"unet": unet, "vae": autoencoder(128, 256, 512, 512), "text_encoder": text_encoder(768, 12, 12)}
    scheduler = library.EulerDiscreteScheduler()
    return pipeline(folder, "StableDiffusionLatentUpscalePipeline", scheduler=scheduler, **parts)


def upscaler(folder: Path) -> Path:
    """Of the size of stable-diffusion-x4-upscaler: a UNet of 473 million parameters."""
    library = diffusers()
    with quiet(), torch.device("meta"):
        unet = library.UNet2DConditionModel(
            sample_size=128, in_channels=7, block_out_channels=(256, 512, 512, 1024),
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
            up_block_types=(*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"), cross_attention_dim=1024,
            attention_head_dim=8, num_class_embeds=1000, use_linear_projection=True,
            only_cross_attention=[True, True, True, False],
        )  # fmt: skip
        vae, encoder = autoencoder(128, 256, 512, scaling_factor=0.08333), text_encoder(1024, 23, 16)
    return pipeline(
        folder,
        "StableDiffusionUpscalePipeline",
        unet=unet,
        vae=vae,
        text_encoder=encoder,
        scheduler=library.DDIMScheduler(),
        low_res_scheduler=library.DDPMScheduler(),
    )
