"""Files of pictures, written and read with Pillow."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch


def picture(width: int, height: int, mode: str = "RGB") -> PIL.Image.Image:
    """Draw a fractal, so that no two parts of the picture are the same."""
    grey = PIL.Image.effect_mandelbrot((width, height), (-2, -1.5, 1, 1.5), 20)
    return grey.convert(mode)


def encoded(width: int, height: int, format: str, mode: str = "RGB", **options: Any) -> bytes:
    """Content of a file of a format with `picture` in it."""
    buffer = io.BytesIO()
    picture(width, height, mode).save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data with an orientation, in either byte order."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + start + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def opened(path: Path) -> PIL.Image.Image:
    """Read a file of a picture."""
    with PIL.Image.open(path) as file:
        return file.copy()


def names(folder: Path) -> list[str]:
    """Names of all files in a folder and in those below it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def as_tensor(image: PIL.Image.Image) -> torch.Tensor:
    """Pixels as the node that loads a picture gives them."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
