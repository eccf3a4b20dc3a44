"""The same scenes at several sizes: what the upscalers are trained and judged on."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.pocket.captions import caption
from training.pocket.data import chunk_path, store_chunk, to_bytes
from training.pocket.render import render
from training.pocket.scenes import draw_scene
from training.pocket.styles import blur

CHUNK = 100
CAPTIONS = 4
SMALL_SIZES, LARGE_SIZES = (64, 128, 256), (128, 512)
"""Sizes in pixels that each scene of an ordinary chunk, and of every fourth chunk, is rendered at."""


def sizes_of(number: int) -> tuple[int, ...]:
    """The sizes that chunk `number` holds."""
    return LARGE_SIZES if number % 4 == 3 else SMALL_SIZES


def make_chunk(folder: Path, number: int, seed: int) -> None:
    """Renders and stores one chunk, which depends on its number and the seed alone.

    Arrays: images-SIZE (scenes, SIZE, SIZE, 3) uint8 for each of its sizes; captions, a JSON list of lists of strings.
    """
    path = chunk_path(folder, number)
    if path.exists():
        return
    rng = np.random.default_rng((seed, number, 4))
    sizes = sizes_of(number)
    count = CHUNK if sizes is SMALL_SIZES else CHUNK // 2  # the largest take a second each
    scenes = [draw_scene(rng) for _ in range(count)]
    captions = [[caption(scene, rng) for _ in range(CAPTIONS)] for scene in scenes]
    arrays = {f"images-{size}": np.stack([to_bytes(render(scene, size).image) for scene in scenes]) for size in sizes}
    store_chunk(path, captions=json.dumps(captions), **arrays)


def make_chunks(rank: int, world: int, folder: Path, chunks: int, seed: int) -> None:
    """The share of process `rank` of `world` in rendering all chunks."""
    for number in range(rank, chunks, world):
        make_chunk(folder, number, seed)


def held_out_pairs(
    count: int, seed: int, small: int, large: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """Renders of scenes kept out of training at two sizes, (count, size, size, 3) uint8 each, and full captions."""
    rng = np.random.default_rng((seed, 4 << 20))
    scenes = [draw_scene(rng, kept_out=True) for _ in range(count)]
    prompts = [caption(scene, rng, full=True) for scene in scenes]
    pictures = [np.stack([to_bytes(render(scene, size).image) for scene in scenes]) for size in (small, large)]
    return pictures[0], pictures[1], prompts


def degrade(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture (rows, columns, 3) as bad as small pictures are: blurred, noisy, compressed, each by chance."""
    values: NDArray[np.float32] = (image / 255).astype(np.float32)
    if rng.random() < 0.6:
        share = np.float32(rng.uniform(0.2, 0.9))
        values = values + (blur(values, 1) - values) * share
    if rng.random() < 0.6:
        values = values + rng.normal(0, rng.uniform(0.005, 0.03), values.shape).astype(np.float32)
    result = to_bytes(values)
    if rng.random() < 0.6:
        buffer = io.BytesIO()
        Image.fromarray(result).save(buffer, "JPEG", quality=int(rng.integers(45, 95)))
        result = np.asarray(Image.open(buffer).convert("RGB"))
    return result
