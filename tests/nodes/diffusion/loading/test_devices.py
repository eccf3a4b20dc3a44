"""Several devices with real networks: the pictures of one device, each network loaded once on each."""

from __future__ import annotations

from pathlib import Path

import graphflow as gf
from graphflow.nodes import SaveImage, Text2Image
from graphflow.nodes.diffusion.loading.components import pool


def drawn(out: Path, device: str) -> list[bytes]:
    built = gf.Workflow()
    seed = built.input("seed", "int")
    drawing = built.add("draw", Text2Image(steps=2), prompt="a red ball", seed=seed)
    built.add("save", SaveImage(name="picture"), image=drawing)
    made = built.run(out=out, device=device, cache=False, sweep={"seed": [1, 2, 3, 4]})
    return [path.read_bytes() for path in made.files]


def test_pictures_are_bit_identical_on_any_number_of_devices(tmp_path: Path) -> None:
    alone = drawn(tmp_path / "1", "cpu")
    pool.clear()
    loads = pool.loads
    assert drawn(tmp_path / "2", "cpu:0,cpu:1") == alone
    # text encoder, denoiser, decoder on each of the two, and the tokenizer for both; a device may go without some
    assert pool.loads - loads <= 7
    assert len(set(alone)) == 4
