"""Three small nodes for GraphFlow: one works on pixels, one tells its progress, one stands for others.

Nothing here imports torch when the module is imported: workflows are checked without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphflow import Context, Expansion, Field, Image, ModelRef, Node, PortType, Problem, Seed, Text
from graphflow.nodes import Text2Image

__all__ = ["ContactSheet", "Grayscale", "Grid"]


class Grayscale(Node, id="tiny.Grayscale", version=1):
    """Take the colour out of pictures, wholly or in part."""

    amount: float = Field(1.0, ge=0, le=1, description="0 leaves the colours, 1 takes them all")

    def run(self, *, image: Image) -> Image:
        """Mix each pixel with its luminance (Rec. 709)."""
        weights = image.pixels.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)
        luminance = (image.pixels * weights).sum(dim=1, keepdim=True)
        return Image(image.pixels + self.amount * (luminance - image.pixels))


class Grid(Node, id="tiny.Grid", version=1):
    """Lay the pictures of a batch out on one sheet, row by row."""

    columns: int = Field(2, ge=1, le=100, description="pictures in a row")
    gap: int = Field(2, ge=0, le=1000, description="white pixels around each picture")

    def size(self, width: int, height: int, count: int) -> tuple[int, int]:
        """Width and height of the sheet."""
        rows = -(-count // self.columns)
        return self.columns * (width + self.gap) + self.gap, rows * (height + self.gap) + self.gap

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """One picture, of a size that is known where that of the batch is."""
        image = inputs["image"]
        if image.width is None or image.height is None or image.batch is None:
            return {"image": PortType(Image, batch=1)}
        width, height = self.size(image.width, image.height, image.batch)
        return {"image": PortType(Image, width=width, height=height, batch=1)}

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Rows that the pictures do not fill."""
        count = inputs["image"].batch
        if count is not None and count % self.columns:
            yield Problem(
                "tiny.ragged_grid",
                f"{count} pictures in rows of {self.columns} leave the last row unfilled",
                field="columns",
                hint="choose a number of columns that divides the number of pictures",
                severity="warning",
            )

    def progress_steps(self, inputs: Mapping[str, PortType]) -> int | None:
        """One step for each picture."""
        return inputs["image"].batch

    def run(self, *, image: Image, context: Context) -> Image:
        """Copy the pictures, one after the other."""
        width, height = self.size(image.width, image.height, len(image))
        sheet = image.pixels.new_ones(1, 3, height, width)
        for index in range(len(image)):
            row, column = divmod(index, self.columns)
            top = self.gap + row * (image.height + self.gap)
            left = self.gap + column * (image.width + self.gap)
            sheet[0, :, top : top + image.height, left : left + image.width] = image.pixels[index]
            context.step(index + 1, len(image))
        return Image(sheet)


class ContactSheet(Node, id="tiny.ContactSheet", version=1):
    """Draw a prompt several times and lay the pictures out on one sheet.

    Stands for Text2Image with a batch, whose latents the engine decodes on their way to tiny.Grid.
    """

    model: ModelRef = "pocket"
    count: int = Field(4, ge=1, le=64, description="number of pictures; the i-th is drawn from seed + i")
    columns: int = Field(2, ge=1, le=100, description="pictures in a row")
    steps: int | None = Field(None, ge=1, le=1000, description="denoise steps; default: the model's own")
    seed: Seed = 0

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """What is wrong with the model, and an unfilled row."""
        text = PortType(str)
        yield from self._drawing().check({"prompt": text})
        yield from self._grid().check({"image": PortType(Image, batch=self.count)})

    def expand(self, g: Expansion, *, prompt: Text) -> Image:
        """Draw all of them at once, then lay them out."""
        drawn = g.add(self._drawing(), prompt=prompt)
        sheet: Image = g.add(self._grid(), image=drawn)
        return sheet

    def _drawing(self) -> Text2Image:
        return Text2Image(model=self.model, batch_size=self.count, steps=self.steps, seed=self.seed)

    def _grid(self) -> Grid:
        return Grid(columns=self.columns)
