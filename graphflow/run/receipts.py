"""Receipts: which files a step has written, so that it need not write them again while they are there.

A node that saves (``saves=True``) does nothing else than write files. What it wrote is kept in the store of results
under a key of its own, made of the step's and the folder; where every file is still what it was, the step is done, and
nothing that only it needs has to be computed or read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from graphflow.files import file_record
from graphflow.planning.keys import digest
from graphflow.planning.planner import Step
from graphflow.store.interface import Store, Warn
from graphflow.types import PortType

__all__ = ["find_receipt", "keep_receipt"]

RECORD = "receipt/1"
"""First element of what a receipt's key is made of; raise the number when the form changes."""

_TYPES = {"files": PortType(str)}


def find_receipt(store: Store, step: Step, folder: Path, warn: Warn) -> list[Path] | None:
    """Return the files that an equal step wrote into ``folder``, if they are there and unchanged."""
    if not step.node.saves:
        return None
    key = _key(step, folder)
    kept = store.get(key, _TYPES, warn)
    if kept is None:
        return None
    paths, root = [], folder.resolve()
    for recorded in orjson.loads(kept["files"]):
        path = root / recorded["path"]
        try:
            if path.stat().st_size != recorded["size"] or file_record(path, folder) != recorded:
                return None
        except OSError:
            return None
        paths.append(path)
    return paths


def keep_receipt(store: Store, step: Step, folder: Path, paths: Sequence[Path], warn: Warn) -> None:
    """Remember what a step that saves has written."""
    if not step.node.saves:
        return
    try:
        recorded = [file_record(path, folder) for path in paths]
    except OSError:
        return
    store.put(_key(step, folder), {"files": orjson.dumps(recorded).decode()}, warn)


def _key(step: Step, folder: Path) -> str:
    return digest([RECORD, step.key, str(folder.resolve())])
