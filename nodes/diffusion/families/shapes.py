"""Shapes of the tensors in a file compared with a configuration.

A few widths and counts of each component are compared before any weight is read: those that differ between
architectures. Any other difference is found when the weights are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps

from graphflow.nodes.diffusion.families.family import Config, Mismatches, Shapes

__all__ = ["Mismatch", "found_mismatches", "mismatches_of_class", "numbered_parts", "size_of"]

Mismatch = tuple[str, object, object]
"""Subject of a comparison, the value in the file (None where it has none), the value in the configuration."""


def found_mismatches(compared: Callable[[Shapes, Config], Iterator[Mismatch]]) -> Mismatches:
    """Decorate a function that yields comparisons, to return those in which file and configuration differ."""

    @wraps(compared)
    def found(shapes: Shapes, config: Config) -> list[Mismatch]:
        return [each for each in compared(shapes, config) if each[1] is not None and each[1] != each[2]]

    return found


def size_of(shapes: Shapes, name: str, axis: int) -> int | None:
    """Return the length of an axis of a tensor, None where the tensor or the axis is absent."""
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else None


def numbered_parts(shapes: Shapes, prefix: str) -> int:
    """Count numbered parts: of ``layers.`` those named ``layers.0.…``, ``layers.1.…``."""
    numbers = {name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)}
    return len({number for number in numbers if number.isdigit()})


def mismatches_of_class(cls: str) -> Mismatches | None:
    """Return the comparison for a class of components that many families share; None for any other class."""
    return _BY_CLASS.get(cls)


@found_mismatches
def _autoencoder(shapes: Shapes, config: Config) -> Iterator[Mismatch]:
    widths, channels = config["block_out_channels"], config.get("latent_channels", 4)
    yield "width of its first block", size_of(shapes, "encoder.conv_in.weight", 0), widths[0]
    yield "width of its last block", size_of(shapes, "decoder.conv_in.weight", 0), widths[-1]
    yield "number of its latent channels", size_of(shapes, "decoder.conv_in.weight", 1), channels
    levels = numbered_parts(shapes, "encoder.down.") or numbered_parts(shapes, "encoder.down_blocks.")
    yield "number of its blocks", levels, len(widths)


@found_mismatches
def _clip(shapes: Shapes, config: Config) -> Iterator[Mismatch]:
    for words, places, layers in (
        ("token_embedding.weight", "positional_embedding", "transformer.resblocks."),  # OpenCLIP
        (
            "text_model.embeddings.token_embedding.weight",
            "text_model.embeddings.position_embedding.weight",
            "text_model.encoder.layers.",
        ),
    ):
        if words in shapes:
            yield "width of it", size_of(shapes, words, 1), config["hidden_size"]
            yield "size of its vocabulary", size_of(shapes, words, 0), config["vocab_size"]
            yield "length of its window", size_of(shapes, places, 0), config["max_position_embeddings"]
            found, expected = numbered_parts(shapes, layers), config["num_hidden_layers"]
            # Stable Diffusion 2 stores one layer more than it uses.
            yield "number of its layers", min(found, expected), expected


@found_mismatches
def _t5(shapes: Shapes, config: Config) -> Iterator[Mismatch]:
    yield "width of it", size_of(shapes, "shared.weight", 1), config["d_model"]
    yield "size of its vocabulary", size_of(shapes, "shared.weight", 0), config["vocab_size"]
    yield "number of its layers", numbered_parts(shapes, "encoder.block."), config["num_layers"]


_BY_CLASS: dict[str, Mismatches] = {
    "AutoencoderKL": _autoencoder,
    "CLIPTextModel": _clip,
    "CLIPTextModelWithProjection": _clip,
    "T5EncoderModel": _t5,
}
