"""Files are asked once in one go, and anew in the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import graphflow as gf
from graphflow import Node, PortType, Registry
from graphflow.file_answers import cached_answers, file_answer

ASKED: list[str] = []


@file_answer
def size_of(path: str) -> int:
    ASKED.append(path)
    return Path(path).stat().st_size


class Size(Node, version=1):
    """Give the size of a file."""

    path: str = ""
    seed: int = 0

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        return {"value": PortType(int, width=size_of(self.path))}

    def identity(self) -> str:
        return str(size_of(self.path))

    def run(self) -> int:
        return size_of(self.path)


@pytest.fixture(autouse=True)
def _nothing_asked() -> None:
    ASKED.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("four")
    return path


def test_outside_of_a_look_every_call_asks(file: Path) -> None:
    assert size_of(str(file)) == 4
    file.write_text("seven..")
    assert size_of(str(file)) == 7


def test_within_one_each_file_is_asked_once(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("")
    with cached_answers():
        assert [size_of(str(file)), size_of(str(other))] == [4, 0]
        file.write_text("seven..")
        with cached_answers():
            assert size_of(str(file)) == 4
        assert size_of(str(file)) == 4
    assert size_of(str(file)) == 7
    assert [str(file), str(other), str(file)] == ASKED


def test_what_failed_is_tried_again(file: Path) -> None:
    file.unlink()
    with cached_answers():
        with pytest.raises(OSError, match="file"):
            size_of(str(file))
        file.write_text("there")
        assert size_of(str(file)) == 5


def test_an_error_ends_the_look(file: Path) -> None:
    with pytest.raises(RuntimeError), cached_answers():
        size_of(str(file))
        raise RuntimeError
    file.write_text("seven..")
    assert size_of(str(file)) == 7


def test_a_sweep_asks_once_for_all_its_points_and_the_next_run_asks_anew(file: Path) -> None:
    built = gf.Workflow()
    node = built.add("size", Size(path=str(file)), seed=built.input("seed", "int"))
    built.output("size", node)
    registry = Registry([Size])
    sweep = {"seed": list(range(20))}
    first = built.run(registry=registry, sweep=sweep, device="cpu", cache=False)
    assert {point["size"] for point in first.points} == {4}
    at_planning = len(ASKED) - 20  # each of the steps asks while it runs
    assert 1 <= at_planning <= 4
    file.write_text("seven..")
    again = built.run(registry=registry, sweep=sweep, device="cpu", cache=False)
    assert {point["size"] for point in again.points} == {7}
