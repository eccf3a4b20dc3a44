from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from graphflow import Context, DepthMap, Field, Node, PortType, Problem
from graphflow.nodes.files.output_file import check_name, save_files

__all__ = ["SaveDepthMap"]

_OTHER_FORMATS = frozenset(
    (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".exr", ".pfm", ".npy", ".npz")
)
"""Suffixes that promise another format. Any other one is part of the name, as in ``v1.5``."""


class SaveDepthMap(Node, version=1, effect=True, saves=True):
    """Write depth maps into the output folder as grey PNG files of 16 bits; white is near.

    `LoadDepthMap` reads them back to within 1 / 65535. As with `SaveImage` a file appears whole or not at all, another
    file is never lost, and the maps of a batch are ``name-0``, ``name-1`` and so on.
    """

    name: str = Field("depth", description="path in the output folder; the suffix .png may be left out")
    overwrite: bool = Field(False, description="replace another file of this name")
    metadata: bool = Field(True, description="whether PNG files hold the workflow and inputs that made them")

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Report a name that is no plain path inside of the output folder, or has the suffix of another format."""
        problems = list(check_name(self.name))
        suffix = PurePosixPath(self.name).suffix.lower()
        if not problems and suffix in _OTHER_FORMATS:
            message = f'found the name "{self.name}" for a depth map, expected one that ends with .png'
            problems.append(Problem("value.format", message, field="name", hint="leave out the suffix"))
        return problems

    def claims(self) -> tuple[str, ...]:
        """Return the file, as it is called for a single map."""
        stem, suffix = self._split()
        return (stem + suffix,)

    def run(self, *, depth_map: DepthMap, context: Context) -> None:
        """Write each map and report its path. Raises ValueError for a name outside of the output folder."""
        for problem in self.check({}):
            raise ValueError(f"{problem.message} [{problem.code}]")
        contents = [_encoded(depth_map, index) for index in range(len(depth_map))]
        stem, suffix = self._split()
        save_files(contents, stem, suffix, overwrite=self.overwrite, metadata=self.metadata, context=context)

    def _split(self) -> tuple[str, str]:
        """Path without suffix, and suffix as it was written."""
        suffix = PurePosixPath(self.name).suffix
        return (self.name.removesuffix(suffix), suffix) if suffix.lower() == ".png" else (self.name, ".png")


def _encoded(depth_map: DepthMap, index: int) -> bytes:
    import io

    import numpy as np
    import PIL.Image

    values = depth_map.pixels[index, 0].detach().float().cpu().nan_to_num(0).clamp(0, 1).numpy()
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.round(values * 65535).astype(np.uint16)).save(buffer, format="PNG")
    return buffer.getvalue()
