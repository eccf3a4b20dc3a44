"""The pages are executed: code runs, files validate, commands succeed, links lead somewhere.

Blocks of one page run in order and share their names. ``<!-- not run: reason -->`` before a block excepts it.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import graphflow as gf
from graphflow.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FEW = 6
"""Denoise steps of the workflows that are run: the least of which the smallest strength of the pages leaves one."""
LINKED = [*PAGES, *ROOT.glob("[A-Z]*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]

_FENCE = re.compile(
    r"^(?P<reason><!-- not run:[^\n]*-->\n+)?(?:<!--[^\n]*-->\n+)?"
    r"(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    runs: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(match["language"], match["text"], line, match["reason"] is None))
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the pages name by relative paths, as the current folder; its workflows draw in few steps."""
    for name in ("workflows", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "workflows").glob("*.json"):
        document = json.loads(path.read_bytes())
        for node in document["nodes"].values():
            if node["type"] in ("Text2Image", "Image2Image", "ControlNetDepth"):
                node.setdefault("steps", FEW)
        path.write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@contextlib.contextmanager
def module_of(page: Path) -> Iterator[dict[str, Any]]:
    """The names of a page, in a module of their own: annotations are looked up there."""
    module = ModuleType(f"page_{page.stem.replace('-', '_').lower()}")
    sys.modules[module.__name__] = module
    try:
        yield vars(module)
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_python_of_a_page_runs_and_its_workflows_validate(page: Path, copy: Path) -> None:
    with module_of(page) as names:
        for block in blocks(page):
            if block.language == "python" and block.runs:
                place = "\n" * (block.line)  # so that a traceback names the line of the page
                exec(compile(place + block.text, str(page), "exec"), names)
        # a page on nodes may bring its own
        registry = names.get("registry") or gf.default_registry()
        for block in blocks(page):
            if block.language == "json" and block.runs and '"graphflow"' in block.text:
                assert isinstance(json.loads(block.text), dict)
                gf.bind(gf.loads(block.text), registry=registry, checking=True)


def commands(page: Path) -> list[tuple[int, str]]:
    """The graphflow commands of a page with their lines; the ones of a console block stand after a ``$``."""
    found = []
    for block in blocks(page):
        if block.language not in ("sh", "bash", "shell", "console") or not block.runs:
            continue
        text = block.text.replace("\\\n", " " * 2)
        for offset, line in enumerate(text.splitlines()):
            words = line.strip().removeprefix("$ ")
            if words.startswith("graphflow "):
                found.append((block.line + 1 + offset, words))
    return found


def expanded(command: str) -> list[str]:
    """The words of a command as a shell gives them: without comments, file patterns filled in."""
    words: list[str] = []
    for word in shlex.split(command, comments=True)[1:]:
        matches = sorted(map(str, Path().glob(word))) if any(sign in word for sign in "*?[") else []
        words += matches or [word]
    return words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_of_a_page_succeed(page: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line, command in commands(page):
        if not {"|", ">", "<", "&&", ";"}.isdisjoint(shlex.split(command, comments=True)):
            pytest.fail(f"{page}:{line}: mark this block with <!-- not run: … -->, only plain commands are run here")
        with contextlib.redirect_stderr(io.StringIO()) as told:
            status = main(expanded(command))
        assert status == 0, f"{page}:{line}: {command}\n{told.getvalue()}"
    capsys.readouterr()


@pytest.mark.parametrize("page", sorted(set(LINKED)), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text())
    missing = []
    for match in _LINK.finditer(text):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            missing.append(match["target"])
    assert not missing


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    text = _FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(set(LINKED)), ids=name_of)
def test_no_page_holds_both_sides_of_a_merge(page: Path) -> None:
    assert not re.search(r"^(<{7}|>{7})", page.read_text(), re.MULTILINE)


def test_there_is_something_to_run() -> None:
    counted = [block for page in PAGES for block in blocks(page)]
    assert sum(block.language == "python" for block in counted) >= 5
    assert any(commands(page) for page in PAGES)
