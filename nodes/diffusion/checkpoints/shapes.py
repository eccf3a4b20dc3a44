"""Whether the tensors of a checkpoint of one file fit a configuration. Imports no torch.

A few widths and counts of each component are compared, before any weight is read: those that differ between
architectures. What fits them and yet differs elsewhere is found when the weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphflow.nodes.diffusion.checkpoints.safetensors_header import Shape

__all__ = ["mismatches"]

Shapes = Mapping[str, Shape]
Finding = tuple[str, object, object]
"""What was looked at, what the file has, what the configuration says."""


def mismatches(cls: str, shapes: Shapes, config: Mapping[str, Any]) -> list[Finding]:
    """Where a component differs from its configuration: (what, found, expected), nothing where all is well.

    ``shapes`` are those of the component alone, by the names within it.
    """
    checks = _CHECKS.get(cls)
    findings = list(checks(shapes, config)) if checks else []
    return [(what, found, expected) for what, found, expected in findings if found is not None and found != expected]


def _size(shapes: Shapes, name: str, axis: int) -> int | None:
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else None


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered parts there are: of ``layers.`` those named ``layers.0.…``, ``layers.1.…``."""
    numbers = {name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)}
    return len({number for number in numbers if number.isdigit()})


def _unet(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[Finding]:
    widths, layers = config["block_out_channels"], config.get("layers_per_block", 2)
    yield "width of its first block", _size(shapes, "input_blocks.0.0.weight", 0), widths[0]
    yield "number of its input channels", _size(shapes, "input_blocks.0.0.weight", 1), config["in_channels"]
    yield "number of its output channels", _size(shapes, "out.2.weight", 0), config.get("out_channels", 4)
    yield "width of its last block", _size(shapes, "middle_block.0.in_layers.2.weight", 0), widths[-1]
    if isinstance(layers, int):
        yield "number of its input blocks", _count(shapes, "input_blocks."), len(widths) * (layers + 1)
    text = next((shape[-1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), None)
    # Where a UNet looks at nothing but its own picture there is nothing to compare.
    yield "width of the text encoding it takes", text, config.get("cross_attention_dim", 1280)


def _vae(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[Finding]:
    widths, channels = config["block_out_channels"], config.get("latent_channels", 4)
    yield "width of its first block", _size(shapes, "encoder.conv_in.weight", 0), widths[0]
    yield "width of its last block", _size(shapes, "decoder.conv_in.weight", 0), widths[-1]
    yield "number of its latent channels", _size(shapes, "decoder.conv_in.weight", 1), channels
    levels = _count(shapes, "encoder.down.") or _count(shapes, "encoder.down_blocks.")
    yield "number of its blocks", levels, len(widths)


def _clip(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[Finding]:
    for words, places, layers in (
        ("token_embedding.weight", "positional_embedding", "transformer.resblocks."),  # OpenCLIP
        (
            "text_model.embeddings.token_embedding.weight",
            "text_model.embeddings.position_embedding.weight",
            "text_model.encoder.layers.",
        ),
    ):
        if words in shapes:
            yield "width of it", _size(shapes, words, 1), config["hidden_size"]
            yield "size of its vocabulary", _size(shapes, words, 0), config["vocab_size"]
            yield "length of its window", _size(shapes, places, 0), config["max_position_embeddings"]
            found, expected = _count(shapes, layers), config["num_hidden_layers"]
            # Stable Diffusion 2 stores one layer more than it uses.
            yield "number of its layers", min(found, expected), expected


def _t5(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[Finding]:
    yield "width of it", _size(shapes, "shared.weight", 1), config["d_model"]
    yield "size of its vocabulary", _size(shapes, "shared.weight", 0), config["vocab_size"]
    yield "number of its layers", _count(shapes, "encoder.block."), config["num_layers"]


def _sd3(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[Finding]:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    yield "width of it", _size(shapes, "x_embedder.proj.weight", 0), width
    yield "number of its input channels", _size(shapes, "x_embedder.proj.weight", 1), config["in_channels"]
    yield (
        "width of the text encoding it takes",
        _size(shapes, "context_embedder.weight", 1),
        config["joint_attention_dim"],
    )
    yield "number of its blocks", _count(shapes, "joint_blocks."), config["num_layers"]


def _flux(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[Finding]:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    yield "width of it", _size(shapes, "img_in.weight", 0), width
    yield "number of its input channels", _size(shapes, "img_in.weight", 1), config["in_channels"]
    yield "width of the text encoding it takes", _size(shapes, "txt_in.weight", 1), config["joint_attention_dim"]
    yield "number of its double blocks", _count(shapes, "double_blocks."), config["num_layers"]
    yield "number of its single blocks", _count(shapes, "single_blocks."), config["num_single_layers"]


_CHECKS = {
    "UNet2DConditionModel": _unet,
    "AutoencoderKL": _vae,
    "CLIPTextModel": _clip,
    "CLIPTextModelWithProjection": _clip,
    "T5EncoderModel": _t5,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
}
