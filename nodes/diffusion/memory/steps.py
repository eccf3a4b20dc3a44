"""Memory of the steps of a model: weights of the components that they load, and activations.

Sizes come from static types, so an estimate is None where a size is not known before the run, or where the blocks of a
network are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphflow import Compute, Memory, PortType
from graphflow.nodes.diffusion.families import class_of
from graphflow.nodes.diffusion.memory.networks import (
    WIDTH,
    controlnet_activations,
    decoder_activations,
    encoder_activations,
    text_activations,
    unet_activations,
    weight_bytes,
)
from graphflow.nodes.diffusion.memory.transformers import (
    denoiser_activations,
    language_model_activations,
    prior_activations,
    t5_activations,
)
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.models.network_info import NetworkInfo

__all__ = ["decoding_memory", "denoising_memory", "depth_memory", "encoding_memory", "prior_memory", "prompt_memory"]

PLANES = 4
"""Copies of a decoded picture alive at once while its items are concatenated and mapped to [0, 1]."""


def prompt_memory(info: ModelInfo, compute: Compute) -> Memory | None:
    """Estimate the memory to encode one prompt, of any length."""
    names = [name for name in info.components if name.startswith("text_encoder")]
    needs = [_text_need(info, name, compute) for name in names]
    known = [need for need in needs if need is not None]
    return _with_weights(info, names, sum(known), compute) if len(known) == len(needs) else None


def prior_memory(info: ModelInfo, compute: Compute, *, guided: bool) -> Memory | None:
    """Estimate the memory to run the prior of a decoder and its text encoder, one picture at a time."""
    names = [name for name in info.components if name in info.family.prior]
    needs = [_text_need(info, name, compute) or 0 for name in names]
    priors = [info.configs[name] for name in names if _known(info, name, "PriorTransformer")]
    needs += [prior_activations(config, 2 if guided else 1, compute) for config in priors]
    return _with_weights(info, names, max(needs), compute) if priors else None


def _text_need(info: ModelInfo, name: str, compute: Compute) -> int | None:
    encoder = info.family.text_encoders.get(name)
    if encoder is None or name not in info.components:
        return None
    config = info.configs[name]
    tokens = encoder.window_of(config)
    if _known(info, name, "CLIPTextModel", "CLIPTextModelWithProjection"):
        return text_activations(config, tokens, compute)
    if _known(info, name, "T5EncoderModel"):
        return t5_activations(config, tokens, compute)
    return language_model_activations(config, tokens, compute) if "intermediate_size" in config else None


def denoising_memory(
    info: ModelInfo,
    latent: PortType,
    compute: Compute,
    *,
    guided: bool,
    controlnet: NetworkInfo | None = None,
    tile: int | None = None,
) -> Memory | None:
    """Estimate the memory to denoise latents of the size of ``latent``, with tiles of at most ``tile`` cells a side.

    Only a UNet works in tiles.
    """
    cells = _cells(info, latent)
    name = info.family.denoiser
    if cells is None or latent.batch is None:
        return None
    rows, columns = cells
    config = info.denoiser
    items = latent.batch * (2 if guided else 1)
    tokens = info.family.denoiser_memory
    if tokens is not None:
        text = sum(_window(info, encoder) for encoder in tokens.encoders)
        need = denoiser_activations(tokens, config, rows, columns, text, items, compute)
        return _with_weights(info, [name], need, compute)
    if not _known(info, name, "UNet2DConditionModel"):
        return None
    seen = min(rows, tile or rows), min(columns, tile or columns)
    need = unet_activations(config, seen[0], seen[1], items, compute, controlled=controlnet is not None)
    if seen != cells:
        # the sum of the tiles' outputs, the sum of their weights, and the quotient
        need += 3 * int(config["out_channels"]) * rows * columns * items * WIDTH[compute.dtype]
    if controlnet is not None:
        pixels = 3 * rows * columns * info.pixels_per_cell**2 * items * WIDTH[compute.dtype]
        need = pixels + max(need, controlnet_activations(controlnet.config, rows, columns, items, compute))
    return _with_weights(info, [name], need, compute, controlnet)


def _window(info: ModelInfo, encoder: str) -> int:
    """Return the tokens of a prompt that a denoiser gets from a text encoder, which are zeros for an absent one."""
    return info.family.text_encoders[encoder].window_of(info.configs.get(encoder, {}))


def decoding_memory(info: ModelInfo, latent: PortType, tile: int, compute: Compute) -> Memory | None:
    """Estimate the memory to decode latents of the size of ``latent``, item by item, in tiles of ``tile`` pixels."""
    cells = _cells(info, latent)
    name = info.family.autoencoder
    if cells is None or latent.batch is None or not _known(info, name, "AutoencoderKL"):
        return None
    need = decoder_activations(info.autoencoder, *_tile(info, cells, tile), compute)
    if compute.on_cpu:  # with an accelerator the pictures are concatenated in the machine's memory
        need += _picture_bytes(latent) * PLANES
    return _with_weights(info, [name], need, compute)


def encoding_memory(info: ModelInfo, image: PortType, tile: int, compute: Compute) -> Memory | None:
    """Estimate the memory to encode pictures of the size of ``image``, item by item, in tiles of ``tile`` pixels."""
    cells = _cells(info, image)
    name = info.family.autoencoder
    if cells is None or image.batch is None or not _known(info, name, "AutoencoderKL"):
        return None
    need = encoder_activations(info.autoencoder, *_tile(info, cells, tile), compute)
    return _with_weights(info, [name], need + 3 * _picture_bytes(image), compute)


def depth_memory(network: NetworkInfo, image: PortType, compute: Compute) -> Memory | None:
    """Estimate the memory of a depth network, picture by picture, each resized to the size that it was trained at.

    Return None for the networks of transformers.
    """
    if network.cls != "UNet2DModel":
        return None
    weights = weight_bytes(network.component, network.config, compute)
    if weights is None or image.width is None or image.height is None or image.batch is None:
        return None
    size = int(network.config["sample_size"])
    return Memory(weights, unet_activations(network.config, size, size, 1, compute) + 2 * _picture_bytes(image))


def _with_weights(
    info: ModelInfo, names: Iterable[str], need: int, compute: Compute, network: NetworkInfo | None = None
) -> Memory | None:
    sizes = [weight_bytes(info.components[name], info.configs[name], compute) for name in names]
    if network is not None:
        sizes.append(weight_bytes(network.component, network.config, compute))
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    return Memory(max(known, default=0) if compute.offload == "sequential" else sum(known), need)


def _known(info: ModelInfo, name: str, *classes: str) -> bool:
    """Return whether the model has a component, and it is of one of some classes."""
    return name in info.components and class_of(info.configs["pipeline"], name) in classes


def _cells(info: ModelInfo, size: PortType) -> tuple[int, int] | None:
    if size.width is None or size.height is None:
        return None
    return max(1, size.height // info.pixels_per_cell), max(1, size.width // info.pixels_per_cell)


def _tile(info: ModelInfo, cells: tuple[int, int], tile: int) -> tuple[int, int]:
    """Return the rows and columns of the largest tile, as in `AutoencoderFamily`."""
    longest = max(tile // info.pixels_per_cell, 8)
    return min(cells[0], longest), min(cells[1], longest)


def _picture_bytes(size: PortType) -> int:
    assert size.width is not None
    assert size.height is not None
    return 3 * size.width * size.height * (size.batch or 1) * WIDTH["float32"]
