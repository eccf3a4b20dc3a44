"""Rays against spheres, cubes, cones and cylinders that stand on the plane y = 0. Arrays are float32, any shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.pocket.scenes import Thing

Array = NDArray[Any]  # float32; the stubs of numpy lose the width in arithmetic
Vector = tuple[Array, Array, Array]
MISS = np.float32(1e9)
NEAR = np.float32(1e-3)
CUBE_HALF_EDGE = 0.80
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.80, 1.85
CONE_RADIUS, CONE_HEIGHT = 1.0, 2.15
"""Proportions of the shapes, in units of the thing's radius."""


def height(thing: Thing) -> float:
    """How high a thing stands above the ground, in world units."""
    factor = {"sphere": 2.0, "cube": 2 * CUBE_HALF_EDGE, "cone": CONE_HEIGHT, "cylinder": CYLINDER_HEIGHT}
    return factor[thing.shape] * thing.radius


def _nonzero(values: Array, least: float = 1e-6) -> Array:
    return np.where(np.abs(values) < least, np.float32(least), values)


def _sphere(thing: Thing, origin: Vector, ray: Vector) -> tuple[Array, Vector]:
    (px, py, pz), (dx, dy, dz) = origin, ray
    radius = np.float32(thing.radius)
    py = py - radius
    half = px * dx + py * dy + pz * dz
    inside = half * half - (px * px + py * py + pz * pz - radius * radius)
    distance = -half - np.sqrt(np.maximum(inside, 0))
    distance = np.where((inside > 0) & (distance > NEAR), distance, MISS)
    reach = np.minimum(distance, 100) / radius
    return distance, (px / radius + reach * dx, py / radius + reach * dy, pz / radius + reach * dz)


def _cube(thing: Thing, origin: Vector, ray: Vector) -> tuple[Array, Vector]:
    half = np.float32(thing.radius * CUBE_HALF_EDGE)
    cosine, sine = np.float32(np.cos(thing.yaw)), np.float32(np.sin(thing.yaw))
    (px, py, pz), (dx, dy, dz) = origin, ray
    starts: Vector = (cosine * px - sine * pz, py - half, sine * px + cosine * pz)
    steps = [_nonzero(step) for step in (cosine * dx - sine * dz, dy, sine * dx + cosine * dz)]
    enter, leave = [], []
    for start, step in zip(starts, steps, strict=True):
        one, other = (-half - start) / step, (half - start) / step
        enter.append(np.minimum(one, other))
        leave.append(np.maximum(one, other))
    first = np.maximum(np.maximum(enter[0], enter[1]), enter[2])
    last = np.minimum(np.minimum(leave[0], leave[1]), leave[2])
    distance = np.where((first < last) & (first > NEAR), first, MISS)
    nx, ny, nz = (np.where(first == each, -np.sign(step), 0) for each, step in zip(enter, steps, strict=True))
    return distance, (cosine * nx + sine * nz, ny, -sine * nx + cosine * nz)


def _cylinder(thing: Thing, origin: Vector, ray: Vector) -> tuple[Array, Vector]:
    radius, top = np.float32(thing.radius * CYLINDER_RADIUS), np.float32(thing.radius * CYLINDER_HEIGHT)
    (px, py, pz), (dx, dy, dz) = origin, ray
    square = np.maximum(dx * dx + dz * dz, 1e-9)
    half = px * dx + pz * dz
    inside = half * half - square * (px * px + pz * pz - radius * radius)
    side = (-half - np.sqrt(np.maximum(inside, 0))) / square
    level = py + side * dy
    side = np.where((inside > 0) & (side > NEAR) & (level > 0) & (level < top), side, MISS)
    lid = (top - py) / _nonzero(dy)
    lx, lz = px + lid * dx, pz + lid * dz
    lid = np.where((lid > NEAR) & (lx * lx + lz * lz < radius * radius), lid, MISS)
    distance = np.minimum(side, lid)
    reach = np.minimum(distance, 100)
    on_lid = lid < side
    nx, nz = ((p + reach * d) / radius for p, d in ((px, dx), (pz, dz)))
    return distance, (np.where(on_lid, 0, nx), np.where(on_lid, np.float32(1), 0), np.where(on_lid, 0, nz))


def _cone(thing: Thing, origin: Vector, ray: Vector) -> tuple[Array, Vector]:
    base, top = np.float32(thing.radius * CONE_RADIUS), np.float32(thing.radius * CONE_HEIGHT)
    (px, py, pz), (dx, dy, dz) = origin, ray
    slope = (base / top) ** 2
    below = py - top
    square = _nonzero(dx * dx + dz * dz - slope * dy * dy, 1e-7)
    half = px * dx + pz * dz - slope * below * dy
    inside = half * half - square * (px * px + pz * pz - slope * below * below)
    root = np.sqrt(np.maximum(inside, 0))
    distance = np.full(np.shape(root), MISS, np.float32)
    for sign in (-1, 1):
        candidate = (-half + sign * root) / square
        level = py + candidate * dy
        hit = (inside > 0) & (candidate > NEAR) & (level > 0) & (level < top) & (candidate < distance)
        distance = np.where(hit, candidate, distance)
    reach = np.minimum(distance, 100)
    hx, hz = px + reach * dx, pz + reach * dz
    length = np.sqrt(hx * hx + hz * hz) + np.float32(1e-6)
    norm = np.sqrt(top * top + base * base)
    return distance, (hx / length * (top / norm), np.full_like(length, base / norm), hz / length * (top / norm))


_SHAPES = {"sphere": _sphere, "cube": _cube, "cone": _cone, "cylinder": _cylinder}


def intersect(thing: Thing, origin: Vector, ray: Vector) -> tuple[Array, Vector]:
    """Distance to the thing along each unit ray (`MISS` if none) and the outward unit normal where it hits."""
    px, py, pz = origin
    return _SHAPES[thing.shape](thing, (px - np.float32(thing.x), py, pz - np.float32(thing.z)), ray)
