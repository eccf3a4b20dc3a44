"""The nodes alone, without the engine and without a model: they are called like any other object."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_pack import ContactSheet, Grayscale, Grid

import graphflow as gf


class Steps(gf.Context):
    """A context that remembers what a node tells."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def step(self, done: int, total: int) -> None:
        self.told.append((done, total))


def pictures(count: int) -> gf.Image:
    return gf.Image(torch.rand(count, 3, 4, 6, generator=torch.Generator().manual_seed(0)))


def test_grey_has_three_equal_channels_of_the_same_luminance() -> None:
    given = pictures(2)
    made = Grayscale().run(image=given).pixels
    assert torch.allclose(made[:, 0], made[:, 1]) and torch.allclose(made[:, 1], made[:, 2])
    assert torch.allclose(made[0, 0], (given.pixels[0] * torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)).sum(0))


def test_no_amount_leaves_the_picture_as_it_is() -> None:
    given = pictures(1)
    assert torch.equal(Grayscale(amount=0).run(image=given).pixels, given.pixels)


def test_an_amount_out_of_range_is_refused() -> None:
    with pytest.raises(ValidationError):
        Grayscale(amount=1.5)


def test_the_grid_holds_every_picture_and_tells_each_one() -> None:
    given, context = pictures(5), Steps()
    node = Grid(columns=2, gap=1)
    made = node.run(image=given, context=context)
    assert (made.width, made.height, len(made)) == (15, 16, 1)
    assert torch.equal(made.pixels[0, :, 1:5, 8:14], given.pixels[1])
    assert torch.equal(made.pixels[0, :, 11:15, 1:7], given.pixels[4])
    assert context.told == [(done, 5) for done in range(1, 6)]


def test_the_size_is_told_before_the_run() -> None:
    batch = gf.PortType(gf.Image, width=6, height=4, batch=5)
    node = Grid(columns=2, gap=1)
    (told,) = node.output_types({"image": batch}).values()
    assert (told.width, told.height, told.batch) == (15, 16, 1)
    assert [problem.code for problem in node.check({"image": batch})] == ["tiny.ragged_grid"]


def test_the_sheet_is_planned_as_one_batch() -> None:
    workflow = gf.load(Path(__file__).parent / "contact_sheet.json")
    assert workflow.validate() == []
    ids = [step.node.type_id for step in workflow.plan().steps]
    assert ids.count("Denoise") == 1 and ids.count("tiny.Grid") == 1
    assert [problem.code for problem in ContactSheet(count=3).check({})] == ["tiny.ragged_grid"]
