"""URLs as people and strangers write them, read strictly."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

from graphflow import Problem

__all__ = ["Url", "is_url", "parse_url"]

MAXIMUM_LENGTH = 4096
"""Characters; signed URLs of object stores have up to 2,000."""

_HOST = re.compile(r"(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
_PATH = "/%:@!$&'()*+,;=~"
_QUERY = _PATH + "?"


@dataclass(frozen=True, slots=True)
class Url:
    """An https URL. ``host`` is ASCII, an IPv6 address without brackets; ``target`` is path and query, quoted."""

    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL and in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"https://{self.authority}{self.target}"

    @property
    def shown(self) -> str:
        """The URL for messages: without its query, which may be long and hold a key, and at most 200 characters."""
        text = f"https://{self.authority}{self.target.partition('?')[0]}"
        return text if len(text) <= 200 else text[:199] + "…"


def is_url(path: str) -> bool:
    """Tell whether a path that a node was given is a URL."""
    return path[:6].lower() == "https:"


def parse_url(text: str, base: Url | None = None) -> Url | Problem:
    """Read an https URL, or return the problem with it. ``base`` is where a relative one was found.

    Characters outside of ASCII are quoted as UTF-8, in the host by IDNA. A fragment is dropped: it is never sent.
    """
    if len(text) > MAXIMUM_LENGTH:
        return _malformed(text, f"has {len(text)} characters, expected at most {MAXIMUM_LENGTH}")
    # urlsplit drops line breaks and tabs without a word
    if re.search(r"[\x00-\x20\x7f\\]", text):
        return _malformed(text, "holds a space, a backslash or a control character", "write a space as %20")
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(str(base), text) if base else text)
        port = 443 if parts.port is None else parts.port
        host = (parts.hostname or "").lower()
        if ":" not in host:
            host = host.encode("idna").decode("ascii")
    except ValueError as error:  # UnicodeError is one too
        return _malformed(text, f"cannot be read: {error}")
    if parts.scheme != "https":
        found = f"{parts.scheme}://" if parts.scheme else "no scheme"
        return Problem("url.scheme", f"found {found}, expected https://", hint="only https is read")
    if "@" in parts.netloc:
        return _malformed(text, "holds a user name or a password", "a picture is read only where it is public")
    if not _HOST.fullmatch(host) or port == 0:
        return _malformed(text, "names no host", "write https://host/path")
    target = urllib.parse.quote(parts.path or "/", safe=_PATH)
    if parts.query:
        target += "?" + urllib.parse.quote(parts.query, safe=_QUERY)
    return Url(host, port, target)


def _malformed(text: str, fault: str, hint: str = "") -> Problem:
    # what stands before an @ is a password, and after a ? perhaps a key
    shown = re.sub(r"//[^/]*@", "//…@", text.partition("?")[0])[:200]
    return Problem("url.form", f"the URL {shown} {fault}", hint=hint)
