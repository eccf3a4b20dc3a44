"""Reads a picture back: what stands where, on what ground, under what sky, drawn how.

Two readers. A small network, trained on renders (never on what the model under judgement makes), reads everything:
`python -m training.pocket.read_picture --data DIR/data --vae DIR/vae --minutes 6`. And a reader without any learning
finds colourful things on colourless grounds by their hue, as a check on the first.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from training.pocket import vae as autoencoder
from training.pocket.data import chunks_of, load_images
from training.pocket.render import RGB
from training.pocket.scenes import COLORS, GROUNDS, SHAPES, SKIES, SLOTS, STYLES, Scene

WEIGHTS = Path(__file__).with_name("reader.safetensors")
NOTHING = "nothing"
SHAPE_CLASSES, COLOR_CLASSES = (NOTHING, *SHAPES), (NOTHING, *COLORS)
HEADS = (len(SHAPE_CLASSES),) * 3 + (len(COLOR_CLASSES),) * 3 + (len(GROUNDS), len(SKIES), len(STYLES))
"""Classes of each answer: shape and colour at left, center and right; ground, sky, style."""


@dataclass(frozen=True)
class Reading:
    """What a picture shows. `things` maps a slot to (shape, colour); a slot that is empty is not in it."""

    things: dict[str, tuple[str, str]]
    ground: str
    sky: str
    style: str


def reading_of(scene: Scene) -> Reading:
    """The true reading of a scene."""
    things = {thing.slot: (thing.shape, thing.color) for thing in scene.things}
    return Reading(things, scene.ground, scene.sky, scene.style)


def _labels(reading: Reading) -> list[int]:
    found = [reading.things.get(slot, (NOTHING, NOTHING)) for slot in SLOTS]
    return [
        *(SHAPE_CLASSES.index(shape) for shape, _ in found),
        *(COLOR_CLASSES.index(color) for _, color in found),
        GROUNDS.index(reading.ground),
        SKIES.index(reading.sky),
        STYLES.index(reading.style),
    ]


def _reading(labels: list[int]) -> Reading:
    things = {
        slot: (SHAPE_CLASSES[labels[place]], COLOR_CLASSES[labels[3 + place]])
        for place, slot in enumerate(SLOTS)
        if labels[place] or labels[3 + place]
    }
    return Reading(things, GROUNDS[labels[6]], SKIES[labels[7]], STYLES[labels[8]])


def build_reader() -> nn.Sequential:
    """Pictures (n, 3, 64, 64) of -1..1 to the scores of all answers, (n, sum(HEADS))."""
    layers: list[nn.Module] = []
    for channels, width, stride in ((3, 32, 2), (32, 48, 2), (48, 48, 1), (48, 64, 2), (64, 64, 1)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1), nn.Linear(64 * 8 * 8, sum(HEADS)))


def _labels_of_data(folder: Path) -> Tensor:
    rows = []
    for chunk in chunks_of(folder):
        for scene in json.loads(str(chunk["scenes"])):
            things = {thing["slot"]: (thing["shape"], thing["color"]) for thing in scene["things"]}
            rows.append(_labels(Reading(things, scene["ground"], scene["sky"], scene["style"])))
    return torch.tensor(rows)


def _spoil(batch: Tensor) -> Tensor:
    """Makes pictures as imperfect as generated ones: noise, blur, a shift of some pixels, a little less contrast."""
    batch = batch + torch.randn_like(batch) * (0.10 * torch.rand(len(batch), 1, 1, 1))
    batch = batch * (1 + 0.08 * torch.randn(len(batch), 1, 1, 1)) + 0.03 * torch.randn(len(batch), 3, 1, 1)
    if torch.rand(()) < 0.4:
        batch = functional.avg_pool2d(functional.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, 1)
    down, across = (int(shift) for shift in torch.randint(-2, 3, (2,)))
    padded = functional.pad(batch, (2, 2, 2, 2), mode="replicate")
    return padded[:, :, 2 + down : 66 + down, 2 + across : 66 + across]


def train_reader(data: Path, vae_folder: Path | None, minutes: float, out: Path, seed: int) -> None:
    """Trains the network on the renders of the training set, some of them after a way through the autoencoder."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    images, labels = load_images(data), _labels_of_data(data)
    if vae_folder is not None:
        vae = AutoencoderKL.from_pretrained(vae_folder).eval()
        chosen = np.arange(0, len(images), 16)
        again = autoencoder.to_images(autoencoder.decode(vae, autoencoder.encode(vae, images[chosen])))
        # They are 1 in 16 of the renders: twice makes them 1 in 9 of what is seen.
        images = np.concatenate([images, again, again])
        labels = torch.cat([labels, labels[chosen], labels[chosen]])
    network = build_reader()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    start, steps, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        optimizer.param_groups[0]["lr"] = 2.5e-3 * min(1, (steps + 1) / 100) * max(0.005, 1 - progress)
        index = torch.randint(len(images), (64,))
        scores = network(_spoil(autoencoder.to_tensor(images[index.numpy()]))).split(HEADS, 1)
        losses = [functional.cross_entropy(each, labels[index, head]) for head, each in enumerate(scores)]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps, progress = steps + 1, (time.monotonic() - start) / 60 / minutes
        if steps % 200 == 0:
            print(f"reader step {steps} minute {progress * minutes:.1f} loss {float(loss.detach()):.3f}", flush=True)
    state = {name: value.half() for name, value in network.state_dict().items() if value.is_floating_point()}
    save_file({name: value.contiguous() for name, value in state.items()}, out)
    out.chmod(0o644)


class Reader:
    """The trained network."""

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.network = build_reader()
        state = {name: value.float() for name, value in load_file(weights).items()}
        self.network.load_state_dict(state, strict=False)
        self.network.eval()

    @torch.no_grad()
    def read(self, images: NDArray[np.uint8]) -> list[Reading]:
        """Reads pictures (n, 64, 64, 3) of 0..255."""
        answers: list[list[int]] = []
        for start in range(0, len(images), 100):
            scores = self.network(autoencoder.to_tensor(images[start : start + 100])).split(HEADS, 1)
            answers += torch.stack([each.argmax(1) for each in scores], 1).tolist()
        return [_reading(answer) for answer in answers]


COLORFUL = tuple(color for color in COLORS if color not in ("white", "black"))
COLORLESS_GROUNDS = ("stone", "snow", "checker")
BAND = slice(25, 50)
"""Rows of a 64-pixel picture, all below the horizon, in which a part of every thing lies."""


def hue_can_read(scene: Scene) -> bool:
    """True for plain pictures of colourful things on colourless grounds, by day."""
    colors = {thing.color for thing in scene.things}
    return (
        scene.style == "none" and scene.ground in COLORLESS_GROUNDS and scene.sky == "grey" and colors <= set(COLORFUL)
    )


def _hue(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hue as an angle in radians, of (..., 3) values."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)


def color_by_hue(pixels: NDArray[np.float64]) -> str:
    """The colourful colour that pixels (n, 3) of 0..1 of one thing are nearest to; nothing in it is learned."""
    weights = pixels.max(-1, keepdims=True) - pixels.min(-1, keepdims=True) + 1e-6
    mean = (pixels * weights).sum(0) / weights.sum()
    # Light scales a colour and washes it out: hue tells most; pink from red, and pink from purple, needs chroma.
    washed = float(1 - (mean.max() - mean.min()) / (mean.max() + 1e-6))

    def unlike(color: str) -> float:
        reference = np.array(RGB[color])
        turn = float(np.angle(np.exp(1j * (_hue(mean) - _hue(reference)))))
        paleness = float(1 - (reference.max() - reference.min()) / reference.max())
        return abs(turn) + 0.5 * abs(washed - paleness)

    return min(COLORFUL, key=unlike)


def read_by_hue(image: NDArray[np.uint8]) -> dict[str, str]:
    """Slot to colour of each colourful patch in a picture (64, 64, 3) of 0..255; nothing in it is learned."""
    band = image[BAND].astype(np.float64) / 255
    chroma, brightest = band.max(-1) - band.min(-1), band.max(-1)
    colorful = (chroma > 0.22) & (chroma > 0.33 * brightest)
    covered = colorful.sum(0) >= 3
    found: dict[str, str] = {}
    edges = np.flatnonzero(np.diff(np.concatenate([[0], covered.astype(int), [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start < 4:
            continue
        color = color_by_hue(band[:, start:end][colorful[:, start:end]])
        slot = SLOTS[min(2, int((start + end) / 2 / (64 / 3)))]
        # A highlight can cut a pale thing in two: a second patch of the same colour at the same slot is the same thing.
        if found.get(slot, color) == color:
            found[slot] = color
        else:
            found[f"{slot} again"] = color
    return found


def color_in_mask(image: NDArray[np.uint8], mask: NDArray[np.bool_], least: int = 12) -> str | None:
    """The colourful colour of a picture (rows, columns, 3) inside a thing's mask (rows, columns), by hue.

    The mask loses its rim of one pixel first, where a thing's colour mixes with what is behind it; None where fewer
    than `least` pixels are left.
    """
    padded = np.pad(mask, 1)
    inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return color_by_hue(image[inner].astype(np.float64) / 255) if inner.sum() >= least else None


def main() -> None:
    """Trains the network."""
    parser = argparse.ArgumentParser(prog="python -m training.pocket.read_picture", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of rendered chunks")
    parser.add_argument("--vae", type=Path, default=None, help="folder of the autoencoder")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    train_reader(options.data, options.vae, options.minutes, options.out, options.seed)


if __name__ == "__main__":
    main()
