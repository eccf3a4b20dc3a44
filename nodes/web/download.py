"""Ask for a URL within bounds of bytes, time and redirects."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from graphflow import Problem, __version__
from graphflow.nodes.web import transfer
from graphflow.nodes.web.connection import Deadline, DownloadError, connected
from graphflow.nodes.web.transfer import Download, Validators
from graphflow.nodes.web.url import Url, parse_url

__all__ = ["download"]

_PIECE = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = "try again later, or give the path of a local copy"


def download(url: Url, known: Validators | None = None) -> Download | None:
    """Download a URL, at most `transfer.DOWNLOAD_BYTES`; None where its content is still that of ``known``.

    Every URL that it is redirected to is held to the same rules. Raises DownloadError.
    """
    deadline = Deadline(transfer.WHOLE_SECONDS)
    asked = url
    for _ in range(transfer.REDIRECTS + 1):
        with _told(asked), connected(asked, deadline) as connection:
            # the content of compressed answers would have no bound
            headers = {
                "Host": asked.authority,
                "User-Agent": f"graphflow/{__version__}",
                "Accept": "image/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
            }
            connection.request("GET", asked.target, headers=headers | _conditions(asked, known))
            response = connection.getresponse()
            if response.status == 304 and known is not None and str(asked) == known.url:
                return None
            if response.status == 200:
                content = _content(asked, response)
                etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
                return Download(content, Validators(str(asked), etag, modified))
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                raise _refused(asked, response)
            asked = _redirected(asked, location)
    message = f"{url.shown} is redirected more than {transfer.REDIRECTS} times"
    hint = "look at it in a browser, and give the URL of the picture itself"
    raise DownloadError(Problem("url.redirects", message, hint=hint))


def _conditions(url: Url, known: Validators | None) -> dict[str, str]:
    if known is None or str(url) != known.url:
        return {}
    conditions = {"If-None-Match": known.etag, "If-Modified-Since": known.last_modified}
    return {name: value for name, value in conditions.items() if value is not None}


def _redirected(asked: Url, location: str) -> Url:
    # servers send UTF-8 there, which http.client reads as Latin-1
    found = parse_url(location.encode("latin-1", "replace").decode("utf-8", "replace"), asked)
    if isinstance(found, Problem):
        message = f"{asked.shown} is redirected to what is not read: {found.message}"
        raise DownloadError(replace(found, message=message))
    return found


def _refused(url: Url, response: http.client.HTTPResponse) -> DownloadError:
    reason = f" {response.reason}" if response.reason else ""
    message = f"{url.shown} was answered with {response.status}{reason}, expected a picture"
    hint = "look at it in a browser; what needs a login is not read here"
    passing = response.status in (408, 429) or response.status >= 500
    return DownloadError(Problem("missing.status", message, hint=_TRY_AGAIN if passing else hint), passing=passing)


def _content(url: Url, response: http.client.HTTPResponse) -> bytes:
    length = response.length
    if length is not None and length > transfer.DOWNLOAD_BYTES:
        raise _too_large(url, f"{length} bytes")
    content = bytearray()
    while piece := response.read1(_PIECE):
        content += piece
        if len(content) > transfer.DOWNLOAD_BYTES:
            raise _too_large(url, f"more than {transfer.DOWNLOAD_BYTES} bytes")
    if length is not None and len(content) < length:
        message = f"{url.shown} broke off after {len(content)} of {length} bytes"
        raise DownloadError(Problem("missing.connection", message, hint=_TRY_AGAIN), passing=True)
    return bytes(content)


def _too_large(url: Url, found: str) -> DownloadError:
    message = (
        f"{url.shown} has {found}, expected at most {transfer.DOWNLOAD_BYTES} ({transfer.DOWNLOAD_BYTES >> 20} MiB)"
    )
    hint = "download it yourself, and give the path of the file"
    return DownloadError(Problem("url.too_large", message, hint=hint))


@contextmanager
def _told(url: Url) -> Iterator[None]:
    """Turn errors of the connection into a DownloadError."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        message = f"the certificate of {url.authority} is not trusted: {error.verify_message or error}"
        hint = "the environment variable SSL_CERT_FILE may name a file with the authorities that are trusted"
        raise DownloadError(Problem("url.certificate", message, hint=hint)) from error
    except TimeoutError as error:
        connect, read, whole = transfer.CONNECT_SECONDS, transfer.READ_SECONDS, transfer.WHOLE_SECONDS
        allowed = f"{connect:g} s to connect, {read:g} s for the next bytes, {whole:g} s in all"
        message = f"{url.shown} did not answer in time: {allowed}"
        raise DownloadError(Problem("missing.answer", message, hint=_TRY_AGAIN), passing=True) from error
    except socket.gaierror as error:
        message = f"the name {url.host} was not found: {error.strerror or error}"
        hint = "check its spelling and the connection"
        raise DownloadError(Problem("missing.host", message, hint=hint), passing=True) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        message = f"{url.shown} could not be read: {reason or type(error).__name__}"
        raise DownloadError(Problem("missing.connection", message, hint=_TRY_AGAIN), passing=True) from error
