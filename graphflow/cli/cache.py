"""Tell what results are kept on the disk, or remove some.

Every step of a run keeps its result under a key of all that decides it, so that no later run computes it again. info
tells where and how much. prune removes what was used least recently, down to --max-size (by default the bound that the
store has anyway), and with --unused what was not used for so long. clear removes all. Nothing that a run saved is ever
touched: results are copies.
"""

from __future__ import annotations

import argparse
import re
import time
from typing import Any

from graphflow.cli.parser import Options, Parser
from graphflow.cli.report import count, tell
from graphflow.environment import CACHE_SIZE_VARIABLE
from graphflow.machine.memory import parse_bytes, show_bytes
from graphflow.store.disk import DEFAULT_BYTES, DiskStore

__all__ = ["add_arguments", "run"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow cache``."""
    parser.add_argument("action", metavar="info|prune|clear", choices=("info", "prune", "clear"), help="what to do")
    parser.add_argument("--json", action="store_true", help="info: print JSON")
    parser.add_argument("--max-size", metavar="SIZE", help="prune: how much may stay, such as 2GB")
    parser.add_argument(
        "--unused", metavar="TIME", type=_seconds, help="prune: also what was not used for so long, such as 7d or 12h"
    )


def run(options: Options) -> int:
    """Tell or remove."""
    store = DiskStore()
    if options.action == "info":
        _info(store, json=options.json)
        return 0
    if options.action == "clear":
        removed = store.clear()
    else:
        bound = parse_bytes(options.max_size, "size") if options.max_size else None
        removed = store.prune(bound, unused_seconds=options.unused)
    freed = show_bytes(sum(entry.nbytes for entry in removed))
    tell(f"removed {count(len(removed), 'result')}, {freed}, from {store.folder}")
    return 0


def _info(store: DiskStore, *, json: bool) -> None:
    entries = sorted(store.entries(), key=lambda entry: entry.used)
    nbytes = sum(entry.nbytes for entry in entries)
    data: dict[str, Any] = {
        "folder": str(store.folder),
        "results": len(entries),
        "bytes": nbytes,
        "max_bytes": store.max_bytes,
        "oldest_use": round(entries[0].used, 3) if entries else None,
        "latest_use": round(entries[-1].used, 3) if entries else None,
    }
    if json:
        import orjson

        print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())
        return
    bound = f"{show_bytes(store.max_bytes)} (" + (
        f"{CACHE_SIZE_VARIABLE} sets another)" if store.max_bytes == DEFAULT_BYTES else f"from {CACHE_SIZE_VARIABLE})"
    )
    rows = [("folder", data["folder"]), ("results", f"{len(entries)}, {show_bytes(nbytes)}"), ("at most", bound)]
    if entries:
        rows.append(("used", f"{_ago(entries[-1].used)} at latest, {_ago(entries[0].used)} at longest"))
    for label, value in rows:
        print(f"{label:<8} {value}")  # a path stays in one piece, to be copied


def _ago(moment: float) -> str:
    passed = max(time.time() - moment, 0)
    for noun, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if passed >= seconds:
            return f"{count(int(passed // seconds), noun)} ago"
    return "just now"


def _seconds(word: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", word)
    if match is None:
        raise argparse.ArgumentTypeError(f"found '{word}', expected a time like 90m, 12h, 7d or 2w")
    return float(match[1]) * _SECONDS[match[2]]
