"""Pictures at https URLs: on the disk already, or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graphflow import Problem
from graphflow.environment import CACHE_VARIABLE
from graphflow.nodes.files.image_header import parse_image
from graphflow.nodes.web.download_cache import DownloadCache, Kept, downloads_folder
from graphflow.nodes.web.url import Url, parse_url

__all__ = ["Picture", "cached_picture", "check_url", "fetch_picture"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is on the disk, under the SHA-256 (hex) of its bytes; ``warning`` says what is odd about it."""

    path: Path
    digest: str
    warning: Problem | None = None


def check_url(text: str) -> Problem | None:
    """Return the problem with a URL, as far as it shows without the network."""
    url = parse_url(text)
    if isinstance(url, Problem):
        return url
    from graphflow.nodes.web.address import check_literal  # with it come sockets, which few workflows need

    return check_literal(url.host)


def cached_picture(text: str) -> Picture | None:
    """Find the picture that a URL gave last, if it is on the disk. The network is not touched."""
    url = parse_url(text)
    kept = None if isinstance(url, Problem) else DownloadCache(downloads_folder()).find(url)
    return None if kept is None else Picture(kept.path, kept.digest)


def fetch_picture(text: str, *, offline: bool) -> Picture | Problem:
    """Fetch the picture at a URL, or return the problem with it.

    One that is on the disk is used where the server says that it is still the same, or, with a warning, where it does
    not answer. With ``offline`` nobody is asked. Only what begins and ends as a picture does is kept.
    """
    url = parse_url(text)
    if isinstance(url, Problem):
        return url
    cache = DownloadCache(downloads_folder())
    kept = cache.find(url)
    if not offline:
        return _asked(url, cache, kept)
    if kept is None:
        message = f"{url.shown} was not downloaded yet, and this is offline"
        hint = "run it once without --offline and GRAPHFLOW_OFFLINE, or give the path of a local copy"
        return Problem("missing.download", message, hint=hint)
    cache.touch(kept)
    return Picture(kept.path, kept.digest)


def _asked(url: Url, cache: DownloadCache, kept: Kept | None) -> Picture | Problem:
    from graphflow.nodes.web.connection import DownloadError
    from graphflow.nodes.web.download import download

    try:
        got = download(url, kept.validators if kept else None)
    except DownloadError as error:
        if kept is None or not error.passing:
            return error.problem
        cache.touch(kept)
        message = f"{error.problem.message}; the copy of {kept.checked or 'before'} is used"
        return Picture(kept.path, kept.digest, Problem("url.stale", message, severity="warning"))
    if got is None:
        assert kept is not None  # only a known content can be unchanged
        cache.confirm(url, kept)
        return Picture(kept.path, kept.digest)
    header = parse_image(got.content, url.shown)
    if isinstance(header, Problem):
        return header
    try:
        new = cache.keep(url, got)
    except OSError as error:
        message = f"the download cannot be kept in {cache.folder}: {error.strerror or error}"
        hint = f"the environment variable {CACHE_VARIABLE} names another folder"
        return Problem("file.unwritable", message, hint=hint)
    return Picture(new.path, new.digest)
