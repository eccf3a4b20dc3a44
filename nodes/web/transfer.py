"""What comes from a URL, and what tells whether it has changed."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Download", "Validators"]


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells whether the content at a URL is still the same (RFC 9110, section 8.8), None where it is not told."""

    url: str
    """Where the content came from, redirects followed: validators hold for that URL alone."""
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """What came."""

    content: bytes
    validators: Validators
