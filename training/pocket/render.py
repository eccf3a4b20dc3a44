"""A small ray-caster for scenes: colours, exact depth and object mask, at any size. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.pocket import styles
from training.pocket.geometry import CONE_HEIGHT, MISS, Array, Vector, height, intersect
from training.pocket.scenes import Scene, Thing

SUPERSAMPLING = 3
FOCAL = 2.2
"""Focal length in units of half the picture's width."""
CAMERA = (0.0, 2.6, -8.0)
PITCH = 0.155
"""How far the camera looks down, in radians."""
NEAREST, FARTHEST = 5.5, 40.0
"""Distances in world units that the depth values 1 and 0 stand for."""

RGB = {
    "red": (0.90, 0.08, 0.09),
    "orange": (1.00, 0.46, 0.03),
    "yellow": (1.00, 0.86, 0.06),
    "green": (0.05, 0.60, 0.17),
    "cyan": (0.06, 0.80, 0.86),
    "blue": (0.08, 0.20, 0.90),
    "purple": (0.50, 0.11, 0.78),
    "pink": (1.00, 0.42, 0.70),
    "white": (0.96, 0.96, 0.96),
    "black": (0.09, 0.09, 0.10),
}
GROUND_RGB = {
    "grass": (0.36, 0.60, 0.20),
    "sand": (0.87, 0.75, 0.50),
    "snow": (0.92, 0.94, 0.98),
    "water": (0.12, 0.38, 0.62),
    "stone": (0.50, 0.50, 0.52),
    "checker": (0.56, 0.55, 0.55),
    "wood": (0.56, 0.36, 0.20),
}
SKY_RGB = {  # at the top of the picture, at the horizon
    "blue": ((0.22, 0.50, 0.92), (0.78, 0.90, 1.00)),
    "pink": ((0.90, 0.42, 0.64), (1.00, 0.84, 0.86)),
    "orange": ((0.86, 0.30, 0.12), (1.00, 0.82, 0.38)),
    "purple": ((0.26, 0.10, 0.46), (0.74, 0.54, 0.88)),
    "grey": ((0.48, 0.51, 0.55), (0.82, 0.84, 0.86)),
    "night": ((0.01, 0.01, 0.06), (0.08, 0.10, 0.26)),
}


@dataclass(frozen=True)
class Rendering:
    """A picture of a scene.

    `image` is (size, size, 3) float32 in 0..1 (display values); `depth` is (size, size) float32 inverse depth in 0..1,
    near = 1; `mask` is (size, size) uint8: 0 background, n = the n-th thing from the left.
    """

    image: Array
    depth: Array
    mask: NDArray[np.uint8]


@lru_cache(maxsize=4)
def _rays(samples: int) -> tuple[Vector, Array]:
    """Unit view rays (x right, y up, z away) through samples x samples points, and their share along the axis."""
    across = (np.arange(samples, dtype=np.float32) + 0.5) / samples * 2 - 1
    x, y = np.meshgrid(across, -across)
    x, y, z = x / FOCAL, y / FOCAL, np.ones_like(x)
    cosine, sine = np.float32(np.cos(PITCH)), np.float32(np.sin(PITCH))
    y, z = y * cosine - z * sine, y * sine + z * cosine
    norm = 1 / np.sqrt(x * x + y * y + z * z)
    x, y, z = (part * norm for part in (x, y, z))
    return (x, y, z), z * cosine - y * sine


@lru_cache(maxsize=4)
def _light_spread(samples: int) -> tuple[Array, Array]:
    """Each of a pixel's 3 x 3 samples sees the light elsewhere: their mean has soft shadows. (samples, samples)."""
    steps = np.arange(samples) % SUPERSAMPLING - (SUPERSAMPLING - 1) / 2
    spread = (steps * 0.13).astype(np.float32)
    shape = (samples, samples)
    return np.broadcast_to(spread[None, :], shape).copy(), np.broadcast_to(spread[:, None], shape).copy()


def _window(thing: Thing, samples: int) -> tuple[slice, slice]:
    """The part of the picture (rows, columns) that the thing can cover."""
    reach, middle = max(thing.radius * 1.22, height(thing) * 0.62), height(thing) / 2
    x, y, z = thing.x - CAMERA[0], middle - CAMERA[1], thing.z - CAMERA[2]
    cosine, sine = np.cos(PITCH), np.sin(PITCH)
    y, z = y * cosine + z * sine, z * cosine - y * sine
    scale = FOCAL * samples / 2
    spread = reach / (z - reach) * scale
    column, row = samples / 2 + x / z * scale, samples / 2 - y / z * scale
    bounds = [int(np.clip(edge, 0, samples)) for edge in (row - spread, row + spread, column - spread, column + spread)]
    return slice(bounds[0], bounds[1] + 1), slice(bounds[2], bounds[3] + 1)


def _blob(x: Array, y: Array, at_x: float, at_y: float, wide: float, high: float) -> Array:
    return np.exp(-(((x - np.float32(at_x)) / wide) ** 2) - ((y - np.float32(at_y)) / high) ** 2)


def _sky(scene: Scene, ray: Vector, rng: np.random.Generator) -> Array:
    """Colours of the sky, (rows, columns, 3)."""
    top, horizon = (np.array(color, np.float32) for color in SKY_RGB[scene.sky])
    x, y = ray[0] / ray[2], np.maximum(ray[1] / ray[2], 0)  # y: 0 at the horizon, about 0.31 at the top
    rise = np.clip(y * 3.4, 0, 1)[..., None]
    image = horizon + (top - horizon) * rise
    side = scene.light * 0.3
    if scene.sky in ("blue", "grey"):
        cover = np.zeros_like(x)
        for _ in range(3):
            at_x, at_y, wide = rng.uniform(-0.45, 0.45), rng.uniform(0.1, 0.26), rng.uniform(0.07, 0.13)
            cover += _blob(x, y, at_x, at_y, wide, 0.028) + 0.7 * _blob(x, y, at_x + 0.05, at_y + 0.03, wide / 2, 0.025)
        strength, color = (0.75, 1.0) if scene.sky == "blue" else (0.5, 0.93)
        image += (color - image) * (strength * np.minimum(cover, 1))[..., None]
    elif scene.sky == "orange":
        glow = _blob(x, y, side, 0.03, 0.22, 0.10) * 0.8
        image += (np.array((1.0, 0.95, 0.66), np.float32) - image) * glow[..., None]
    elif scene.sky == "night":
        light = np.zeros_like(x)
        for _ in range(9):
            at_x, at_y = rng.uniform(-0.45, 0.45), rng.uniform(0.06, 0.3)
            light = np.maximum(light, rng.uniform(0.45, 0.9) * _blob(x, y, at_x, at_y, 0.009, 0.009))
        disc = np.clip((0.042 - np.hypot(x - side, y - 0.22)) / 0.006, 0, 1)
        light = np.maximum(light, disc * 0.95)
        image += (np.array((1.0, 0.98, 0.86), np.float32) - image) * light[..., None]
    return image


def _ground(scene: Scene, x: Array, z: Array, distance: Array, rng: np.random.Generator) -> Array:
    """Albedo of the ground at the points (x, z), (points, 3). Patterns fade with distance: no flicker far away."""
    base = np.array(GROUND_RGB[scene.ground], np.float32)
    fade = np.exp(-np.maximum(distance - 8, 0) / 9)
    a, b = (np.float32(value) for value in rng.uniform(0, 6.28, 2))
    kind = scene.ground
    if kind == "checker":
        # The pattern lies still: a camera that stands over the same floor is easier to learn.
        light = np.sign(np.sin(x * (np.pi / 1.3)) * np.sin(z * (np.pi / 1.3)))
        return base * (1 + 0.48 * light * fade)[:, None]
    if kind == "wood":
        plank = np.floor(x / 0.95)
        gap = (np.abs(x / 0.95 - plank - 0.5) > 0.46) * fade
        return base * ((1 + 0.16 * np.sin(plank * 12.9898)) * (1 - 0.45 * gap))[:, None]
    if kind == "stone":
        row = np.floor(z / 1.5)
        across = x / 1.9 + 0.5 * (row % 2)
        gap = ((np.abs(z / 1.5 - row - 0.5) > 0.455) | (np.abs(across - np.floor(across) - 0.5) > 0.47)) * fade
        return base * ((1 + 0.07 * np.sin(np.floor(across) * 7.1 + row * 4.7) * fade) * (1 - 0.36 * gap))[:, None]
    if kind == "water":
        wave = np.sin(z * 2.6 + 1.1 * np.sin(x * 0.8 + a) + b)
        horizon = np.array(SKY_RGB[scene.sky][1], np.float32)
        return base * (1 + 0.20 * fade * wave)[:, None] + horizon * (0.12 + 0.06 * fade * wave)[:, None]
    if kind == "grass":
        tuft = np.sin(x * 2.9 + a + np.sin(z * 2.1)) * np.sin(z * 3.4 + b + 0.6 * x)
        return base * (1 + 0.15 * fade * tuft)[:, None]
    ripple = np.sin(z * (2.8 if kind == "sand" else 1.1) + a + np.sin(x * 0.9 + b))
    return base * (1 + (0.075 if kind == "sand" else 0.04) * fade * ripple)[:, None]


def _shade(
    scene: Scene, points: Vector, normals: Vector, ray: Vector, spread: Vector, hit: Array, albedo: Array
) -> Array:
    """Light that n surface points send to the camera, (n, 3). `hit` is 0 on the ground, n on the n-th thing."""
    night = scene.sky == "night"
    light: Vector = (np.float32(scene.light) + spread[0], np.full_like(spread[0], 1.25), np.float32(-1.15) + spread[1])
    lx, ly, lz = light
    norm = 1 / np.sqrt(lx * lx + ly * ly + lz * lz)
    lx, ly, lz = lx * norm, ly * norm, lz * norm
    (px, py, pz), (nx, ny, nz) = points, normals
    lit, open_sky = np.ones_like(px), np.ones_like(px)
    for number, thing in enumerate(scene.things, 1):
        own = hit == number
        middle = height(thing) / 2
        cx, cy, cz = thing.x - px, middle - py, thing.z - pz
        along = cx * lx + cy * ly + cz * lz
        apart = cx * cx + cy * cy + cz * cz - along * along
        reach = max(thing.radius * 1.22, thing.radius * CONE_HEIGHT * 0.62)
        near = np.flatnonzero((apart < reach * reach) & (along > -reach) & ~own)
        start = (px[near] + nx[near] * 2e-3, py[near] + ny[near] * 2e-3, pz[near] + nz[near] * 2e-3)
        distance, _ = intersect(thing, start, (lx[near], ly[near], lz[near]))
        lit[near] = np.where(distance < MISS, 0, lit[near])
        # Nearness to a thing hides part of the sky; so does the ground for the thing's own lower half.
        away = np.maximum(np.sqrt(cx * cx + cz * cz) - thing.radius * 0.62, 0) / (thing.radius * 0.5)
        contact = 1 - 0.45 * np.exp(-away * away - np.maximum(py, 0) / thing.radius)
        open_sky *= np.where(own, np.minimum(0.72 + 0.28 * py / (thing.radius * 0.9), 1), contact)
    facing = np.maximum(nx * lx + ny * ly + nz * lz, 0) * lit
    hx, hy, hz = lx - ray[0], ly - ray[1], lz - ray[2]
    shine = np.maximum(nx * hx + ny * hy + nz * hz, 0) / np.sqrt(hx * hx + hy * hy + hz * hz)
    gloss = np.where(hit > 0, 0.5, 0.12 if scene.ground == "water" else 0) * shine**30 * lit
    horizon = np.array(SKY_RGB[scene.sky][1], np.float32)
    # The sky tints the ambient light only weakly: else white and black things would not stay white and black.
    ambient = np.array((0.43, 0.44, 0.52), np.float32) if night else 0.14 * horizon + np.float32(0.38)
    key = np.array((0.54, 0.55, 0.62), np.float32) if night else np.array((0.82, 0.79, 0.73), np.float32)
    sky_light = (0.78 + 0.22 * ny) * open_sky
    return albedo * (ambient * sky_light[:, None] + key * facing[:, None]) + (gloss * (0.6 if night else 1))[:, None]


def render(scene: Scene, size: int = 64) -> Rendering:
    """Draws a scene with 3 x 3 samples a pixel. The same scene at another size is the same picture, sharper."""
    samples = size * SUPERSAMPLING
    ray, axial = _rays(samples)
    rng = np.random.default_rng(scene.seed)
    image = _sky(scene, ray, rng).astype(np.float32)
    dy = ray[1]
    camera = tuple(np.float32(value) for value in CAMERA)
    distance = np.where(dy < -1e-3, -camera[1] / np.minimum(dy, -1e-3), MISS).astype(np.float32)
    hit = np.where(distance < 200, 0, -1).astype(np.int8)
    normals = tuple(np.full((samples, samples), value, np.float32) for value in (0, 1, 0))
    for number, thing in enumerate(scene.things, 1):
        window = _window(thing, samples)
        part = tuple(each[window] for each in ray)
        found, normal = intersect(thing, camera, part)  # type: ignore[arg-type]
        closer = found < distance[window]
        distance[window] = np.where(closer, found, distance[window])
        hit[window] = np.where(closer, np.int8(number), hit[window])
        for whole, each in zip(normals, normal, strict=True):
            whole[window] = np.where(closer, each, whole[window])
    solid = np.nonzero(hit >= 0)
    reach, rays = distance[solid], tuple(each[solid] for each in ray)
    points = tuple(start + reach * step for start, step in zip(camera, rays, strict=True))
    what = hit[solid]
    albedo = _ground(scene, points[0], points[2], reach, rng).astype(np.float32)
    for number, thing in enumerate(scene.things, 1):
        albedo[what == number] = RGB[thing.color]
    spread = tuple(each[solid] for each in _light_spread(samples))
    surface = tuple(each[solid] for each in normals)
    color = _shade(scene, points, surface, rays, spread, what, albedo)  # type: ignore[arg-type]
    horizon = np.array(SKY_RGB[scene.sky][1], np.float32)
    fog = np.where(what == 0, 1 - np.exp(-np.maximum(reach - 10, 0) / 22), 0)[:, None] * np.float32(0.75)
    image[solid] = color + (horizon - color) * fog
    inverse = np.where(hit >= 0, 1 / np.maximum(distance * axial, 1e-3), 0)
    depth = np.clip((inverse - 1 / FARTHEST) / (1 / NEAREST - 1 / FARTHEST), 0, 1).astype(np.float32)
    fine = styles.Fine(np.clip(image, 0, 1), hit, size, SUPERSAMPLING)
    middle = SUPERSAMPLING // 2
    mask = np.maximum(hit[middle::SUPERSAMPLING, middle::SUPERSAMPLING], 0).astype(np.uint8)
    picture = styles.apply(scene, fine, rng)
    return Rendering(picture.astype(np.float32), styles.reduce(depth, SUPERSAMPLING), mask)
