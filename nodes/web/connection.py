"""A TLS connection to an address that was checked, with a bound on every wait.

The host is resolved once, and the connection goes to the address that was looked at then: a name that changes its mind
(DNS rebinding) changes nothing. The certificate is checked for the name.

Where the environment names a proxy for https (``https_proxy``, ``no_proxy``), it is used, as everywhere else, and the
proxy resolves the name. Addresses, and names that resolve here too, are checked before it is asked; for names that only
the proxy knows, where it connects to is up to the proxy. The certificate is checked for the name all the same.
"""

from __future__ import annotations

import base64
import http.client
import io
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from graphflow import Problem
from graphflow.nodes.web import transfer
from graphflow.nodes.web.address import SocketAddress, refusal, resolve
from graphflow.nodes.web.url import Url

__all__ = ["Deadline", "DownloadError", "connected"]


class DownloadError(Exception):
    """Something could not be downloaded. ``passing``: another time it may well be, so an older copy will do."""

    def __init__(self, problem: Problem, *, passing: bool = False) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.passing = passing


class Deadline:
    """The end of the time that a whole download may take."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, most: float) -> float:
        """Return the longest next wait, in seconds. Raises TimeoutError where no time is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the download took too long")
        return min(most, left)


@contextmanager
def connected(url: Url, deadline: Deadline) -> Iterator[http.client.HTTPConnection]:
    """Open a connection to the host of a URL, closed at the end.

    Raises DownloadError for an address that may not be asked, and OSError (TimeoutError, socket.gaierror, ssl.SSLError)
    or http.client.HTTPException for what goes wrong on the way.
    """
    proxy = None if urllib.request.proxy_bypass(url.authority) else urllib.request.getproxies().get("https")
    plain = _through_proxy(proxy, url, deadline) if proxy else _direct(url, deadline)
    with plain:
        plain.settimeout(deadline.left(transfer.CONNECT_SECONDS))
        with ssl.create_default_context().wrap_socket(plain, server_hostname=url.host.rstrip(".")) as secure:
            connection = http.client.HTTPConnection(url.host, url.port)
            connection.sock = _Bounded.of(secure, deadline)
            yield connection


def _direct(url: Url, deadline: Deadline) -> socket.socket:
    addresses = resolve(url.host, url.port, deadline.left(transfer.CONNECT_SECONDS))
    _refuse_private(url.host, addresses)
    return _connect(addresses, deadline)


def _refuse_private(host: str, addresses: list[SocketAddress]) -> None:
    for _, text, _ in addresses:
        problem = refusal(host, text)
        if problem is not None:
            raise DownloadError(problem)


def _connect(addresses: list[SocketAddress], deadline: Deadline) -> socket.socket:
    failure: OSError = OSError("the name has no address")
    for family, _, place in addresses:
        plain = socket.socket(family, socket.SOCK_STREAM)
        try:
            plain.settimeout(deadline.left(transfer.CONNECT_SECONDS))
            plain.connect(place)
            return plain
        except OSError as error:
            plain.close()
            failure = error
    raise failure


def _through_proxy(proxy: str, url: Url, deadline: Deadline) -> socket.socket:
    """Open a tunnel (CONNECT, RFC 9110, section 9.3.6) to the host."""
    hint = "name one that speaks http, as in https_proxy=http://proxy:3128, or except the host with no_proxy"
    try:
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = parts.port or 8080
    except ValueError as error:
        raise DownloadError(Problem("url.proxy", f"https_proxy cannot be read: {error}", hint=hint)) from error
    if parts.scheme != "http" or not parts.hostname:
        message = f"found a proxy of the kind {parts.scheme}://, expected http://"
        raise DownloadError(Problem("url.proxy", message, hint=hint))
    with suppress(socket.gaierror, TimeoutError):  # a name that only the proxy knows
        _refuse_private(url.host, resolve(url.host, url.port, deadline.left(transfer.CONNECT_SECONDS)))
    try:
        plain = _connect(resolve(parts.hostname, port, deadline.left(transfer.CONNECT_SECONDS)), deadline)
    except OSError as error:
        message = f"the proxy {parts.hostname} cannot be reached: {error.strerror or error}"
        raise DownloadError(Problem("missing.connection", message, hint=hint), passing=True) from error
    try:
        host = f"[{url.host}]" if ":" in url.host else url.host
        lines = [f"CONNECT {host}:{url.port} HTTP/1.1", f"Host: {host}:{url.port}"]
        if parts.username is not None:
            user = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}")
        bounded = _Bounded.of(plain, deadline)
        bounded.sendall("\r\n".join([*lines, "", ""]).encode())
        response = http.client.HTTPResponse(bounded, method="CONNECT")
        response.begin()
        if response.status != 200:
            message = f"the proxy {parts.hostname} refused the connection: {response.status} {response.reason}"
            raise DownloadError(Problem("missing.connection", message, hint="ask who runs the proxy"), passing=True)
    except BaseException:
        plain.close()
        raise
    return plain


class _Bounded:
    """Socket for http.client, whose waits end with the deadline. Closing is left to the real socket."""

    def __init__(self, real: socket.socket, deadline: Deadline) -> None:
        self._real, self._deadline = real, deadline

    @classmethod
    def of(cls, real: socket.socket, deadline: Deadline) -> Any:
        return cls(real, deadline)

    def sendall(self, data: bytes) -> None:
        self._real.settimeout(self._deadline.left(transfer.READ_SECONDS))
        self._real.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._real, self._deadline))

    def close(self) -> None:
        pass


class _Reader(io.RawIOBase):
    def __init__(self, real: socket.socket, deadline: Deadline) -> None:
        self._real, self._deadline = real, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._real.settimeout(self._deadline.left(transfer.READ_SECONDS))
        return self._real.recv_into(buffer)
