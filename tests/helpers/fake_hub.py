"""A Hugging Face Hub on this machine, with the few routes that fetching a model takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by name, each with its files; ``gated`` ones want a token."""

    repositories: dict[str, Mapping[str, bytes]]
    cards: dict[str, dict[str, object]] = field(default_factory=dict)
    gated: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)
    """Downloads in order, as ``repository/file``."""
    tokens: list[str] = field(default_factory=list)
    endpoint: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            words = unquote(urlsplit(self.path).path).strip("/").split("/")
            if words[:2] == ["api", "models"]:
                self._describe("/".join(words[2:4]), words[5] if "revision" in words else "main")
            elif "resolve" in words:
                self._file("/".join(words[:2]), words[3], "/".join(words[4:]), body=body)
            else:
                self._refuse(404, "EntryNotFound")

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _known(self, repository: str, revision: str) -> bool:
            authorization = self.headers.get("authorization", "")
            hub.tokens.append(authorization)
            if repository not in hub.repositories:
                self._refuse(401, "RepoNotFound")
            elif repository in hub.gated and not authorization:
                self._refuse(403, "GatedRepo")
            elif revision not in ("main", COMMIT):
                self._refuse(404, "RevisionNotFound")
            else:
                return True
            return False

        def _describe(self, repository: str, revision: str) -> None:
            if not self._known(repository, revision):
                return
            files = hub.repositories[repository]
            data = json.dumps(
                {
                    "id": repository,
                    "sha": COMMIT,
                    "private": False,
                    "tags": [],
                    "downloads": 0,
                    "cardData": hub.cards.get(repository, {}),
                    "siblings": [{"rfilename": name, "size": len(content)} for name, content in files.items()],
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _file(self, repository: str, revision: str, name: str, *, body: bool) -> None:
            if not self._known(repository, revision):
                return
            content = hub.repositories[repository].get(name)
            if content is None:
                self._refuse(404, "EntryNotFound")
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                hub.asked.append(f"{repository}/{name}")
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
