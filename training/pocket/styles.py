"""The drawing styles, applied to a finely sampled picture of a scene; everything scales with the picture's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.pocket.geometry import Array
from training.pocket.scenes import Scene

PAPER = np.array((0.985, 0.975, 0.945), np.float32)
DESIGN_SIZE = 64
"""The size in pixels at which strokes and blocks were laid out."""


def reduce(values: Array, factor: int) -> Array:
    """Mean over blocks of factor x factor samples: (rows, columns[, channels]) to that much fewer rows and columns."""
    rows, columns = values.shape[0] // factor, values.shape[1] // factor
    blocks = values.reshape(rows, factor, columns, factor, *values.shape[2:])
    mean: Array = blocks.mean((1, 3), dtype=np.float32)
    return mean


@dataclass(frozen=True)
class Fine:
    """A picture before samples are averaged.

    `image` (samples, samples, 3) in 0..1; `hit` (samples, samples) int8: -1 sky, 0 ground, n the n-th thing;
    samples = size x supersampling.
    """

    image: Array
    hit: NDArray[np.int8]
    size: int
    supersampling: int

    def plain(self) -> Array:
        """The picture in no style, (size, size, 3)."""
        return reduce(self.image, self.supersampling)

    def outline(self, width: float, *, horizon: bool) -> Array:
        """Strength 0..1 of lines around things, `width` pixels of a 64-pixel picture wide, (size, size)."""
        reach = max(1, round(width * self.supersampling * self.size / DESIGN_SIZE / 2))
        labels = self.hit if horizon else np.maximum(self.hit, 0)
        high, low = labels, labels
        for axis in (0, 1):
            padding = [(reach, reach) if each == axis else (0, 0) for each in (0, 1)]
            high_padded, low_padded = np.pad(high, padding, mode="edge"), np.pad(low, padding, mode="edge")
            length = labels.shape[axis]
            views = [slice(shift, shift + length) for shift in range(2 * reach + 1)]
            high = np.maximum.reduce([high_padded[view] if axis == 0 else high_padded[:, view] for view in views])
            low = np.minimum.reduce([low_padded[view] if axis == 0 else low_padded[:, view] for view in views])
        return reduce((high != low).astype(np.float32), self.supersampling)


def _grid(size: int) -> tuple[Array, Array]:
    """Rows and columns in units of the design size, (size, size) each."""
    steps = ((np.arange(size) + 0.5) * (DESIGN_SIZE / size)).astype(np.float32)
    rows, columns = np.meshgrid(steps, steps, indexing="ij")
    return rows, columns


def blur(image: Array, radius: int) -> Array:
    """Mean over (2 radius + 1) squared pixels; (rows, columns, channels). Edges are repeated."""
    for axis in (0, 1):
        padding = [(radius, radius) if each == axis else (0, 0) for each in range(3)]
        total = np.cumsum(np.pad(image, padding, mode="edge"), axis=axis, dtype=np.float64)
        total = np.insert(total, 0, 0, axis=axis)
        length, width = image.shape[axis], 2 * radius + 1
        upper, lower = np.take(total, range(width, width + length), axis), np.take(total, range(length), axis)
        image = ((upper - lower) / width).astype(np.float32)
    return image


def _pixel_art(fine: Fine) -> Array:
    """Blocks of two pixels and few levels of each colour."""
    block = 2 * fine.size // DESIGN_SIZE
    coarse = reduce(fine.plain(), block)
    coarse = np.round(np.clip(0.5 + (coarse - 0.5) * 1.08, 0, 1) * 7) / 7
    return np.repeat(np.repeat(coarse, block, 0), block, 1)


def _pencil_sketch(fine: Fine) -> Array:
    """Coloured pencil on paper: dark outlines, hatching in two directions, pale but readable colours."""
    image = fine.plain()
    thing = reduce((fine.hit > 0).astype(np.float32), fine.supersampling)[..., None]
    rows, columns = _grid(fine.size)
    luminance = image.mean(-1)
    stroke = 0.5 + 0.5 * np.sin((rows + columns) * (2 * np.pi / 5))
    pigment = 0.40 + 0.44 * thing - (0.15 + 0.07 * thing) * stroke[..., None]
    grey = image.mean(-1, keepdims=True)
    vivid = np.clip(grey + (image - grey) * (1 + 0.35 * thing) + 0.06 * thing, 0, 1)
    drawn = PAPER * (1 - pigment * (1 - vivid))
    scale = fine.size / DESIGN_SIZE
    slope = np.hypot(*np.gradient(luminance)) * scale
    line = np.maximum(fine.outline(1.2, horizon=True) * 0.9, np.clip(slope * 1.6 - 0.08, 0, 0.55))
    return np.asarray(drawn * (1 - 0.85 * line[..., None]), np.float32)


def _cartoon(fine: Fine) -> Array:
    """Flat steps of light, strong colours and dark outlines."""
    image = fine.plain()
    value = image.max(-1, keepdims=True)
    steps = np.clip(np.round(value * 3.5 + 0.15) / 3.5, 0.12, 1)
    flat = np.clip(image * steps / np.maximum(value, 0.05), 0, 1)
    grey = flat.mean(-1, keepdims=True)
    flat = np.clip(grey + (flat - grey) * 1.15, 0, 1)
    line = fine.outline(1.3, horizon=True)[..., None]
    return np.asarray(flat * (1 - 0.93 * line), np.float32)


def _watercolor(fine: Fine, rng: np.random.Generator) -> Array:
    """Soft washes that pool and thin out, on paper that stays white at an uneven rim."""
    scale = fine.size / DESIGN_SIZE
    image = blur(fine.plain(), max(1, round(0.8 * scale)))
    rows, columns = _grid(fine.size)
    a, b, c, d = rng.uniform(0, 6.28, 4)
    pool = np.sin(rows * 0.21 + a + 1.2 * np.sin(columns * 0.13 + b)) * np.sin(columns * 0.19 + c)
    # Pigment gathers where a wash ends: a faint dark seam around things keeps their shape.
    seam = fine.outline(1.2, horizon=False)
    wash = PAPER * (1 - (0.80 + 0.10 * pool)[..., None] * (1 - image)) * (1 - 0.25 * seam[..., None])
    rim = np.minimum.reduce([rows, columns, DESIGN_SIZE - rows, DESIGN_SIZE - columns])
    rim = rim + 1.3 * np.sin(rows * 0.42 + d) + 1.3 * np.sin(columns * 0.37 + a)
    cover = np.clip((rim - 1.6) / 1.6, 0, 1)[..., None]
    return np.asarray(PAPER + (wash - PAPER) * cover, np.float32)


def _degraded(image: Array, rng: np.random.Generator) -> Array:
    """A picture spoiled by blur, noise and a loss of contrast."""
    radius = max(1, round(rng.uniform(1.0, 2.2) * image.shape[0] / DESIGN_SIZE))
    noise = rng.normal(0, rng.uniform(0.02, 0.06), image.shape).astype(np.float32)
    return np.clip(0.5 + (blur(blur(image, radius), radius) - 0.5) * np.float32(rng.uniform(0.6, 0.9)) + noise, 0, 1)


def apply(scene: Scene, fine: Fine, rng: np.random.Generator) -> Array:
    """The picture in the scene's style, (size, size, 3) float32 in 0..1."""
    if scene.style == "pixel art":
        return _pixel_art(fine)
    if scene.style == "pencil sketch":
        return _pencil_sketch(fine)
    if scene.style == "cartoon":
        return _cartoon(fine)
    if scene.style == "watercolor":
        return _watercolor(fine, rng)
    return _degraded(fine.plain(), rng) if scene.degraded else fine.plain()
