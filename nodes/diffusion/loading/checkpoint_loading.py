"""Weights that `from_pretrained` does not read: components of a checkpoint in a single file, and LoRAs.

diffusers loads both: ``from_single_file`` renames the tensors; its LoRA loader and ``fuse_lora`` add the changes to the
weights. Nothing is downloaded, since the configuration is a local folder.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import diffusers
import torch

from graphflow.nodes.diffusion.checkpoints.model_files import AppliedLora, Component

__all__ = ["from_checkpoint", "fuse_loras"]


def from_checkpoint(component: Component, cls: Any, dtype: torch.dtype) -> torch.nn.Module:
    """Load a component of a checkpoint. Raises ValueError where tensors are missing or of unexpected shapes."""
    try:
        module = _converted(component, cls, dtype)
    except (NotImplementedError, KeyError) as error:
        # diffusers raises them for a tensor that is missing, or left without data.
        raise _incomplete(component, str(error)) from error
    absent = [name for name, tensor in module.named_parameters() if tensor.is_meta]
    if absent:
        raise _incomplete(component, ", ".join(absent[:4]))
    return module


def _converted(component: Component, cls: Any, dtype: torch.dtype) -> torch.nn.Module:
    path, folder = str(component.checkpoint), component.folder
    if hasattr(cls, "from_single_file"):
        module: torch.nn.Module = cls.from_single_file(
            path, config=str(folder.parent), subfolder=folder.name, dtype=dtype, local_files_only=True
        )
        return module
    # Text encoders have no such method: their pipeline loads them, and nothing else where all others are None.
    index = json.loads((folder.parent / "model_index.json").read_bytes())
    others = {name: None for name, value in index.items() if isinstance(value, list) and name != folder.name}
    pipeline = getattr(diffusers, index["_class_name"]).from_single_file(
        path, config=str(folder.parent), dtype=dtype, local_files_only=True, **others
    )
    loaded: Any = getattr(pipeline, folder.name)
    loaded.tie_weights()  # the embedding of T5 is stored once and used in two places
    tied: torch.nn.Module = loaded
    return tied


def _incomplete(component: Component, reason: str) -> ValueError:
    return ValueError(
        f"the file {component.checkpoint} lacks tensors of the {component.folder.name}, expected all of "
        f"{component.folder}/config.json ({reason})"
    )


def fuse_loras(module: Any, name: str, loras: tuple[AppliedLora, ...]) -> None:
    """Add LoRAs to the weights of a module that is not shared yet; ``name`` is its name in the pipeline.

    Raises ValueError for a LoRA of which diffusers can use no tensor. Needs the package peft.
    """
    from diffusers.loaders.lora_base import fuse_text_encoder_lora, set_adapters_for_text_encoder
    from diffusers.utils.peft_utils import recurse_remove_peft_layers
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapters = [f"lora_{index}" for index in range(len(loras))]
    for adapter, lora in zip(adapters, loras, strict=True):
        _add_adapter(module, name, lora, adapter)
        layers = [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]
        if not any(adapter in getattr(layer, "lora_A", {}) for layer in layers):
            raise ValueError(f"diffusers can use nothing of the LoRA {lora.path} for the {name}")
    weights = [lora.weight for lora in loras]
    if isinstance(module, diffusers.ModelMixin):
        module.set_adapters(adapters, weights)
        module.fuse_lora(adapter_names=adapters)
        module.unload_lora()
    else:
        set_adapters_for_text_encoder(adapters, module, weights)
        fuse_text_encoder_lora(module, adapter_names=adapters)
        recurse_remove_peft_layers(module)
        del module.peft_config
        module._hf_peft_config_loaded = None


def _add_adapter(module: Any, name: str, lora: AppliedLora, adapter: str) -> None:
    reader: Any = getattr(diffusers, lora.layout.pipeline)
    options: dict[str, Any] = {}
    if "return_alphas" in lora.layout.options:
        options["return_alphas"] = True
    if "unet_config" in lora.layout.options:
        # kohya's scripts number blocks like the original code; the mapping needs this number of layers.
        options["unet_config"] = module.config if name == "unet" else SimpleNamespace(layers_per_block=2)
    state, *alphas, metadata = reader.lora_state_dict(
        str(lora.path.parent),
        weight_name=lora.path.name,
        use_safetensors=True,
        local_files_only=True,
        return_lora_metadata=True,
        **options,
    )
    given: dict[str, Any] = {"adapter_name": adapter, "metadata": metadata}
    if alphas:
        given["network_alphas"] = alphas[0]
    if name == "unet":
        reader.load_lora_into_unet(state, unet=module, **given)
    elif name == "transformer":
        reader.load_lora_into_transformer(state, transformer=module, **given)
    else:
        given.setdefault("network_alphas", None)
        reader.load_lora_into_text_encoder(state, text_encoder=module, prefix=name, **given)
