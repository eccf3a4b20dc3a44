from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphflow import Context, DepthMap, Field, InputFile, Node, PortType, Problem
from graphflow.nodes.file_digest import file_digest
from graphflow.nodes.picture_file import check_picture, read_picture, type_of_picture

__all__ = ["LoadDepthMap"]


class LoadDepthMap(Node, version=1, loads=True):
    """Read an inverse depth map from a picture: white is near, black is infinitely far.

    Grey pictures of 8 or 16 bits keep what they hold; of a colour picture the luminance is taken, with 8 bits, also
    where the file has more. Transparency is ignored. A rotation noted in EXIF is applied. The result is float32
    (1, 1, height, width) in [0, 1].
    """

    path: InputFile = Field(description="the file; in a workflow, relative to the workflow's folder")
    invert: bool = Field(False, description="in the file near is black and far is white")

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """One map of the size that the file's header tells."""
        return {"depth_map": type_of_picture(self.path, DepthMap)}

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """A file that is missing, no image, cut short, or too large."""
        return check_picture(self.path)

    def identity(self) -> str:
        """The hash of the file."""
        import pathlib

        return file_digest(pathlib.Path(self.path))

    def run(self, *, context: Context) -> DepthMap:
        """Decode the file. Raises ValueError for one that cannot be decoded."""
        import numpy as np
        import torch

        picture = read_picture(self.path)
        whole = 65535 if picture.mode.startswith("I") else 255
        if whole == 255:
            # a palette has no luminance of its own
            picture = picture.convert("RGB").convert("L") if picture.mode != "L" else picture
        values = torch.from_numpy(np.array(picture, dtype=np.float32) / whole).clamp(0, 1)[None, None]
        return DepthMap(1 - values if self.invert else values)
