"""The content of a URL, and the bounds within which it is downloaded and kept."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CACHE_BYTES",
    "CONNECT_SECONDS",
    "DOWNLOAD_BYTES",
    "READ_SECONDS",
    "REDIRECTS",
    "WHOLE_SECONDS",
    "Download",
    "Validators",
]

CONNECT_SECONDS = 10.0
"""The longest wait for the resolver, for a connection, and for a TLS handshake."""

READ_SECONDS = 20.0
"""The longest wait for the next bytes."""

WHOLE_SECONDS = 120.0
"""A whole download, redirects included."""

DOWNLOAD_BYTES = 64 << 20
"""A picture."""

REDIRECTS = 5
"""The longest chain of URLs that lead to one another."""

CACHE_BYTES = 1 << 30
"""Sum of all pictures that are kept."""


@dataclass(frozen=True, slots=True)
class Validators:
    """Headers by which a server recognises content that has not changed (RFC 9110, section 8.8), None where absent."""

    url: str
    """Source of the content, redirects followed: validators hold for that URL alone."""
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes that were downloaded, with their validators."""

    content: bytes
    validators: Validators
