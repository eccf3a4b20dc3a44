from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphflow import Context, Field, Image, InputFile, Node, PortType, Problem
from graphflow.nodes.file_digest import file_digest
from graphflow.nodes.image_header import ImageHeader, inspect_image

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["LoadImage"]


class LoadImage(Node, version=1, loads=True):
    """Read a picture from a PNG, JPEG, WebP, GIF or BMP file.

    Of an animation the first frame is taken; a rotation noted in EXIF is applied; transparency is flattened over
    ``background``; grey, palette, CMYK and 16-bit pictures become RGB. Colour profiles are not applied. The result is
    float32 (1, 3, height, width) in [0, 1].
    """

    path: InputFile = Field(description="the file; in a workflow, relative to the workflow's folder")
    background: str = Field(
        "#ffffff", pattern=r"^#[0-9a-fA-F]{6}$", description="colour behind transparent pixels, as #rrggbb"
    )

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """One picture of the size that the file's header tells."""
        header = inspect_image(self.path)
        known = isinstance(header, ImageHeader)
        size = (header.width, header.height) if isinstance(header, ImageHeader) else (None, None)
        return {"image": PortType(Image, width=size[0], height=size[1], batch=1 if known else None)}

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """A file that is missing, no image, cut short, or too large."""
        found = inspect_image(self.path)
        return [_at_path(found)] if isinstance(found, Problem) else []

    def identity(self) -> str:
        """The hash of the file."""
        import pathlib

        return file_digest(pathlib.Path(self.path))

    def run(self, *, context: Context) -> Image:
        """Decode the file. Raises ValueError for one that cannot be decoded."""
        import numpy as np
        import torch

        header = inspect_image(self.path)
        if isinstance(header, Problem):
            raise ValueError(f"{header.message} [{header.code}]")
        picture = _turned(_flattened(_decoded(self.path), self.background), header.orientation)
        array = np.array(picture, dtype=np.uint8)
        return Image(torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255)


def _at_path(problem: Problem) -> Problem:
    return Problem(problem.code, problem.message, field="path", hint=problem.hint)


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


def _flattened(picture: PIL.Image.Image, background: str) -> PIL.Image.Image:
    """RGB with 8 bits a channel, transparency laid over the background."""
    import PIL.Image

    if picture.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion would clip them at 255
        import numpy as np

        grey: Any = np.asarray(picture, dtype=np.float64) / 65535 * 255
        return PIL.Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, background), picture).convert("RGB")
    return picture.convert("RGB")


def _turned(picture: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """The picture as it is to be shown, for an EXIF orientation from 1 to 8."""
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
