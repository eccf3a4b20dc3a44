"""Cache keys: SHA-256 over a canonical encoding, the record type first.

A key covers everything that determines a result, and is linear in the graph: inputs count by their keys, not by what is
behind them. The encoding is JSON with sorted keys, in which equal values have equal text.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

__all__ = ["CLASS_RECORD", "KEY_RECORD", "digest"]

KEY_RECORD = "step/2"
"""First element of a step's record; raise the number when the meaning of a key changes."""

CLASS_RECORD = "class/1"
"""First element of the record of what the steps of one node class have in common, whose digest is in theirs."""


def digest(record: list[Any]) -> str:
    """SHA-256 (hex) of a record of plain JSON values."""
    return hashlib.sha256(orjson.dumps(record, option=orjson.OPT_SORT_KEYS)).hexdigest()
