"""Computation on a large tensor in overlapping tiles, blended without a seam."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["in_tiles", "starts"]


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the starts of tiles that cover ``length``, each overlapping the next by ``overlap`` or more."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(number * (length - tile) / (count - 1)) for number in range(count)]


def in_tiles(
    work: Callable[[slice, slice], torch.Tensor], height: int, width: int, *, tile: int, overlap: int, scale: int = 1
) -> torch.Tensor:
    """Compute ``work`` on a plane of ``height`` x ``width`` in tiles of at most ``tile`` a side, and blend the results.

    ``work`` takes the rows and columns of a tile and returns (batch, channels, rows x scale, columns x scale). Where
    tiles overlap, the weight of each falls linearly towards its edge. The result of a single tile is returned as it is.
    """
    rows, columns = starts(height, tile, overlap), starts(width, tile, overlap)
    if len(rows) == len(columns) == 1:
        return work(slice(0, height), slice(0, width))
    total = weights = None
    for top in rows:
        for left in columns:
            bottom, right = min(top + tile, height), min(left + tile, width)
            part = work(slice(top, bottom), slice(left, right))
            down = _fade(bottom - top, overlap, top > 0, bottom < height, scale)
            across = _fade(right - left, overlap, left > 0, right < width, scale)
            weight = (down[:, None] * across[None, :]).to(part)
            if total is None or weights is None:
                total = part.new_zeros((*part.shape[:2], height * scale, width * scale))
                weights = part.new_zeros((height * scale, width * scale))
            view = (slice(top * scale, bottom * scale), slice(left * scale, right * scale))
            total[:, :, *view] += part * weight
            weights[view] += weight
    assert total is not None
    assert weights is not None
    return total / weights


def _fade(length: int, overlap: int, before: bool, after: bool, scale: int) -> torch.Tensor:
    """Return the weights along a tile: 1 inside, falling to nearly 0 at the ends that another tile overlaps."""
    weight = torch.ones(length * scale)
    ramp = (torch.arange(overlap * scale) + 0.5) / max(1, overlap * scale)
    if before and overlap:
        weight[: overlap * scale] *= ramp
    if after and overlap:
        weight[-overlap * scale :] *= ramp.flip(0)
    return weight
