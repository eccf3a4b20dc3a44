"""What the judges share: sampling, figures of pictures, tables and sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.pocket import vae as autoencoder
from training.pocket.data import to_bytes
from training.pocket.render import render
from training.pocket.scenes import Scene

Images = NDArray[np.uint8]
"""Pictures (n, rows, columns, 3) of 0..255."""
REGION_THRESHOLD = 0.08
"""How much nearer (in inverse depth, 0..1) than the empty scene a pixel is that counts as part of a thing.

Chosen on true renders alone: with less, the depth network's small errors count as things; with more, the lower ends of
things, which are hardly nearer than the ground behind them, count as ground.
"""
EDGE = 0.08
"""Brightness step to the next pixels (0..1) that makes a pixel of the truth an edge."""


@dataclass(frozen=True)
class Figure:
    """One line of a judge's table.

    `target` is the least value wanted (the largest with `at_most`), None where a figure is only told. `ceiling` is what
    the judge says of true renders, `baseline` what is had without the model or by chance (the table says which).
    """

    name: str
    value: float
    target: float | None = None
    at_most: bool = False
    ceiling: float | None = None
    baseline: float | None = None

    @property
    def met(self) -> bool:
        """True unless the target is missed."""
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target


def table(figures: Sequence[Figure], ceiling: str, baseline: str) -> str:
    """The figures as a Markdown table; the last two arguments head the columns of ceilings and baselines."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3f}"

    lines = [f"| figure | target | model | ceiling: {ceiling} | {baseline} | met |", "|" + " --- |" * 6]
    for figure in figures:
        sign = "" if figure.target is None else "<= " if figure.at_most else ">= "
        met = "" if figure.target is None else "yes" if figure.met else "no"
        cells = (sign + cell(figure.target), cell(figure.value), cell(figure.ceiling), cell(figure.baseline), met)
        lines.append(f"| {figure.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def contact_sheet(images: Images, columns: int, path: Path) -> None:
    """Saves pictures in rows, twice as large."""
    height, width = images.shape[1] + 2, images.shape[2] + 2
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = row * height, column * width
        sheet[top : top + height - 2, left : left + width - 2] = image
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (columns * width * 2, rows * height * 2)
    Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST).save(path)


def side_by_side(columns: Sequence[Images], path: Path, most: int = 16) -> None:
    """Saves the first `most` pictures of each column in a row of their own, all as large as the last column's."""
    size = columns[-1].shape[1]
    cells = [resized(column[:most], size, Image.Resampling.NEAREST) for column in columns]
    contact_sheet(np.stack(cells, 1).reshape(-1, size, size, 3), len(columns), path)


def grey(depths: NDArray[np.float32]) -> Images:
    """Depth maps (n, rows, columns) of 0..1 as pictures."""
    return np.repeat(to_bytes(depths)[..., None], 3, -1)


def resized(images: Images, size: int, method: Image.Resampling = Image.Resampling.LANCZOS) -> Images:
    """Square pictures at another size."""
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), method)) for image in images])


def size_of(size: int) -> dict[str, Any]:
    """The options of a pipeline that make square pictures of that size."""
    return {"height": size, "width": size}


def sample(
    pipeline: Any,
    prompts: Sequence[str],
    *,
    seed: int,
    batch: int = 25,
    image: Tensor | None = None,
    **options: Any,
) -> Images:
    """What a pipeline of diffusers draws for the prompts, in batches; of `image` each picture gets its own row."""
    images = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        output = pipeline(
            prompt=list(prompts[part]),
            output_type="np",
            generator=torch.Generator().manual_seed(seed * 1000 + start),
            **({} if image is None else {"image": image[part]}),
            **options,
        )
        images.append(to_bytes(output.images))
    return np.concatenate(images)


def through_autoencoder(vae: AutoencoderKL, images: Images) -> Images:
    """Pictures after a way through the autoencoder: nothing that is made of latents can be better than them."""
    return autoencoder.to_images(autoencoder.decode(vae, autoencoder.encode(vae, images)))


def decibels(images: Images, truth: Images) -> float:
    """Mean over pictures of the peak signal-to-noise ratio; equal pictures count as 100 dB."""
    square = np.square((images.astype(np.float64) - truth) / 255).mean((1, 2, 3))
    return float((-10 * np.log10(np.maximum(square, 1e-10))).mean())


def slopes(images: Images) -> NDArray[np.float64]:
    """How steep brightness (0..1) is at each pixel: the length of its step to the next row and column."""
    bright = images.astype(np.float64).mean(-1) / 255
    down = np.diff(bright, axis=1, append=bright[:, -1:])
    across = np.diff(bright, axis=2, append=bright[:, :, -1:])
    return np.hypot(down, across)


def sharpness(images: Images, truth: Images) -> float:
    """Mean slope on the truth's edges, as a share of the truth's own: 1 is as sharp, blur is less."""
    real = slopes(truth)
    edges = real > EDGE
    return float(slopes(images)[edges].mean() / real[edges].mean())


@lru_cache(maxsize=2)
def empty_depth(size: int = 64) -> NDArray[np.float32]:
    """Exact inverse depth (size, size) of a scene without things: the camera never moves."""
    return render(Scene((), "grass", "blue", "none", 0.0, 0), size).depth


def regions(depths: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where things are, by depth maps (n, size, size): what is nearer than it would be in an empty scene."""
    return depths - empty_depth(depths.shape[-1]) > REGION_THRESHOLD


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Mean over pictures of the intersection over union of two regions (n, rows, columns); two empty ones give 1."""
    both, either = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    return float(np.where(either == 0, 1.0, both / np.maximum(either, 1)).mean())
