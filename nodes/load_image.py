from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphflow import Context, Field, Image, PortType
from graphflow.nodes.picture_node import PictureNode

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["LoadImage"]


class LoadImage(PictureNode, version=1, loads=True, cached=False):
    """Read a picture from a PNG, JPEG, WebP, GIF or BMP file, or from an https URL of one.

    Of an animation the first frame is taken; a rotation noted in EXIF is applied; transparency is flattened over
    ``background``; grey, palette, CMYK and 16-bit pictures become RGB. Colour profiles are not applied. The result is
    float32 (1, 3, height, width) in [0, 1].

    A URL is downloaded when a workflow is planned or run (at most 64 MiB, 120 seconds and 5 redirects, from public
    addresses only) and kept in a cache; later the server is asked only whether it has changed. Results depend on the
    content, not on when it was downloaded. `graphflow validate` and ``--offline`` use what is in the cache.
    """

    background: str = Field(
        "#ffffff", pattern=r"^#[0-9a-fA-F]{6}$", description="colour behind transparent pixels, as #rrggbb"
    )

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """One picture of the size in the file's header."""
        return {"image": self.type_of_result(Image)}

    def run(self, *, context: Context) -> Image:
        """Decode the file. Raises ValueError for one that cannot be decoded."""
        import numpy as np
        import torch

        array = np.array(_flattened(self.read(), self.background), dtype=np.uint8)
        return Image(torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255)


def _flattened(picture: PIL.Image.Image, background: str) -> PIL.Image.Image:
    """Convert to RGB with 8 bits a channel, transparency laid over the background."""
    import PIL.Image

    if picture.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion would clip them at 255
        import numpy as np

        grey: Any = np.asarray(picture, dtype=np.float64) / 65535 * 255
        return PIL.Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, background), picture).convert("RGB")
    return picture.convert("RGB")
