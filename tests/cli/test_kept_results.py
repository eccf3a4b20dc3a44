"""Kept results on the command line: run, plan, cache, and sweeps."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.helpers.command_line import Command, Done


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A store of the test's own."""
    monkeypatch.delenv("GRAPHFLOW_NO_CACHE")
    monkeypatch.setenv("GRAPHFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "results"


def steps(done: Done) -> dict[str, Any]:
    assert done.status == 0, done.err
    return {step["name"]: (step["state"], step["why"]) for step in json.loads(done.out)["steps"]}


def test_a_second_run_says_that_everything_was_there(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    first = graphflow("run", letter, "--out", tmp_path / "out")
    again = graphflow("run", letter, "--out", tmp_path / "out")
    assert first.out == again.out != ""
    assert "2 steps run, 1 file saved" in first.err
    assert "0 steps run, 1 from the cache, 1 file saved" in again.err


@pytest.mark.parametrize("off", ["option", "variable"])
def test_without_the_cache_nothing_is_used_or_kept(
    off: str, graphflow: Command, letter: Path, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--no-cache"] if off == "option" else []
    if off == "variable":
        monkeypatch.setenv("GRAPHFLOW_NO_CACHE", "1")
    for _ in range(2):
        assert "2 steps run" in graphflow("run", letter, "--out", tmp_path / "out", *words).err
    assert not store.exists()


def test_the_plan_says_what_is_kept_and_why_the_rest_runs(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    plan = ["plan", letter, "--out", tmp_path / "out", "--json"]
    assert steps(graphflow(*plan)) == {"print": ("run", []), "save-page": ("run", [])}
    graphflow("run", letter, "--out", tmp_path / "out")
    assert steps(graphflow(*plan)) == {"print": ("unneeded", []), "save-page": ("cached", [])}
    assert steps(graphflow(*plan, "--set", "copies=2"))["print"] == ("run", ["copies 1 -> 2"])
    assert steps(graphflow(*plan, "--set", "text=dear none"))["print"] == (
        "run", ['text "dear all" -> "dear none"'],
    )  # fmt: skip
    assert steps(graphflow(*plan, "--no-cache"))["print"] == ("run", [])
    told = graphflow(*plan[:-1])
    assert "not needed" in told.out and "cached" in told.out and "2 steps, 0 to run" in told.out
    assert "runs: copies 1 -> 2" in graphflow(*plan[:-1], "--set", "copies=2").out


class TestCache:
    def info(self, graphflow: Command) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(graphflow("cache", "info", "--json").out)
        return data

    def test_info_prune_and_clear(self, graphflow: Command, letter: Path, tmp_path: Path, store: Path) -> None:
        empty = self.info(graphflow)
        assert (empty["folder"], empty["results"], empty["bytes"]) == (str(store), 0, 0)
        graphflow("run", letter, "--out", tmp_path / "out")
        data = self.info(graphflow)
        assert data["results"] == 3 and data["bytes"] > 0 and data["max_bytes"] == 16 << 30
        text = graphflow("cache", "info").out
        assert str(store) in text and "just now at latest" in text

        old = time.time() - 8 * 86400
        first = sorted(store.rglob("*.safetensors"))[0]
        os.utime(first, (old, old))
        assert "removed 0 results" in graphflow("cache", "prune").err
        assert "removed 1 result," in graphflow("cache", "prune", "--unused", "7d").err
        assert not first.exists()
        bound = max(path.stat().st_size for path in store.rglob("*.safetensors"))
        assert "removed 1 result," in graphflow("cache", "prune", "--max-size", str(bound)).err
        assert "removed 1 result," in graphflow("cache", "clear").err
        assert self.info(graphflow)["results"] == 0
        assert (tmp_path / "out" / "letter-page.txt").exists(), "what a run saved is not touched"

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["prune", "--unused", "soon"], "found 'soon', expected a time like 90m, 12h, 7d or 2w"),
            (["prune", "--max-size", "little"], "found the size 'little', expected one like 8GB"),
            (["empty"], "invalid choice: 'empty'"),
        ],
    )
    def test_what_cannot_be_understood_is_told(self, graphflow: Command, words: list[str], text: str) -> None:
        done = graphflow("cache", *words)
        assert done.status == 2 and text in done.err


class TestSweeps:
    def test_points_have_folders_and_their_order(self, graphflow: Command, letter: Path, tmp_path: Path) -> None:
        done = graphflow(
            "run",
            letter,
            "--sweep",
            "copies=1..3",
            "--sweep",
            "text=a,b",
            "--set",
            "bold=true",
            "--out",
            tmp_path / "o",
        )
        assert done.status == 0, done.err
        saved = [Path(line).relative_to(tmp_path / "o").as_posix() for line in done.out.splitlines()]
        assert saved == [f"copies={count},text={text}/letter-page.txt" for count in (1, 2, 3) for text in "ab"]
        assert (tmp_path / "o/copies=3,text=b/letter-page.txt").read_text() == "bbb"

    def test_side_by_side_and_a_json_list(self, graphflow: Command, letter: Path, tmp_path: Path) -> None:
        done = graphflow(
            "run", letter, "--zip", "--sweep", "copies=3..2", "--sweep", 'text=["a, b", "c"]', "--out", tmp_path / "o"
        )
        assert [Path(line).read_text() for line in done.out.splitlines()] == ["a, ba, ba, b", "cc"], done.err

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["--sweep", "copies"], "found 'copies', expected name=value,value,…"),
            (["--sweep", "copies=1,x"], 'found "x" (a text), expected an integer'),
            (["--sweep", "copies=1..99999999"], "has 99999999 values, expected at most 10000"),
            (["--sweep", "copy=1"], "did you mean 'copies'?"),
            (["--sweep", "text=[a"], "found no JSON list"),
            (["--sweep", "copies=1,2", "--sweep", "copies=3"], "--sweep gives 'copies', and --sweep too"),
            (["--sweep", "copies=1,2", "--set", "copies=3"], "--sweep gives 'copies', and --set too"),
            (["--zip", "--sweep", "copies=1,2", "--sweep", "text=a"], "found 2 for 'copies', 1 for 'text'"),
        ],
    )
    def test_what_is_wrong_is_told_and_nothing_runs(
        self, graphflow: Command, letter: Path, tmp_path: Path, words: list[str], text: str
    ) -> None:
        done = graphflow("run", letter, *words, "--out", tmp_path / "o")
        assert done.status == 2 and text in done.err
        assert not (tmp_path / "o").exists()

    def test_pictures_of_a_folder_and_a_contact_sheet(
        self, graphflow: Command, tmp_path: Path, write: Callable[..., Path]
    ) -> None:
        for name, colour in (("one", "red"), ("two", "blue")):
            PIL.Image.new("RGB", (40, 20), colour).save(tmp_path / f"{name}.png")
        path = write(
            inputs={"file": {"type": "file"}, "width": {"type": "int"}},
            nodes={
                "load": {"type": "LoadImage", "path": {"input": "file"}},
                "resize": {"type": "ResizeImage", "image": {"from": "load"}, "width": {"input": "width"}, "height": 20},
                "save": {"type": "SaveImage", "image": {"from": "resize"}, "name": "small"},
            },
        )
        words = ["--sweep", f"file={tmp_path}/*.png", "--sweep", "width=10,20,30", "--out", tmp_path / "o"]
        done = graphflow("run", path, *words)
        assert done.status == 0, done.err
        assert len(done.out.splitlines()) == 6
        sheet = tmp_path / "o" / "flow-sheet.png"
        assert f"contact sheet: {sheet}" in done.err
        with PIL.Image.open(sheet) as opened:
            page = opened.convert("RGB")
        red, blue = ((page.width // 6, page.height // 4), (page.width // 6, page.height // 4 + page.height // 2))
        assert page.getpixel(red) == (255, 0, 0) and page.getpixel(blue) == (0, 0, 255)
        sheet.unlink()
        again = graphflow("run", path, *words, "--no-sheet")
        assert again.out == done.out and "0 steps run, 6 from the cache" in again.err
        assert not sheet.exists()

    def test_no_such_picture(self, graphflow: Command, tmp_path: Path, write: Callable[..., Path]) -> None:
        path = write(
            inputs={"file": {"type": "file"}}, nodes={"load": {"type": "LoadImage", "path": {"input": "file"}}}
        )
        done = graphflow("run", path, "--sweep", f"file={tmp_path}/*.gif", "--out", tmp_path / "o")
        assert done.status == 3 and "no file is like" in done.err
