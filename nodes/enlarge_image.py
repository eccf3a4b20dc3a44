from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from graphflow import Context, Field, Image, ModelRef, Node, PortType, Problem
from graphflow.nodes.diffusion.checkpoints.upscaler_file import UpscalerFile, find_upscaler, require_upscaler
from graphflow.nodes.diffusion.shared.checks import check_tiles
from graphflow.nodes.diffusion.shared.parameters import TileOverlap, TileSize

__all__ = ["EnlargeImage"]


class EnlargeImage(Node, version=1):
    """Make pictures larger with an upscaling network of a single file (ESRGAN and its kin).

    The factor is the network's own, 1 to 8; with 1 it cleans pictures. Each picture of a batch is enlarged by itself,
    and one larger than ``tile_size`` in overlapping tiles, whose results are mixed where they overlap. Needs the
    extra ``spandrel``.
    """

    model: ModelRef = Field(description="a .safetensors or .pth file: a path, or owner/name/file of the Hub's cache")
    tile_size: TileSize = 192
    tile_overlap: TileOverlap = 32

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Return the output's type: as many pictures, larger by the network's factor (of a .pth: unknown)."""
        image, found = inputs.get("image", PortType(Image)), find_upscaler(self.model)
        scale = found.scale if isinstance(found, UpscalerFile) else None
        width, height = (length * scale if length and scale else None for length in (image.width, image.height))
        return {"image": PortType(Image, width=width, height=height, batch=image.batch)}

    def check(self, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report faults of the file, and tiles that are all overlap."""
        found = find_upscaler(self.model)
        if isinstance(found, Problem):
            yield found
        yield from check_tiles(self.tile_size, self.tile_overlap)

    def identity(self) -> list[str]:
        """Return the content of the file, and the version of the library that loads it."""
        return require_upscaler(self.model).identity

    def models(self) -> tuple[str, ...]:
        """Return the network."""
        return (self.model,)

    def weight_files(self) -> Iterable[Path]:
        """Return the file."""
        found = find_upscaler(self.model)
        return (found.path,) if isinstance(found, UpscalerFile) else ()

    def run(self, *, image: Image, context: Context) -> Image:
        """Enlarge each picture. Raises WorkflowError for a file that holds no upscaler, or more than weights."""
        from graphflow.nodes.diffusion.adapters.spandrel_upscaler import enlarge

        pixels = enlarge(
            require_upscaler(self.model),
            image.pixels,
            compute=context.compute,
            tile=self.tile_size,
            overlap=self.tile_overlap,
            progress=context.step,
            warn=context.warn,
        )
        return Image(pixels)
