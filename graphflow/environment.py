"""The environment variables of GraphFlow, and how those are read that switch something on.

Public: node packs read their own switches with `flag`, so that 0 means the same everywhere.
"""

from __future__ import annotations

import os

__all__ = [
    "CACHE_SIZE_VARIABLE",
    "CACHE_VARIABLE",
    "NO_CACHE_VARIABLE",
    "OFFLINE_VARIABLE",
    "flag",
    "is_offline",
]

CACHE_VARIABLE = "GRAPHFLOW_CACHE"
"""The folder of everything that GraphFlow keeps for later."""

CACHE_SIZE_VARIABLE = "GRAPHFLOW_CACHE_SIZE"
"""Bound of the results that are kept, in bytes or as a text like "50GB"."""

NO_CACHE_VARIABLE = "GRAPHFLOW_NO_CACHE"
"""A flag: results are neither looked up nor kept."""

OFFLINE_VARIABLE = "GRAPHFLOW_OFFLINE"
"""A flag: every run stays away from the network."""


def flag(name: str, *, strict: bool = False) -> bool:
    """Tell whether an environment variable switches something on: by anything but nothing, 0, false, no and off.

    With ``strict`` only 1 does, for what lowers a guard: a value that was meant otherwise must not.
    """
    value = os.environ.get(name, "").strip().lower()
    return value == "1" if strict else value not in ("", "0", "false", "no", "off")


def is_offline() -> bool:
    """Tell whether the environment forbids the network."""
    return flag(OFFLINE_VARIABLE)
