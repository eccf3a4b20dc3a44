"""What is said of a picture's file reaches the user as it was said."""

from __future__ import annotations

import pytest

from graphflow import Position, Problem
from graphflow.nodes import LoadImage
from graphflow.nodes.files.picture_file import check_picture

ODD = Problem("file.odd", "an odd picture", "header", "save it again", "warning", position=Position("list.txt", 3, 1))


def test_a_warning_about_a_file_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphflow.nodes.files.picture_file.inspect_image", lambda path: ODD)
    (problem,) = check_picture("a.png")
    assert (problem.severity, problem.position, problem.field) == ("warning", ODD.position, "path")


def test_a_warning_about_a_url_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphflow.nodes.web.picture.check_url", lambda url: ODD)
    (problem,) = LoadImage(path="https://example.org/a.png").check({})
    assert (problem.severity, problem.position, problem.field) == ("warning", ODD.position, "path")
