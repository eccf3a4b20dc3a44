"""The training set: scenes rendered in chunks by several processes, stored as arrays, resumable chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.pocket.captions import caption
from training.pocket.render import render
from training.pocket.scenes import Scene, draw_scene
from training.pocket.styles import reduce

SIZE = 64
LATENT_SIZE = 16
CHUNK = 1000
CAPTIONS = 4
"""Wordings stored for each scene."""


def to_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Display values 0..1 as 0..255."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def chunk_path(folder: Path, number: int) -> Path:
    """Where chunk `number` is stored."""
    return folder / f"chunk-{number:03d}.npz"


def make_chunk(folder: Path, number: int, seed: int) -> None:
    """Renders and stores one chunk, which depends on its number and the seed alone.

    Arrays: images (CHUNK, 64, 64, 3) uint8; things (CHUNK, 16, 16) uint8, the share of each latent that things cover,
    in 255ths; captions, a JSON list of CHUNK lists of strings.
    """
    path = chunk_path(folder, number)
    if path.exists():
        return
    rng = np.random.default_rng((seed, number))
    images = np.empty((CHUNK, SIZE, SIZE, 3), np.uint8)
    things = np.empty((CHUNK, LATENT_SIZE, LATENT_SIZE), np.uint8)
    captions, scenes = [], []
    for index in range(CHUNK):
        scene = draw_scene(rng)
        rendering = render(scene, SIZE)
        images[index] = to_bytes(rendering.image)
        things[index] = to_bytes(reduce((rendering.mask > 0).astype(np.float32), SIZE // LATENT_SIZE))
        captions.append([caption(scene, rng) for _ in range(CAPTIONS)])
        scenes.append(asdict(scene))
    store_chunk(path, images=images, things=things, captions=json.dumps(captions), scenes=json.dumps(scenes))


def store_chunk(path: Path, **arrays: Any) -> None:
    """Writes arrays (or texts) as one file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.rename(path)


def make_chunks(rank: int, world: int, folder: Path, chunks: int, seed: int) -> None:
    """The share of process `rank` of `world` in rendering all chunks."""
    for number in range(rank, chunks, world):
        make_chunk(folder, number, seed)


def chunks_of(folder: Path) -> Iterator[dict[str, NDArray[np.generic]]]:
    """The stored chunks in order."""
    for path in sorted(folder.glob("chunk-*.npz")):
        with np.load(path) as arrays:
            yield {name: arrays[name] for name in arrays.files}


def load_images(folder: Path) -> NDArray[np.uint8]:
    """All training pictures, (scenes, 64, 64, 3) uint8."""
    return np.concatenate([chunk["images"] for chunk in chunks_of(folder)]).astype(np.uint8, copy=False)


def held_out_scenes(count: int, seed: int) -> tuple[list[Scene], list[str]]:
    """Scenes of the class kept out of training, each with a full caption."""
    rng = np.random.default_rng((seed, 1 << 20))
    scenes = [draw_scene(rng, kept_out=True) for _ in range(count)]
    return scenes, [caption(scene, rng, full=True) for scene in scenes]


def held_out_images(count: int, seed: int) -> NDArray[np.uint8]:
    """Renders of `held_out_scenes`, (count, 64, 64, 3) uint8."""
    return np.stack([to_bytes(render(scene, SIZE).image) for scene in held_out_scenes(count, seed)[0]])
