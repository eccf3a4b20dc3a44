"""Conversion of weights while they are read, so that a whole file is never in memory beside its converted copy.

diffusers maps a file and converts one tensor after the other, and the pages that it read stay in memory until the last
one is done. For a file in float32 that is read as bfloat16 the peak of the process is then 1.5 times the size of the
file, where 0.5 times is enough.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open

__all__ = ["converted_in_parts"]

PART = 64 << 20
"""Bytes of a file that are mapped at a time; a larger tensor is mapped alone."""


@contextmanager
def converted_in_parts(dtype: torch.dtype) -> Iterator[None]:
    """Convert floating-point numbers to ``dtype`` in safetensors files that this thread reads whole in the block.

    Numbers that are not wider than ``dtype`` stay as they are: converting them would save nothing.
    """
    module: Any = safetensors.torch  # diffusers looks up the function there at each call
    own, thread = module.load_file, threading.get_ident()

    def load_file(filename: Any, device: Any = "cpu", **options: Any) -> dict[str, torch.Tensor]:
        if threading.get_ident() != thread or str(device) != "cpu" or options:
            found: dict[str, torch.Tensor] = own(filename, device, **options)
            return found
        return _read(filename, dtype)

    module.load_file = load_file
    try:
        yield
    finally:
        module.load_file = own


def _read(filename: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    with safe_open(filename, framework="pt") as file:
        names = list(file.offset_keys())
    state: dict[str, torch.Tensor] = {}
    while names:
        size = 0
        with safe_open(filename, framework="pt") as file:  # mapped again, to release the pages read before
            while names and size < PART:
                name = names.pop(0)
                tensor = file.get_tensor(name)
                narrower = tensor.is_floating_point() and tensor.element_size() > dtype.itemsize
                state[name] = tensor.to(dtype) if narrower else tensor
                size += tensor.nbytes
                del tensor
    return state
