"""Values that travel along edges, their static types, and the one rule for what may connect.

A *value* (`Image`, `Latent`, …) exists while a workflow runs. A `PortType` is what is known of it before: the kind,
the latent space, the size. Nothing here imports torch; the tensors inside the values are looked at only by duck typing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

if TYPE_CHECKING:
    import PIL.Image
    import torch

__all__ = [
    "Conditioning",
    "DepthMap",
    "Image",
    "InputFile",
    "Latent",
    "Mask",
    "ModelRef",
    "PortType",
    "Seed",
    "Text",
    "accepts",
    "digest_of",
    "size_of",
    "type_name",
]

Text = str
"""A prompt or any other text."""

Seed = Annotated[int, Field(ge=0, lt=2**64)]
"""An integer from which noise is drawn; item i of a batch uses seed + i."""


class Marker(str):
    """Marks a parameter whose text the engine treats specially (a file, a model)."""

    __slots__ = ()


INPUT_FILE = Marker("file")
MODEL_REF = Marker("model")

InputFile = Annotated[str, INPUT_FILE]
"""Path of a file that is read. In a workflow file it is relative to that file and may not leave its folder.

Where the node has a method ``fetch`` it may also be an https URL, which arrives as it was written.
"""

ModelRef = Annotated[str, MODEL_REF]
"""``pocket``, a hub id with optional ``@revision``, a local folder, or a ``.safetensors`` file."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pixels:
    pixels: torch.Tensor

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[-1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[-2])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.pixels.nbytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of {self.width} x {self.height} px)"

    def to_pil(self, index: int = 0) -> PIL.Image.Image:
        """Item ``index`` of the batch as a Pillow image with 8 bits a channel."""
        import PIL.Image

        array = (self.pixels[index].detach().float().cpu().clamp(0, 1) * 255).round().byte().numpy()
        return PIL.Image.fromarray(array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Image(_Pixels):
    """A batch of pictures: float32 (batch, 3, height, width), RGB, values in [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Mask(_Pixels):
    """A batch of masks: float32 (batch, 1, height, width); 1 is what is meant, 0 is left alone."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DepthMap(_Pixels):
    """A batch of inverse depth maps: float32 (batch, 1, height, width) in [0, 1], near is 1 (white)."""


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """A batch of latents: float (batch, channels, height, width) in latent cells, scaled as diffusers scales them.

    ``space`` names the latent space ("sd", "sdxl", "pocket", …); ``model`` is the reference of a model whose VAE reads
    it; ``noise`` is the share of the noise schedule still in it: 0 is clean, 1 is pure noise (no picture yet);
    ``steps`` is the length of that schedule where it was left part of the way.
    """

    data: torch.Tensor
    space: str
    model: str
    noise: float = 0.0
    steps: int | None = None

    def __len__(self) -> int:
        return int(self.data.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.data.nbytes)

    def __repr__(self) -> str:
        return f"Latent[{self.space}]{tuple(self.data.shape)}"


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """An encoded prompt: float (1 or batch, tokens, width), from the text encoder of ``space``.

    ``pooled`` is the whole prompt as one vector (1 or batch, width), for models that want it. ``mask`` (1 or batch,
    tokens) is 1 for tokens of the prompt and 0 for those that only fill it up, for models that tell them apart.
    """

    embeds: torch.Tensor
    space: str
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(int(part.nbytes) for part in (self.embeds, self.pooled, self.mask) if part is not None)

    def __repr__(self) -> str:
        return f"Conditioning[{self.space}]{tuple(self.embeds.shape)}"


@dataclass(frozen=True, slots=True)
class PortType:
    """Static type of a value, known before it exists. `accepts` looks at ``kind`` and ``space`` only.

    ``space`` None on an input means any. ``model`` is a reference whose VAE encodes and decodes the latent; sizes are
    in pixels (of the picture, for a latent too); ``batch`` is the number of items. None is "not known before the run".
    """

    kind: type
    space: str | None = None
    model: str | None = None
    width: int | None = None
    height: int | None = None
    batch: int | None = None
    noise: float | None = None
    """Of latents: the share of the noise schedule still in them, 0 clean, 1 pure noise."""
    steps: int | None = None
    """Of partly noisy latents: the length of the noise schedule that they were left on."""

    @property
    def partly_noisy(self) -> bool:
        """True for latents that were left part of the way through a noise schedule."""
        return self.noise is not None and 0 < self.noise < 1

    def __str__(self) -> str:
        return type_name(self.kind) + (f"[{self.space}]" if self.space else "")


PLAIN_KINDS: dict[type, str] = {str: "Text", int: "Int", float: "Float", bool: "Bool"}


def type_name(kind: type) -> str:
    """Return the name people see: Text, Int, Float, Bool, or the class's own."""
    return PLAIN_KINDS.get(kind) or kind.__name__


def accepts(target: PortType, source: PortType) -> bool:
    """Check whether a value of type ``source`` may arrive at ``target`` as it is: the one rule for what may connect.

    Kinds must be equal (or a subclass), an integer may stand for a float, and latent spaces must agree where the target
    names one.
    """
    if source.kind is target.kind:
        return target.space is None or source.space is None or source.space == target.space
    if target.kind is float:
        return source.kind is int
    if source.kind in PLAIN_KINDS or target.kind in PLAIN_KINDS:
        return False
    return issubclass(source.kind, target.kind)


def size_of(value: object) -> int:
    """Count the bytes that a value holds, 0 where it has no size."""
    nbytes: Any = getattr(value, "nbytes", 0)
    return int(nbytes)


def digest_of(value: object) -> str:
    """SHA-256 (hex) of a value given from outside, so that equal content has an equal cache key.

    Plain values are their own text; tensors count with type, shape and bytes; other classes tell through a
    ``digest() -> str`` method, and one that cannot tell is known by its identity only.
    """
    own: Any = getattr(value, "digest", None)
    if own is not None:
        return str(own())
    hasher = hashlib.sha256(type(value).__name__.encode())
    if isinstance(value, (str, int, float, bool)) or value is None:
        hasher.update(repr(value).encode())
    elif isinstance(value, (_Pixels, Latent, Conditioning)):
        for name in value.__dataclass_fields__:
            part = getattr(value, name)
            if hasattr(part, "detach"):
                array = part.detach().cpu().contiguous().float().numpy()
                hasher.update(f"{name}:{part.dtype}:{tuple(part.shape)}:".encode())
                hasher.update(array.tobytes())
            elif part is not None or name != "mask":  # which came later: without one a digest stays what it was
                hasher.update(f"{name}:{part!r}:".encode())
    else:
        hasher.update(f"{id(value)}".encode())
    return hasher.hexdigest()
