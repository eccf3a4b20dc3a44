"""Results on the disk: what one process computed, every later one finds.

One file for each key, in the form of `value_files`. A file appears whole (written under another name, synced,
renamed) and is checked when it is read; one that is damaged is removed and computed again. When the store outgrows its
bound, what was used least recently goes. Any number of processes may use one folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow.environment import CACHE_SIZE_VARIABLE, NO_CACHE_VARIABLE, flag
from graphflow.files import cache_folder
from graphflow.machine.memory import parse_bytes
from graphflow.store.claims import claim_in
from graphflow.store.interface import UNSHARED, Claim, Warn
from graphflow.store.value_files import DamagedError, decode, encode
from graphflow.types import Conditioning, DepthMap, Image, Latent, Mask, PortType

__all__ = ["DEFAULT_BYTES", "DiskStore", "Entry", "default_store"]

DEFAULT_BYTES = 16 << 30
"""Bound of what is kept where nobody says otherwise."""

_SUFFIX = ".safetensors"
_PRUNED_TO = 0.9
"""Share of the bound that is left when it was outgrown, so that not every result prunes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the store."""

    path: Path
    nbytes: int
    used: float
    """Time when it was written or last read, seconds since the epoch."""


class DiskStore:
    """Results in a folder, by default ``results`` in GraphFlow's cache folder.

    ``max_bytes`` bounds what is kept; by default ``GRAPHFLOW_CACHE_SIZE``, else 16 GiB. A folder that cannot be
    written, or a disk that is full, is reported once; results are then computed and not kept.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int | None = None) -> None:
        self.folder = cache_folder() / "results" if folder is None else folder
        self.max_bytes = _bytes_wanted() if max_bytes is None else max_bytes
        self._writable = True
        self._nbytes: int | None = None
        """Bytes that are kept, as far as this process knows: None until it writes."""
        self._lock = threading.Lock()

    # What the scheduler asks ---------------------------------------------------------------------------------------

    def has(self, key: str) -> bool:
        """Check whether there is a file for ``key``."""
        return os.path.exists(self._path(key))  # noqa: PTH110 - asked for every step of a plan

    def get(self, key: str, types: Mapping[str, PortType], warn: Warn) -> Mapping[str, Any] | None:
        """Return the outputs under ``key``; None if there are none, or damaged ones, which are reported and removed."""
        path = self._path(key)
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            warn(f"a kept result cannot be read, it is computed again: {path}: {error.strerror or error}")
            return None
        try:
            kinds = {kind.kind for kind in types.values()} | {Image, Mask, DepthMap, Latent, Conditioning}
            outputs = decode(data, kinds)
            if outputs.keys() != types.keys():
                raise DamagedError(f"found {', '.join(outputs) or 'nothing'}, expected {', '.join(types)}")
        except DamagedError as error:
            warn(f"a kept result is damaged, it is removed and computed again: {path}: {error}")
            with contextlib.suppress(OSError):
                Path(path).unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # when it was last used
        return outputs

    def put(self, key: str, outputs: Mapping[str, Any], warn: Warn) -> None:
        """Write the outputs of a step, if a file can hold them and they are no larger than the store may be."""
        if not self._writable:
            return
        data = encode(outputs)
        if data is None or len(data) > self.max_bytes:
            return
        try:
            self._write(Path(self._path(key)), data)
        except OSError as error:
            self._writable = False
            warn(f"results are not kept: {self.folder}: {error.strerror or error}")
            return
        with self._lock:
            known = self._nbytes
            self._nbytes = sum(entry.nbytes for entry in self.entries()) if known is None else known + len(data)
            outgrown = self._nbytes > self.max_bytes
        if outgrown:
            self.prune(int(self.max_bytes * _PRUNED_TO))

    def claim(self, key: str) -> Claim | None:
        """Begin to compute what belongs to ``key``; None while another process does."""
        try:
            return claim_in(self.folder / "claims", key)
        except OSError:
            return UNSHARED

    # What a person asks --------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Yield every file that is kept."""
        for folder in self._folders():
            with contextlib.suppress(OSError), os.scandir(folder) as files:
                for file in files:
                    with contextlib.suppress(OSError):
                        if file.name.endswith(_SUFFIX):
                            status = file.stat()
                            yield Entry(Path(file.path), status.st_size, status.st_mtime)

    def prune(self, max_bytes: int | None = None, *, unused_seconds: float | None = None) -> list[Entry]:
        """Remove what was used least recently until ``max_bytes`` are left, and what was not used for so long.

        Returns what was removed. Without an argument the store's own bound holds.
        """
        self._remove_abandoned()
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        left = sum(entry.nbytes for entry in entries)
        bound = self.max_bytes if max_bytes is None else max_bytes
        too_old = -1.0 if unused_seconds is None else time.time() - unused_seconds
        removed = []
        for entry in entries:
            if left <= bound and entry.used >= too_old:
                break
            with contextlib.suppress(OSError):
                entry.path.unlink()
                removed.append(entry)
                left -= entry.nbytes
        with self._lock:
            self._nbytes = left
        return removed

    def clear(self) -> list[Entry]:
        """Remove everything; returns what was removed."""
        return self.prune(0, unused_seconds=-1)

    # Files ---------------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> str:
        return f"{self.folder}/{key[:2]}/{key}{_SUFFIX}"

    def _folders(self) -> list[str]:
        try:
            with os.scandir(self.folder) as found:
                return sorted(entry.path for entry in found if len(entry.name) == 2 and entry.is_dir())
        except OSError:
            return []

    def _write(self, path: Path, data: bytes) -> None:
        temporary_folder = self.folder / "writing"
        if self._nbytes is None:
            self._remove_abandoned()
        temporary_folder.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        # pid and host are in the name, so leftovers of dead processes are found
        temporary = temporary_folder / f"{os.getpid()}@{socket.gethostname()}@{secrets.token_hex(4)}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _remove_abandoned(self) -> None:
        """Remove what processes of this machine left that do not run any more, and what is a day old."""
        with contextlib.suppress(OSError):
            for path in list((self.folder / "writing").iterdir()):
                process, _, rest = path.name.partition("@")
                here = rest.partition("@")[0] == socket.gethostname()
                with contextlib.suppress(OSError, ValueError):
                    old = time.time() - path.stat().st_mtime > 86400
                    if old or (here and not _runs(int(process))):
                        path.unlink()


def default_store() -> DiskStore | None:
    """Return the store of this user, or None where ``GRAPHFLOW_NO_CACHE`` switches it off."""
    return None if flag(NO_CACHE_VARIABLE) else DiskStore()


def _runs(process: int) -> bool:
    if os.name == "nt":
        return True  # there a signal of 0 is no question
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _bytes_wanted() -> int:
    """Read the bound in the environment. Raises WorkflowError where it is no size."""
    size = os.environ.get(CACHE_SIZE_VARIABLE)
    return parse_bytes(size, f"size {CACHE_SIZE_VARIABLE}") if size else DEFAULT_BYTES
