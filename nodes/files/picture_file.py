"""Pictures read from files, for the nodes that load them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from graphflow import PortType, Problem
from graphflow.nodes.files.image_header import inspect_image

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["check_picture", "read_picture", "type_of_picture"]


def type_of_picture(path: str, kind: type) -> PortType:
    """Return the type of one picture of the size in a file's header."""
    header = inspect_image(path)
    if isinstance(header, Problem):
        return PortType(kind)
    return PortType(kind, width=header.width, height=header.height, batch=1)


def check_picture(path: str) -> Iterable[Problem]:
    """Report a file that is missing, no image, cut short or too large."""
    found = inspect_image(path)
    return [replace(found, field="path")] if isinstance(found, Problem) else []


def read_picture(path: str) -> PIL.Image.Image:
    """Read a picture, turned as its EXIF data says. Raises ValueError for one that cannot be decoded."""
    header = inspect_image(path)
    if isinstance(header, Problem):
        raise ValueError(f"{header.message} [{header.code}]")
    return _turned(_decoded(path), header.orientation)


def _decoded(path: str) -> PIL.Image.Image:
    import warnings

    import PIL.Image

    with warnings.catch_warnings():
        # Pillow warns from half of the limit that `inspect_image` has already held the picture against.
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        try:
            with PIL.Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF", "BMP")) as file:
                file.load()
                return file.copy()
        except (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as error:
            code = "file.truncated" if "truncated" in str(error) else "file.damaged"
            raise ValueError(f"{path} cannot be decoded: {error} [{code}]; copy or download it again") from error


def _turned(picture: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """Turn a picture as it is to be shown, for an EXIF orientation from 1 to 8."""
    import PIL.Image

    turn = PIL.Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return picture.transpose(turns[orientation]) if orientation in turns else picture
