"""The bounds of a download and of the cache."""

from __future__ import annotations

CONNECT_SECONDS = 10.0
"""The longest wait for the resolver, for a connection, and for a TLS handshake."""

READ_SECONDS = 20.0
"""The longest wait for the next bytes."""

WHOLE_SECONDS = 120.0
"""A whole download, redirects included."""

DOWNLOAD_BYTES = 64 << 20
"""A picture."""

REDIRECTS = 5
"""How often a URL may lead to another one."""

CACHE_BYTES = 1 << 30
"""All pictures that are kept, together."""
