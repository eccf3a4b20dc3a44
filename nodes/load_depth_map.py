from __future__ import annotations

from collections.abc import Mapping

from graphflow import Context, DepthMap, Field, PortType
from graphflow.nodes.picture_node import PictureNode

__all__ = ["LoadDepthMap"]


class LoadDepthMap(PictureNode, version=1, loads=True, cached=False):
    """Read an inverse depth map from a picture: white is near, black is infinitely far.

    Grey pictures of 8 or 16 bits keep what they hold; of a colour picture the luminance is taken, with 8 bits, also
    where the file has more. Transparency is ignored. A rotation noted in EXIF is applied. The result is float32
    (1, 1, height, width) in [0, 1]. An https URL is read as `LoadImage` reads one.
    """

    invert: bool = Field(False, description="in the file near is black and far is white")

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """One map of the size in the file's header."""
        return {"depth_map": self.type_of_result(DepthMap)}

    def run(self, *, context: Context) -> DepthMap:
        """Decode the file. Raises ValueError for one that cannot be decoded."""
        import numpy as np
        import torch

        picture = self.read()
        whole = 65535 if picture.mode.startswith("I") else 255
        if whole == 255:
            # a palette has no luminance of its own
            picture = picture.convert("RGB").convert("L") if picture.mode != "L" else picture
        values = torch.from_numpy(np.array(picture, dtype=np.float32) / whole).clamp(0, 1)[None, None]
        return DepthMap(1 - values if self.invert else values)
