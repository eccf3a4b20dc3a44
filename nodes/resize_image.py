from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from graphflow import Context, Field, Image, Node, PortType, Problem

__all__ = ["ResizeImage"]


class ResizeImage(Node, version=1, cached=False):
    """Change the size of pictures.

    Width and height in pixels; where only one is given the other keeps the proportions, where none is the size stays.
    Then both are floored to ``multiple``. Values are resampled in floating point and kept in [0, 1].
    """

    width: int | None = Field(None, ge=1, le=65536, description="pixels; default: in proportion, or unchanged")
    height: int | None = Field(None, ge=1, le=65536, description="pixels; default: in proportion, or unchanged")
    multiple: int = Field(1, ge=1, le=4096, description="width and height are floored to multiples of this")
    method: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = Field(
        "lanczos", description="how pixels between pixels are found; box averages"
    )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the new size (width, height) of a picture; 0 where nothing is left of it."""
        wide, high = self.width, self.height
        if wide is None:
            wide = width if high is None else max(1, round(width * high / height))
        if high is None:
            high = height if self.width is None else max(1, round(height * self.width / width))
        return wide // self.multiple * self.multiple, high // self.multiple * self.multiple

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many pictures of the new size."""
        image = inputs.get("image", PortType(Image))
        size = self._known_size(image)
        return {"image": PortType(Image, width=size[0], height=size[1], batch=image.batch)}

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Report a size of which the multiple leaves nothing."""
        width, height = self._known_size(inputs.get("image", PortType(Image)))
        if width == 0 or height == 0:
            return [Problem("value.image_size", self._nothing_left(), field="multiple", hint="use a larger size")]
        return ()

    def run(self, *, image: Image, context: Context) -> Image:
        """Resample each channel of each picture. A picture that has the size already is passed on as it is."""
        import numpy as np
        import PIL.Image
        import torch

        size = self.size(image.width, image.height)
        if size == (image.width, image.height):
            return image
        if 0 in size:
            raise ValueError(self._nothing_left())
        resampling = PIL.Image.Resampling[self.method.upper()]
        planes = image.pixels.detach().float().cpu().numpy().reshape(-1, image.height, image.width)
        resized = [np.asarray(PIL.Image.fromarray(plane).resize(size, resampling)) for plane in planes]
        pixels = torch.from_numpy(np.stack(resized)).reshape(len(image), -1, size[1], size[0])
        return Image(pixels.clamp(0, 1))

    def _known_size(self, image: PortType) -> tuple[int | None, int | None]:
        if image.width and image.height:
            return self.size(image.width, image.height)
        if self.width and self.height:
            return self.size(self.width, self.height)
        return None, None

    def _nothing_left(self) -> str:
        return f"the image is smaller than the multiple {self.multiple}: nothing would be left of it"
