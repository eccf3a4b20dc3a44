"""Pictures with exact depth maps: what the depth ControlNet and the depth network are trained and judged on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.pocket.captions import caption, loose_caption
from training.pocket.data import CHUNK, LATENT_SIZE, SIZE, chunk_path, store_chunk, to_bytes
from training.pocket.render import Rendering, render
from training.pocket.scenes import Scene, draw_scene
from training.pocket.styles import reduce

CAPTIONS = 4
"""Wordings stored for each scene."""
SPREAD_SHARE = 0.75
"""How many scenes have things at any place; the rest have them in the slots that the base model knows."""


def make_chunk(folder: Path, number: int, seed: int) -> None:
    """Renders and stores one chunk, which depends on its number and the seed alone.

    Arrays: images (CHUNK, 64, 64, 3) uint8; depths (CHUNK, 64, 64) uint8, inverse depth in 255ths; things
    (CHUNK, 16, 16) uint8, the share of each latent that things cover, in 255ths; captions, a JSON list of CHUNK lists
    of strings.
    """
    path = chunk_path(folder, number)
    if path.exists():
        return
    rng = np.random.default_rng((seed, number, 3))
    images = np.empty((CHUNK, SIZE, SIZE, 3), np.uint8)
    depths = np.empty((CHUNK, SIZE, SIZE), np.uint8)
    things = np.empty((CHUNK, LATENT_SIZE, LATENT_SIZE), np.uint8)
    captions = []
    for index in range(CHUNK):
        scene = draw_scene(rng, spread=rng.random() < SPREAD_SHARE)
        rendering = render(scene, SIZE)
        images[index], depths[index] = to_bytes(rendering.image), to_bytes(rendering.depth)
        things[index] = to_bytes(reduce((rendering.mask > 0).astype(np.float32), SIZE // LATENT_SIZE))
        captions.append([loose_caption(scene, rng) for _ in range(CAPTIONS)])
    store_chunk(path, images=images, depths=depths, things=things, captions=json.dumps(captions))


def make_chunks(rank: int, world: int, folder: Path, chunks: int, seed: int) -> None:
    """The share of process `rank` of `world` in rendering all chunks."""
    for number in range(rank, chunks, world):
        make_chunk(folder, number, seed)


def held_out(count: int, seed: int) -> tuple[list[Scene], list[str], list[Rendering]]:
    """Scenes of the class kept out of training with things at any place, captions without places, and renders."""
    rng = np.random.default_rng((seed, 3 << 20))
    scenes = [draw_scene(rng, kept_out=True, spread=True) for _ in range(count)]
    prompts = [caption(scene, rng, full=True, places=False) for scene in scenes]
    return scenes, prompts, [render(scene, SIZE) for scene in scenes]


def control_images(depths: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Depth maps (n, rows, columns) as the grey pictures (n, rows, columns, 3) that a ControlNet reads."""
    return np.repeat(depths[..., None], 3, -1)
