"""An https server on this machine, with the certificate in tests/nodes/certificate, that answers as a test says.

The certificate is trusted by nobody but these tests; its key is here for everyone to see.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

CERTIFICATE = Path(__file__).parent / "certificate" / "certificate.pem"


class Request(NamedTuple):
    path: str
    headers: dict[str, str]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.path, headers))
        self.close_connection = True
        with contextlib.suppress(OSError):  # whoever asked may be gone
            self.server.answers[self.path](self)

    def give(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        """Answer; a ``length`` of -1 leaves Content-Length out."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length != -1:
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class PictureServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_name("key.pem"))
        # the handshake is left to the thread of the request, so that one that fails stops nothing
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.answers: dict[str, Callable[[Handler], object]] = {}
        self.requests: list[Request] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def url(self, path: str, host: str = "localhost") -> str:
        return f"https://{host}:{self.server_address[1]}{path}"

    def gives(self, path: str, content: bytes, headers: dict[str, str] | None = None) -> str:
        """Answer a path with a content; returns its URL."""
        self.answers[path] = lambda handler: handler.give(200, content, headers)
        return self.url(path)

    def redirects(self, path: str, target: str, status: int = 302) -> str:
        self.answers[path] = lambda handler: handler.give(status, headers={"Location": target})
        return self.url(path)

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


@contextlib.contextmanager
def serving() -> Iterator[PictureServer]:
    server = PictureServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def tunnelling(server: PictureServer, status: str = "200 Connection established") -> Iterator[tuple[int, list[str]]]:
    """A proxy whose tunnels all lead to ``server``: its port, and the requests that it was sent."""
    listening = socket.create_server(("127.0.0.1", 0))
    requests: list[str] = []
    opened = contextlib.ExitStack()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client = opened.enter_context(listening.accept()[0])
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    def serve(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = client.recv(1000)
            if not received:
                return
            head += received
        requests.append(head.decode())
        client.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
        if not status.startswith("200"):
            with contextlib.suppress(OSError):  # whoever was refused may be done with it, and the test with the proxy
                client.shutdown(socket.SHUT_RDWR)
            return
        address = ("127.0.0.1", server.server_address[1])
        upstream = opened.enter_context(socket.create_connection(address))
        for source, target in ((client, upstream), (upstream, client)):
            threading.Thread(target=pump, args=(source, target), daemon=True).start()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1], requests
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        opened.close()
