"""Pictures at https URLs, read from a server on this machine through the command line and Python."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import graphflow as gf
from graphflow.cli import main
from graphflow.nodes import LoadDepthMap, LoadImage, ResizeImage
from graphflow.nodes.web import transfer
from tests.helpers.image_files import encoded
from tests.helpers.picture_server import CERTIFICATE, Handler, PictureServer, serving, tunnelling
from tests.helpers.recorder import Recorder

PNG = encoded(30, 20, "PNG")
OTHER = encoded(24, 16, "PNG")


class Done(NamedTuple):
    status: int
    out: str
    err: str
    codes: list[str]


class Commands:
    """The command line in this process, in a folder of its own, and the workflow that it is given."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, command: str, url: str, *options: str) -> Done:
        nodes = {"photo": {"type": "LoadImage", "path": url}}
        if command == "run":
            nodes["save"] = {"type": "SaveImage", "image": {"from": "photo"}, "name": "copy"}  # type: ignore[dict-item]
            options = (*options, "--out", str(self.folder / "out"))
        file = self.folder / "flow.json"
        file.write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
        return self.call(command, str(file), *options)

    def call(self, *words: str) -> Done:
        self._capsys.readouterr()
        status = main(list(words))
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        codes = [line.rpartition(" [")[2][:-1] for line in err.splitlines() if line.endswith("]") and " [" in line]
        return Done(status, out, err, codes)

    def key(self, url: str, *options: str) -> str:
        done = self("plan", url, "--json", *options)
        assert done.status == 0, done.err
        return str(json.loads(done.out)["steps"][0]["key"])


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with serving() as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "downloads"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES", "1")
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "GRAPHFLOW_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def graphflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, capsys)


def contents(cache: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (cache / "content").iterdir()) if cache.exists() else []


# What works -----------------------------------------------------------------------------------------------------------


def test_a_picture_is_read_and_kept_once_under_its_hash(
    server: PictureServer, graphflow: Commands, cache: Path, tmp_path: Path, context: Recorder
) -> None:
    done = graphflow("run", server.gives("/cat.png?size=1", PNG))
    assert done.status == 0, done.err
    (tmp_path / "local.png").write_bytes(PNG)
    saved = LoadImage(path=str(tmp_path / "out" / "copy.png")).run(context=context)
    assert torch.equal(saved.pixels, LoadImage(path=str(tmp_path / "local.png")).run(context=context).pixels)
    assert server.paths() == ["/cat.png?size=1"], "one request for binding, planning, running and the manifest"
    assert contents(cache) == [PNG]
    (content,) = (cache / "content").iterdir()
    manifest = json.loads(next((tmp_path / "out" / "manifests").iterdir()).read_text())
    assert manifest["steps"][0]["identity"] == content.name
    assert graphflow("run", server.gives("/same.png", PNG)).status == 0
    assert contents(cache) == [PNG]


def test_a_url_may_be_given_wherever_a_path_may(
    server: PictureServer, graphflow: Commands, tmp_path: Path, context: Recorder
) -> None:
    url = server.gives("/cat.png", PNG)
    document = {
        "graphflow": 1,
        "inputs": {"file": {"type": "text"}, "photo": {"type": "image"}, "depth": {"type": "depth_map"}},
        "nodes": {
            "load": {"type": "LoadImage", "path": {"input": "file"}},
            "one": {"type": "SaveImage", "image": {"from": "load"}, "name": "one"},
            "two": {"type": "SaveImage", "image": {"input": "photo"}, "name": "two"},
            "three": {"type": "SaveDepthMap", "depth_map": {"input": "depth"}, "name": "three"},
            "small": {"type": "ResizeImage", "image": {"input": "photo"}, "width": 8, "height": 8},
        },
        "outputs": {"small": {"from": "small"}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(document))
    values = [word for name in ("file", "photo", "depth") for word in ("--set", f"{name}={url}")]
    done = graphflow.call("run", str(tmp_path / "flow.json"), *values, "--out", str(tmp_path / "out"))
    assert done.status == 0, done.err
    assert {Path(line).name for line in done.out.split()} == {"one.png", "two.png", "three.png", "flow-small.png"}
    assert server.paths() == ["/cat.png"] * 2, "once for LoadImage, once for LoadDepthMap"
    run = gf.load(tmp_path / "flow.json").run(file=url, photo=url, depth=url, out=tmp_path / "again", device="cpu")
    assert (run["load"].width, run["load"].height) == (30, 20)


def test_a_node_by_itself_downloads_when_it_runs(server: PictureServer, context: Recorder) -> None:
    node = LoadImage(path=server.gives("/cat.png", PNG))
    assert node.identity() is None
    assert node.run(context=context).width == 30
    assert node.identity() is not None
    assert LoadDepthMap(path=server.gives("/depth.png", PNG)).run(context=context).pixels.shape == (1, 1, 20, 30)
    with pytest.raises(gf.MissingError, match=r"404.*\[missing.status\]"):
        LoadImage(path=_missing(server)).run(context=context)


def _missing(server: PictureServer) -> str:
    server.answers["/missing.png"] = lambda handler: handler.give(404, b"<html>no such page</html>")
    return server.url("/missing.png")


def test_redirects_are_followed(server: PictureServer, graphflow: Commands) -> None:
    server.gives("/there.png", PNG)
    server.redirects("/four", server.url("/there.png"), 308)
    for index, (path, target) in enumerate((("/three", "four"), ("/two", "/three"), ("/one", "./two"))):
        server.redirects(path, target, (301, 303, 307)[index])
    done = graphflow("plan", server.redirects("/zero", "/one"))
    assert done.status == 0, done.err
    assert server.paths() == ["/zero", "/one", "/two", "/three", "/four", "/there.png"]


def test_chunked_answers_are_read(server: PictureServer, graphflow: Commands, cache: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.give(200, headers={"Transfer-Encoding": "chunked"}, length=-1)
        for piece in (PNG[:10], PNG[10:], b""):
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    server.answers["/cat.png"] = answer
    assert graphflow("plan", server.url("/cat.png")).status == 0
    assert contents(cache) == [PNG]


def test_the_size_is_known_once_the_picture_is_there_and_faults_of_it_are_reported_before_the_run(
    server: PictureServer, graphflow: Commands, tmp_path: Path
) -> None:
    url = server.gives("/odd.png", encoded(31, 21, "PNG"))
    nodes = {
        "photo": {"type": "LoadImage", "path": url},
        "latent": {"type": "EncodeImage", "image": {"from": "photo"}, "model": "pocket"},
    }
    file = tmp_path / "flow.json"
    file.write_text(json.dumps({"graphflow": 1, "nodes": nodes, "outputs": {"latent": {"from": "latent"}}}))
    assert graphflow.call("validate", str(file)).status == 0, "a size that is not known is no fault"
    assert server.requests == []
    done = graphflow.call("run", str(file), "--out", str(tmp_path / "out"))
    assert done.status == 2
    assert "31" in done.err and "nothing was run" in done.err
    assert graphflow.call("validate", str(file)).status == 2, "it is in the cache now, so its size is known"
    assert len(server.requests) == 1


# The cache ------------------------------------------------------------------------------------------------------------


def _with_validator(server: PictureServer, path: str, content: bytes, name: str, value: str, condition: str) -> str:
    def answer(handler: Handler) -> None:
        if handler.headers.get(condition) == value:
            handler.give(304, headers={name: value})
        else:
            handler.give(200, content, {name: value})

    server.answers[path] = answer
    return server.url(path)


@pytest.mark.parametrize(
    ("name", "value", "condition"),
    [
        ("ETag", '"abc"', "If-None-Match"),
        ("ETag", 'W/"abc"', "If-None-Match"),
        ("Last-Modified", "Tue, 01 Sep 2026 10:00:00 GMT", "If-Modified-Since"),
    ],
)
def test_an_unchanged_picture_is_not_sent_again_and_a_changed_one_is_another_step(
    name: str, value: str, condition: str, server: PictureServer, graphflow: Commands, cache: Path
) -> None:
    url = _with_validator(server, "/cat.png", PNG, name, value, condition)
    first = graphflow.key(url)
    assert graphflow.key(url) == first
    assert [request.headers.get(condition.lower()) for request in server.requests] == [None, value]
    assert contents(cache) == [PNG]
    _with_validator(server, "/cat.png", OTHER, name, value.replace("abc", "def").replace("2026", "2027"), condition)
    assert graphflow.key(url) != first
    assert contents(cache) == sorted([PNG, OTHER])


def test_conditions_are_sent_only_where_the_content_came_from(server: PictureServer, graphflow: Commands) -> None:
    _with_validator(server, "/there.png", PNG, "ETag", '"abc"', "If-None-Match")
    url = server.redirects("/cat.png", "/there.png")
    assert graphflow.key(url) == graphflow.key(url)
    conditions = [(request.path, request.headers.get("if-none-match")) for request in server.requests]
    assert conditions[2:] == [("/cat.png", None), ("/there.png", '"abc"')]


class Brightness(gf.Node, version=1):
    """The mean of all values of an image."""

    def run(self, *, image: gf.Image) -> float:
        return float(image.pixels.mean())


def test_what_is_made_of_an_equal_picture_is_not_computed_twice(server: PictureServer) -> None:
    url = server.gives("/cat.png", PNG)
    w = gf.Workflow()
    w.output("brightness", w.add("brightness", Brightness(), image=w.add("photo", LoadImage(path=url))))
    registry, store = gf.Registry([*gf.default_registry().values(), Brightness]), gf.MemoryCache()

    def states() -> list[str]:
        run = w.run(cache=store, device="cpu", registry=registry)
        return [record.state for record in run.outcome.records]

    assert states() == ["ran", "ran"]
    assert states() == ["unneeded", "cached"]
    server.gives("/cat.png", OTHER)
    assert states() == ["ran", "ran"]


def test_a_graph_reads_what_it_was_planned_with_whatever_the_server_gives_later(server: PictureServer) -> None:
    w = gf.Workflow()
    w.output("photo", w.add("photo", LoadImage(path=server.gives("/cat.png", PNG))))
    planned = gf.plan(w.bind())
    server.gives("/cat.png", OTHER)
    assert w.plan().steps[0].key != planned.steps[0].key
    assert gf.execute(planned).results["photo"].width == 30


def test_without_the_server_the_copy_is_used_with_a_warning(graphflow: Commands) -> None:
    with serving() as server:
        url = server.gives("/cat.png", PNG)
        first = graphflow.key(url)
    done = graphflow("plan", url, "--json")
    assert (done.status, done.codes) == (0, ["url.stale"])
    assert "warning" in done.err and "the copy of 20" in done.err
    assert json.loads(done.out)["steps"][0]["key"] == first
    assert "copy of" in graphflow("run", url).err


def test_a_server_in_trouble_leaves_the_copy_and_one_that_says_no_does_not(
    server: PictureServer, graphflow: Commands
) -> None:
    url = server.gives("/cat.png", PNG)
    assert graphflow("plan", url).status == 0
    server.answers["/cat.png"] = lambda handler: handler.give(503)
    assert graphflow("plan", url).codes == ["url.stale"]
    server.answers["/cat.png"] = lambda handler: handler.give(410)
    assert graphflow("plan", url).codes == ["missing.status"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"sha256": 5}', '{"url": "x", "sha256": "../../../x"}', "[" * 9999]
)
def test_a_broken_index_costs_one_download(text: str, server: PictureServer, graphflow: Commands, cache: Path) -> None:
    url = _with_validator(server, "/cat.png", PNG, "ETag", '"abc"', "If-None-Match")
    first = graphflow.key(url)
    (entry,) = (cache / "urls").iterdir()
    entry.write_text(text)
    assert graphflow("validate", url).status == 0
    assert graphflow.key(url) == first
    assert server.requests[-1].headers.get("if-none-match") is None
    assert json.loads(entry.read_text())["url"] == url


def test_a_broken_content_is_downloaded_again(server: PictureServer, graphflow: Commands, cache: Path) -> None:
    url = _with_validator(server, "/cat.png", PNG, "ETag", '"abc"', "If-None-Match")
    first = graphflow.key(url)
    (content,) = (cache / "content").iterdir()
    content.write_bytes(PNG[:50])
    assert graphflow("plan", url, "--offline").codes == ["missing.download"]
    assert graphflow.key(url) == first
    assert contents(cache) == [PNG]


def test_an_etag_that_is_no_header_is_not_sent(server: PictureServer, graphflow: Commands, cache: Path) -> None:
    url = server.gives("/cat.png", PNG, {"ETag": '"abc"'})
    assert graphflow("plan", url).status == 0
    (entry,) = (cache / "urls").iterdir()
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"etag": "a\r\nX-Other: b"}))
    assert graphflow("plan", url).status == 0
    assert {"if-none-match", "x-other"} & set(server.requests[-1].headers) == set()


def test_what_was_used_least_recently_is_removed_first(
    server: PictureServer, graphflow: Commands, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [encoded(20 + index, 20, "BMP") for index in range(4)]
    monkeypatch.setattr(transfer, "CACHE_BYTES", sum(map(len, pictures[:3])) + 10)
    urls = [server.gives(f"/{index}.bmp", content) for index, content in enumerate(pictures)]
    for url in urls[:3]:
        assert graphflow("plan", url).status == 0
        time.sleep(0.02)  # so that the times of two files differ
    assert graphflow("plan", urls[0], "--offline").status == 0  # used again
    assert graphflow("plan", urls[3]).status == 0
    kept = [graphflow("plan", url, "--offline").status for url in urls]
    assert kept[0] == kept[3] == 0 and kept[1] == 3
    assert sum(map(len, contents(cache))) <= transfer.CACHE_BYTES
    assert len(list((cache / "urls").iterdir())) == len(contents(cache)), "what is known of removed ones goes too"


def test_the_cache_lies_where_the_user_keeps_caches(
    server: PictureServer, graphflow: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    url = server.gives("/cat.png", PNG)
    assert graphflow("plan", url).status == 0
    assert contents(tmp_path / "xdg/graphflow/downloads") == [PNG]
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert graphflow("plan", url).status == 0
    assert contents(tmp_path / "home/.cache/graphflow/downloads") == [PNG]
    assert (tmp_path / "home/.cache/graphflow/downloads").stat().st_mode & 0o077 == 0, "nobody else's business"


def test_a_cache_that_cannot_be_written_is_reported(
    server: PictureServer, graphflow: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHFLOW_CACHE", str(tmp_path / "file"))
    done = graphflow("plan", server.gives("/cat.png", PNG))
    assert (done.status, done.codes) == (2, ["file.unwritable"])
    assert "GRAPHFLOW_CACHE names another folder" in done.err


# Offline --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["--offline", "GRAPHFLOW_OFFLINE"])
@pytest.mark.parametrize("command", ["run", "plan", "validate"])
def test_offline_nobody_is_asked_and_what_is_missing_is_reported(
    command: str, way: str, server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.gives("/cat.png", PNG)

    def offline() -> Done:
        with monkeypatch.context() as changed:
            changed.setattr(socket, "getaddrinfo", _must_not_be_asked)
            if way == "GRAPHFLOW_OFFLINE":
                changed.setenv("GRAPHFLOW_OFFLINE", "1")
                return graphflow(command, url)
            return graphflow(command, url, "--offline")

    done = offline()
    assert (done.status, done.codes) == (3, ["missing.download"])
    assert "--offline" in done.err and "path of a local copy" in done.err
    assert graphflow("plan", url).status == 0
    done = offline()
    assert (done.status, done.codes) == (0, [])
    assert len(server.requests) == 1


def _must_not_be_asked(*_: Any, **__: Any) -> Any:
    raise AssertionError("the network was touched")


def test_offline_in_python(server: PictureServer, tmp_path: Path) -> None:
    w = gf.Workflow()
    w.output("photo", w.add("photo", LoadImage(path=server.gives("/cat.png", PNG))))
    assert w.validate() == []
    assert [problem.code for problem in w.validate(offline=True)] == ["missing.download"]
    with pytest.raises(gf.MissingError):
        w.plan(offline=True)
    with pytest.raises(gf.MissingError):
        w.run(offline=True)
    w.plan()
    assert w.run(offline=True, out=tmp_path)["photo"].width == 30
    assert server.paths() == ["/cat.png"]


def test_validate_touches_no_network_and_a_broken_workflow_neither(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _must_not_be_asked)
    url = server.gives("/cat.png", PNG)
    assert graphflow("validate", url).status == 0
    assert graphflow.call("draw", str(tmp_path / "flow.json"), "--expanded").status == 0
    assert graphflow.call("workflows", str(tmp_path / "flow.json")).status == 0
    nodes = {"photo": {"type": "LoadImage", "path": url}, "other": {"type": "LoadImage", "path": "none.png"}}
    (tmp_path / "flow.json").write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
    assert graphflow.call("run", str(tmp_path / "flow.json")).codes == ["missing.file"]
    assert server.requests == []


# What fails -----------------------------------------------------------------------------------------------------------


def test_every_picture_that_cannot_be_had_is_reported_at_its_place(
    server: PictureServer, graphflow: Commands, tmp_path: Path
) -> None:
    paths = [_missing(server), server.gives("/page.png", b"<html>hello</html>"), server.gives("/good.png", PNG)]
    nodes = {f"photo{index}": {"type": "LoadImage", "path": path} for index, path in enumerate(paths)}
    (tmp_path / "flow.json").write_text(json.dumps({"graphflow": 1, "nodes": nodes}, indent=1))
    done = graphflow.call("plan", str(tmp_path / "flow.json"))
    assert (done.status, done.codes) == (2, ["missing.status", "file.not_an_image"])
    assert "flow.json:6:12: node 'photo0', field 'path'" in done.err
    assert "flow.json:10:12: node 'photo1', field 'path'" in done.err


def test_http_status(server: PictureServer, graphflow: Commands, cache: Path) -> None:
    done = graphflow("run", _missing(server))
    assert (done.status, done.codes) == (3, ["missing.status"])
    assert "/missing.png was answered with 404 Not Found" in done.err
    assert contents(cache) == []


@pytest.mark.parametrize(
    ("content", "code", "reported"),
    [
        (b"<!doctype html><title>Log in</title>", "file.not_an_image", "/cat.png is an HTML page"),
        (b"", "file.not_an_image", "/cat.png"),
        (b"hello", "file.not_an_image", "is a text file"),
        (PNG[:-20], "file.truncated", "ends too early"),
    ],
)
def test_only_pictures_are_kept(
    content: bytes, code: str, reported: str, server: PictureServer, graphflow: Commands, cache: Path
) -> None:
    done = graphflow("plan", server.gives("/cat.png", content, {"Content-Type": "image/png"}))
    assert (done.status, done.codes) == (2, [code])
    assert reported in done.err
    assert contents(cache) == []


def test_a_transfer_that_breaks_off(server: PictureServer, graphflow: Commands, cache: Path) -> None:
    server.answers["/cat.png"] = lambda handler: handler.give(200, PNG[:40], length=len(PNG))
    done = graphflow("plan", server.url("/cat.png"))
    assert (done.status, done.codes) == (3, ["missing.connection"])
    assert f"broke off after 40 of {len(PNG)} bytes" in done.err
    assert contents(cache) == []


def test_redirects_in_a_circle_and_too_many(server: PictureServer, graphflow: Commands) -> None:
    server.redirects("/a", "/b")
    done = graphflow("plan", server.redirects("/b", "/a"))
    assert (done.status, done.codes) == (2, ["url.redirects"])
    assert len(server.requests) == 1 + transfer.REDIRECTS


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("http://localhost/cat.png", "url.scheme"),
        ("file:///etc/passwd", "url.scheme"),
        ("https://user:word@localhost/cat.png", "url.form"),
    ],
)
def test_a_redirect_to_what_is_not_read(target: str, code: str, server: PictureServer, graphflow: Commands) -> None:
    done = graphflow("plan", server.redirects("/cat.png", target))
    assert (done.status, done.codes) == (2, [code])
    assert "/cat.png is redirected to what is not read" in done.err


def test_what_is_said_to_be_too_large_is_not_read(server: PictureServer, graphflow: Commands, cache: Path) -> None:
    server.answers["/cat.png"] = lambda handler: handler.give(200, PNG, length=transfer.DOWNLOAD_BYTES + 1)
    done = graphflow("plan", server.url("/cat.png"))
    assert (done.status, done.codes) == (2, ["url.too_large"])
    assert "has 67108865 bytes, expected at most 67108864 (64 MiB)" in done.err


@pytest.mark.parametrize("chunked", [False, True])
def test_what_turns_out_to_be_too_large_is_left(
    chunked: bool, server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(transfer, "DOWNLOAD_BYTES", 1 << 20)
    sent = [0]

    def answer(handler: Handler) -> None:
        handler.give(200, headers={"Transfer-Encoding": "chunked"} if chunked else {}, length=-1)
        piece = PNG + bytes(65536 - len(PNG))
        while sent[0] < 1 << 30:
            handler.wfile.write(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
            sent[0] += len(piece)

    server.answers["/cat.png"] = answer
    done = graphflow("plan", server.url("/cat.png"))
    assert (done.status, done.codes) == (2, ["url.too_large"])
    assert sent[0] < 1 << 26, "the connection was closed"
    assert contents(cache) == []


@pytest.mark.parametrize("part", ["answer", "headers", "content"])
def test_a_server_that_does_not_go_on(
    part: str, server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "READ_SECONDS", 0.3)

    def answer(handler: Handler) -> None:
        if part == "headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-")
        elif part == "content":
            handler.give(200, PNG[:40], length=len(PNG))
        handler.wfile.flush()
        time.sleep(3)

    server.answers["/cat.png"] = answer
    done = graphflow("plan", server.url("/cat.png"))
    assert (done.status, done.codes) == (3, ["missing.answer"])
    assert "/cat.png did not answer in time: 10 s to connect, 0.3 s for the next bytes, 120 s in all" in done.err


@pytest.mark.parametrize("part", ["headers", "content"])
def test_a_server_that_goes_on_forever_byte_by_byte(
    part: str, server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "WHOLE_SECONDS", 0.8)

    def answer(handler: Handler) -> None:
        if part == "headers":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Name: ")
        else:
            handler.give(200, length=1 << 20)
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    server.answers["/cat.png"] = answer
    assert graphflow("plan", server.url("/cat.png")).codes == ["missing.answer"]


def test_a_name_that_is_not_resolved_in_time(graphflow: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3))
    assert graphflow("plan", "https://pictures.example/cat.png").codes == ["missing.answer"]


def test_a_name_that_does_not_exist(graphflow: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    done = graphflow("plan", "https://pictures.example/cat.png")
    assert (done.status, done.codes) == (3, ["missing.host"])
    assert "the name pictures.example was not found: Name or service not known" in done.err


def test_nobody_listens(graphflow: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = graphflow("plan", f"https://127.0.0.1:{port}/cat.png")
    assert (done.status, done.codes) == (3, ["missing.connection"])
    assert "Connection refused" in done.err


def test_a_certificate_that_nobody_vouches_for(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nobody.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nobody.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    done = graphflow("plan", server.gives("/cat.png", PNG))
    assert (done.status, done.codes) == (2, ["url.certificate"])
    assert "self-signed certificate" in done.err and "SSL_CERT_FILE" in done.err
    assert server.requests == [], "nothing was asked of a server that is not known"


def test_a_certificate_for_another_name(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **named: real("127.0.0.1", *rest, **named))
    server.gives("/cat.png", PNG)
    assert graphflow("plan", server.url("/cat.png", "pictures.example")).status == 0
    assert server.requests[-1].headers["host"] == f"pictures.example:{server.server_address[1]}"
    assert graphflow("plan", server.url("/cat.png", "other.example")).codes == ["url.certificate"]


def test_an_answer_that_is_no_http(graphflow: Commands, server: PictureServer) -> None:
    server.answers["/cat.png"] = lambda handler: handler.wfile.write(b"220 mail.example ESMTP\r\n")
    assert graphflow("plan", server.url("/cat.png")).codes == ["missing.connection"]


# Private addresses ----------------------------------------------------------------------------------------------------


def test_private_addresses_are_refused_unless_they_are_allowed(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES")
    url = server.gives("/cat.png", PNG)
    done = graphflow("plan", url)
    assert (done.status, done.codes) == (2, ["url.address"])
    assert "GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES=1" in done.err
    assert graphflow("validate", server.url("/cat.png", "127.0.0.1")).codes == ["url.address"]
    assert graphflow("validate", "https://[::ffff:127.0.0.1]/cat.png").codes == ["url.address"]
    assert server.requests == []


def test_a_name_that_changes_its_address_is_reached_at_the_one_that_was_checked(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES")
    asked: list[str] = []
    reached: list[Any] = []

    def rebinding(host: str, port: int, *_: Any, **__: Any) -> Any:
        asked.append(host)
        address = "8.8.8.8" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(self: socket.socket, place: Any) -> None:
        reached.append(place)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket.socket, "connect", connect)
    done = graphflow("plan", server.url("/cat.png", "pictures.example"))
    assert done.codes == ["missing.connection"]
    assert (asked, [place[0] for place in reached]) == (["pictures.example"], ["8.8.8.8"])
    assert graphflow("plan", server.url("/cat.png", "pictures.example")).codes == ["url.address"]
    assert len(reached) == 1


def test_one_private_address_among_others_is_enough_to_refuse(
    graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES")
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    monkeypatch.setattr(socket.socket, "connect", _must_not_be_asked)
    done = graphflow("plan", "https://pictures.example/cat.png")
    assert done.codes == ["url.address"]
    assert "pictures.example has the address 10.0.0.1" in done.err


def test_the_address_behind_a_redirect_is_checked_too(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the server itself passes for a public one
    monkeypatch.delenv("GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES")
    monkeypatch.setattr("graphflow.nodes.web.address.is_public", lambda address: address == "127.0.0.1")
    server.redirects("/cat.png", "https://169.254.169.254/latest/meta-data")
    done = graphflow("plan", server.url("/cat.png", "127.0.0.1"))
    assert done.codes == ["url.address"]
    assert "169.254.169.254" in done.err
    assert server.paths() == ["/cat.png"]


# URLs that are refused as they stand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "http://localhost/a.png",
        "HTTP://localhost/a",
        "ftp://localhost/a.png",
        "file:///etc/passwd",
        "s3://bucket/a.png",
    ],
)
def test_other_schemes_are_refused_and_nobody_is_asked(path: str, graphflow: Commands) -> None:
    for command in ("validate", "run"):
        done = graphflow(command, path)
        assert (done.status, done.codes) == (2, ["url.scheme"])
    assert "only https is read" in done.err


def test_other_schemes_are_refused_for_inputs_and_in_python(tmp_path: Path, context: Recorder) -> None:
    w = gf.Workflow()
    w.output("photo", w.add("copy", ResizeImage(width=8, height=8), image=w.input("photo", "image")))
    for path, code in (("http://localhost/a.png", "url.scheme"), ("https://u@localhost/a.png", "url.form")):
        with pytest.raises(gf.WorkflowError) as caught:
            w.plan(photo=path)
        assert [(problem.code, problem.field) for problem in caught.value.problems] == [(code, "image")]
    with pytest.raises(gf.WorkflowError, match=r"\[url\.form\]"):
        LoadImage(path="https://u@localhost/a.png").run(context=context)


def test_a_file_whose_name_looks_like_a_url_is_named_by_a_path(graphflow: Commands, tmp_path: Path) -> None:
    (tmp_path / "https:").mkdir()
    (tmp_path / "https:" / "a.png").write_bytes(PNG)
    assert graphflow("validate", "./https:/a.png").status == 0


# Proxies --------------------------------------------------------------------------------------------------------------


def test_a_proxy_of_the_environment_is_used(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tunnelling(server) as (port, requests):
        monkeypatch.setenv("https_proxy", f"http://me:pass%20word@127.0.0.1:{port}")
        # the name is known to the proxy alone
        done = graphflow("plan", _only_the_proxy_knows(server, monkeypatch))
        assert done.status == 0, done.err
        assert server.paths() == ["/cat.png"]
        (request,) = requests
        assert request.startswith(f"CONNECT pictures.example:{server.server_address[1]} HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk\r\n" in request
        monkeypatch.setenv("no_proxy", "pictures.example")
        assert graphflow("plan", server.url("/cat.png", "pictures.example")).codes == ["url.stale"]
        assert len(requests) == 1


def _only_the_proxy_knows(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> str:
    real = socket.getaddrinfo

    def local(host: str, *rest: Any, **named: Any) -> Any:
        if host == "pictures.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    server.gives("/cat.png", PNG)
    return server.url("/cat.png", "pictures.example")


def test_behind_a_proxy_private_addresses_are_refused_as_far_as_they_are_seen(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHFLOW_ALLOW_PRIVATE_ADDRESSES")
    with tunnelling(server) as (port, requests):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        for host in ("127.0.0.1", "localhost", "2130706433"):
            assert graphflow("plan", server.url("/cat.png", host)).codes == ["url.address"]
        assert requests == []


def test_a_proxy_that_refuses_and_one_that_is_not_spoken(
    server: PictureServer, graphflow: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.gives("/cat.png", PNG)
    with tunnelling(server, status="407 Proxy Authentication Required") as (port, _):
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
        done = graphflow("plan", url)
        assert (done.status, done.codes) == (3, ["missing.connection"])
        assert "the proxy 127.0.0.1 refused the connection: 407 Proxy Authentication Required" in done.err
    done = graphflow("plan", url)
    assert (done.status, done.codes) == (3, ["missing.connection"])
    assert "the proxy 127.0.0.1 cannot be reached: Connection refused" in done.err
    for value in ("socks5://127.0.0.1:1080", "http://127.0.0.1:port"):
        monkeypatch.setenv("https_proxy", value)
        assert graphflow("plan", url).codes == ["url.proxy"]
