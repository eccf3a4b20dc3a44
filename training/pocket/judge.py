"""Measures how well a model obeys prompts: `python -m training.pocket.judge MODEL_DIR`.

It samples captions of scenes kept out of training, reads every picture back and compares. Beside the model's figures
stand those of true renders and of renders after a way through the autoencoder (the ceiling of this judge), and those of
the model's pictures against other captions (what chance gives).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from training.pocket.captions import caption
from training.pocket.data import held_out_scenes, to_bytes
from training.pocket.measures import Images, contact_sheet, decibels, sample, size_of, through_autoencoder
from training.pocket.read_picture import Reader, Reading, hue_can_read, read_by_hue, reading_of
from training.pocket.render import render
from training.pocket.scenes import Scene, draw_scene

TARGETS = {
    "color": 0.98, "number": 0.97, "shape": 0.96, "ground": 0.99, "sky": 0.99, "style": 0.95, "three all right": 0.80,
}  # fmt: skip


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The pipeline in float32, silent."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compare(truths: Sequence[Reading], readings: Sequence[Reading]) -> dict[str, float]:
    """Shares of what was read that agrees with the truth.

    color, shape: over all things asked for, right at the place asked for. number, place: over pictures, as many things
    as asked for, and exactly in the places asked for. "n all right": over pictures of n things, number, places, shapes
    and colours all right.
    """
    rows: dict[str, list[bool]] = {}
    for truth, reading in zip(truths, readings, strict=True):
        for slot, (shape, color) in truth.things.items():
            read_shape, read_color = reading.things.get(slot, ("", ""))
            rows.setdefault("color", []).append(color == read_color)
            rows.setdefault("shape", []).append(shape == read_shape)
        rows.setdefault("number", []).append(len(truth.things) == len(reading.things))
        rows.setdefault("place", []).append(truth.things.keys() == reading.things.keys())
        for name in ("ground", "sky", "style"):
            rows.setdefault(name, []).append(getattr(truth, name) == getattr(reading, name))
        count = {1: "one", 2: "two", 3: "three"}[len(truth.things)]
        rows.setdefault(f"{count} all right", []).append(truth.things == reading.things)
        rows.setdefault("everything", []).append(truth == reading)
    return {name: float(np.mean(values)) for name, values in sorted(rows.items())}


def compare_hues(scenes: Sequence[Scene], images: Images) -> dict[str, float]:
    """As `compare`, for what can be read without learning: colours at their places, and the number of things."""
    wanted = [{thing.slot: thing.color for thing in scene.things} for scene in scenes]
    found = [read_by_hue(image) for image in images]
    pairs = list(zip(wanted, found, strict=True))
    right = [read.get(slot) == color for want, read in pairs for slot, color in want.items()]
    return {
        "hue color": float(np.mean(right)),
        "hue number": float(np.mean([len(want) == len(read) for want, read in pairs])),
    }


def _hue_scenes(count: int, seed: int) -> tuple[list[Scene], list[str]]:
    rng = np.random.default_rng((seed, 2 << 20))
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = draw_scene(rng, kept_out=True)
        if hue_can_read(scene):
            scenes.append(scene)
    return scenes, [caption(scene, rng, full=True) for scene in scenes]


def judge(
    folder: Path, *, count: int, hue_count: int, steps: int, guidance: float, seed: int, sheet: Path | None = None
) -> dict[str, dict[str, float]]:
    """All rows of the table by name; see the module's description."""
    pipeline, reader = load_pipeline(folder), Reader()
    scenes, prompts = held_out_scenes(count, seed)
    hue_scenes, hue_prompts = _hue_scenes(hue_count, seed)
    start = time.monotonic()
    options = size_of(64) | {"num_inference_steps": steps, "guidance_scale": guidance}
    images = sample(pipeline, prompts, seed=seed, **options)
    seconds = (time.monotonic() - start) / max(1, count)
    hue_images = sample(pipeline, hue_prompts, seed=seed, **options)
    renders = np.stack([to_bytes(render(scene).image) for scene in scenes])
    hue_renders = np.stack([to_bytes(render(scene).image) for scene in hue_scenes])
    decoded = through_autoencoder(pipeline.vae, renders)
    truths = [reading_of(scene) for scene in scenes]
    readings = reader.read(images)
    # The next scene with as many things: chance is not made smaller by a wrong number of things.
    order = sorted(range(count), key=lambda index: len(scenes[index].things))
    shuffled = [readings[index] for index in order[1:] + order[:1]]
    if sheet:
        contact_sheet(images[:100], 10, sheet)
    return {
        "model": {**compare(truths, readings), **compare_hues(hue_scenes, hue_images)},
        "true renders": {**compare(truths, reader.read(renders)), **compare_hues(hue_scenes, hue_renders)},
        "renders through the autoencoder": {
            **compare(truths, reader.read(decoded)), "decibels": decibels(decoded, renders),
        },
        "other captions (chance)": {
            **compare([truths[index] for index in order], shuffled),
            **compare_hues(hue_scenes, np.roll(hue_images, 1, 0)),
        },
        "facts": {"pictures": count, "hue pictures": hue_count, "steps": steps, "guidance": guidance,
                  "seconds a picture": seconds},
    }  # fmt: skip


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    names = list(rows["model"])
    lines = ["| figure | target | " + " | ".join(name for name in rows if name != "facts") + " |"]
    lines.append("|" + " --- |" * (len(rows) + 1))
    for name in [*names, "decibels"]:
        target = f"{TARGETS[name]:.2f}" if name in TARGETS else "31" if name == "decibels" else ""
        cells = [
            "" if name not in row else f"{row[name]:.1f}" if name == "decibels" else f"{row[name]:.3f}"
            for title, row in rows.items()
            if title != "facts"
        ]
        lines.append(f"| {name} | {target} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, judges, prints."""
    parser = argparse.ArgumentParser(prog="python -m training.pocket.judge", description=__doc__)
    parser.add_argument("model", type=Path, help="folder that StableDiffusionPipeline loads")
    parser.add_argument("--count", type=int, default=200, help="captions to sample")
    parser.add_argument("--hue-count", type=int, default=50, help="further captions for the check by hue")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--sheet", type=Path, help="also save the first 100 pictures as one PNG")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = judge(
        options.model, count=options.count, hue_count=options.hue_count, steps=options.steps,
        guidance=options.guidance, seed=options.seed, sheet=options.sheet,
    )  # fmt: skip
    print(table(rows))
    print(json.dumps(rows["facts"]))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
