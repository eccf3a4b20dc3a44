"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back"]


def give_back() -> None:
    """Have the C library return what it holds free between what is in use; of use after weights were converted.

    What glibc keeps by itself was 0.6 GB of 3.1 for a Stable Diffusion 1.5 in bfloat16 with channels last, whose
    tensors are laid out anew one by one. Other C libraries are left alone.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
