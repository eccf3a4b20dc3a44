"""Pictures and depth maps as tensors."""

from __future__ import annotations

import torch


def picture(batch: int, height: int = 64, width: int = 64) -> torch.Tensor:
    """Smooth colours, with an edge in them."""
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None, :]
    planes = torch.stack([rows.expand(height, width), columns.expand(height, width), ((rows - columns) > 0).float()])
    return torch.stack([(planes * (1 - 0.2 * index)) for index in range(batch)])


def depth(batch: int, height: int = 64, width: int = 64) -> torch.Tensor:
    """Depth that looks like `picture`."""
    return picture(batch, height, width).mean(1, keepdim=True)
