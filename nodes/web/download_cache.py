"""Downloads kept on the disk, once for each content, with what is known of the URLs that gave them.

::

    downloads/content/<SHA-256 of the content>
    downloads/urls/<SHA-256 of the URL>.json       the content it gave last, and its validators

Each URL has a file of its own: two processes never write one index against each other, and one that is broken costs
one download. When a content was last used is the time of its file; what was used least recently goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow import cache_folder, write_atomically
from graphflow.nodes.web import transfer
from graphflow.nodes.web.transfer import Download, Validators
from graphflow.nodes.web.url import Url

__all__ = ["DownloadCache", "Kept", "downloads_folder"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_HEADER = re.compile(r"[\x20-\x7e]{1,1000}")
"""Characters of a header that is kept; with any other it is no validator."""


def downloads_folder() -> Path:
    """``downloads`` in GraphFlow's cache folder."""
    return cache_folder() / "downloads"


@dataclass(frozen=True, slots=True)
class Kept:
    """A content that is on the disk."""

    path: Path
    digest: str
    """SHA-256 (hex)."""
    validators: Validators
    checked: str
    """Date and time (UTC, ISO 8601) when the URL was last asked."""


class DownloadCache:
    """Contents on the disk by URL. Reading never raises: an entry that cannot be read counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, url: Url) -> Kept | None:
        """Find the content that a URL gave last, if it is there and unharmed."""
        try:
            entry = json.loads(self._entry(url).read_bytes())
            digest = entry["sha256"]
            if entry["url"] != str(url) or not _DIGEST.fullmatch(digest):
                return None
            path = self._content(digest)
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return None
            validators = Validators(str(entry["from"]), _header(entry.get("etag")), _header(entry.get("last_modified")))
            return Kept(path, digest, validators, str(entry.get("checked", "")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def keep(self, url: Url, got: Download) -> Kept:
        """Write a content and the entry of its URL, then remove what is too much. Raises OSError."""
        digest = hashlib.sha256(got.content).hexdigest()
        path = self._content(digest)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = Kept(path, digest, got.validators, _now())
        # a file of that name that is there already may be harmed, so it is written again
        write_atomically(path, got.content)
        self._write_entry(url, kept)
        self._prune(path)
        return kept

    def confirm(self, url: Url, kept: Kept) -> None:
        """Note that a content was used, and that its URL still gives it. A folder that is read only stays as it is."""
        self.touch(kept)
        with contextlib.suppress(OSError):
            self._write_entry(url, Kept(kept.path, kept.digest, kept.validators, _now()))

    def touch(self, kept: Kept) -> None:
        """Note that a content was used."""
        with contextlib.suppress(OSError):
            os.utime(kept.path)

    def _content(self, digest: str) -> Path:
        return self.folder / "content" / digest

    def _entry(self, url: Url) -> Path:
        return self.folder / "urls" / f"{hashlib.sha256(str(url).encode()).hexdigest()}.json"

    def _write_entry(self, url: Url, kept: Kept) -> None:
        entry: dict[str, Any] = {
            "url": str(url),
            "sha256": kept.digest,
            "from": kept.validators.url,
            "etag": _header(kept.validators.etag),
            "last_modified": _header(kept.validators.last_modified),
            "checked": kept.checked,
        }
        write_atomically(self._entry(url), json.dumps(entry, indent=1).encode())

    def _prune(self, new: Path) -> None:
        """Remove what was used least recently until the rest is small enough; ``new`` stays in any case."""
        files = sorted(_files(self.folder / "content"), key=lambda file: file[1])
        total = sum(size for _, _, size in files)
        if total <= transfer.CACHE_BYTES:
            return
        for path, _, size in files:
            if total <= transfer.CACHE_BYTES:
                break
            if path != new:
                with contextlib.suppress(OSError):
                    path.unlink()
                    total -= size
        left = {path.name for path, _, _ in _files(self.folder / "content")}
        for path, _, _ in _files(self.folder / "urls"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                if json.loads(path.read_bytes())["sha256"] not in left:
                    path.unlink()


def _header(value: Any) -> str | None:
    return value if isinstance(value, str) and _HEADER.fullmatch(value) else None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _files(folder: Path) -> Iterator[tuple[Path, float, int]]:
    """Path, time and size of each file; one that another process removes meanwhile is left out."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                yield Path(entry.path), status.st_mtime, status.st_size
