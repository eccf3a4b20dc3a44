"""Seeds of noise, one for each item of a batch."""

from __future__ import annotations

__all__ = ["seeds_from"]


def seeds_from(seed: int, count: int) -> tuple[int, ...]:
    """Return the seed of each item of a batch, ``seed + i`` (modulo 2**64)."""
    return tuple((seed + index) % 2**64 for index in range(count))
