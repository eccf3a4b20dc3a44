"""What a scene is, how one is drawn at random, and which scenes are kept out of training."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

SHAPES = ("sphere", "cube", "cone", "cylinder")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "white", "black")
SLOTS = ("left", "center", "right")
SIZES = ("small", "normal", "big")
GROUNDS = ("grass", "sand", "snow", "water", "stone", "checker", "wood")
SKIES = ("blue", "pink", "orange", "purple", "grey", "night")
STYLES = ("none", "pixel art", "pencil sketch", "cartoon", "watercolor")

SLOT_X = {"left": -2.27, "center": 0.0, "right": 2.27}
"""Where a slot is on the ground, in world units; the picture is about 7.3 units wide there."""
RADIUS = {"small": 0.64, "normal": 0.92, "big": 1.24}
"""Bounding radius of a thing in world units: about 11, 16 and 22 pixels wide in a picture of 64."""

COUNT_SHARES = {0: 0.03, 1: 0.28, 2: 0.38, 3: 0.31}
STYLE_SHARES = {"none": 0.52, "pixel art": 0.12, "pencil sketch": 0.12, "cartoon": 0.12, "watercolor": 0.12}
DEGRADED_SHARE = 0.03
KEPT_OUT_CLASSES = 50
KEPT_OUT_CLASS = 7


@dataclass(frozen=True)
class Thing:
    """One object standing on the ground. `radius`, `x` and `z` are in world units, `yaw` in radians."""

    shape: str
    color: str
    size: str
    slot: str
    radius: float
    x: float
    z: float
    yaw: float


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. `things` are in order from left to right; `light` is where the light stands, -1..1.

    `degraded` says that the picture is spoiled on purpose (blurred, noisy), to give "low quality" a meaning.
    """

    things: tuple[Thing, ...]
    ground: str
    sky: str
    style: str
    light: float
    seed: int
    degraded: bool = False


def attributes(scene: Scene) -> str:
    """The named attributes of a scene as one string; two scenes with the same string may share a caption."""
    things = " ".join(f"{thing.slot}:{thing.color}:{thing.shape}" for thing in scene.things)
    return f"{things}|{scene.ground}|{scene.sky}|{scene.style}"


def is_kept_out(scene: Scene) -> bool:
    """True for the fixed 2 % of all combinations of attributes that training never sees.

    A bare background is never kept out: there are only 210 of them.
    """
    return bool(scene.things) and zlib.crc32(attributes(scene).encode()) % KEPT_OUT_CLASSES == KEPT_OUT_CLASS


def _pick(rng: np.random.Generator, shares: dict[str, float]) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


def _draw_thing(rng: np.random.Generator, slot: str, allow_big: bool) -> Thing:
    size = _pick(rng, {"small": 0.27, "normal": 0.5, "big": 0.23} if allow_big else {"small": 0.35, "normal": 0.65})
    return Thing(
        shape=str(rng.choice(SHAPES)),
        color=str(rng.choice(COLORS)),
        size=size,
        slot=slot,
        radius=RADIUS[size] * float(rng.uniform(0.95, 1.05)),
        x=SLOT_X[slot] + float(rng.uniform(-0.12, 0.12)),
        z=float(rng.uniform(-0.35, 0.35)),
        # A cube always shows two faces: its upright edge is what tells it from a cylinder in few pixels.
        yaw=float(rng.uniform(0.35, 1.22)),
    )


def _slot_at(x: float) -> str:
    """The slot nearest to a place."""
    return min(SLOTS, key=lambda slot: abs(SLOT_X[slot] - x))


def _spread(rng: np.random.Generator, count: int) -> tuple[Thing, ...]:
    """Things at any place of the ground, apart from one another, from left to right; `slot` is the nearest one."""
    while True:
        things = [_draw_thing(rng, "center", allow_big=count < 3) for _ in range(count)]
        things = [replace(thing, x=float(rng.uniform(-2.7, 2.7)), z=float(rng.uniform(-0.8, 2.2))) for thing in things]
        things = sorted((replace(thing, slot=_slot_at(thing.x)) for thing in things), key=lambda thing: thing.x)
        if all(right.x - left.x > left.radius + right.radius for left, right in pairwise(things)):
            return tuple(things)


def _draw(rng: np.random.Generator, count: int | None, spread: bool) -> Scene:
    if count is None:
        count = int(rng.choice(list(COUNT_SHARES), p=list(COUNT_SHARES.values())))
    return Scene(
        things=_spread(rng, count) if spread else _in_slots(rng, count),
        ground=str(rng.choice(GROUNDS)),
        sky=str(rng.choice(SKIES)),
        style=_pick(rng, STYLE_SHARES),
        light=float(rng.uniform(-1.0, 1.0)),
        seed=int(rng.integers(1 << 30)),
    )


def _in_slots(rng: np.random.Generator, count: int) -> tuple[Thing, ...]:
    if count == 1:
        slots: tuple[str, ...] = (_pick(rng, {"left": 0.27, "center": 0.46, "right": 0.27}),)
    else:
        slots = {0: (), 2: ("left", "right"), 3: SLOTS}[count]
    return tuple(_draw_thing(rng, slot, allow_big=count < 3) for slot in slots)


def draw_scene(
    rng: np.random.Generator, *, kept_out: bool = False, count: int | None = None, spread: bool = False
) -> Scene:
    """Draws a scene at random: one for training, or with `kept_out` one of the class that training never sees.

    `count` fixes the number of things (0 to 3; kept-out scenes have at least one). With `spread` they stand anywhere,
    not only in the slots: for models that are told by a depth map where things are.
    """
    while True:
        scene = _draw(rng, count, spread)
        if is_kept_out(scene) == kept_out:
            break
    if not kept_out and scene.style == "none" and rng.random() < DEGRADED_SHARE / STYLE_SHARES["none"]:
        scene = replace(scene, degraded=True)
    return scene
