"""Sweeps: every point once, under a name of its own, and what points share computed once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphflow as gf
from graphflow.graph.sweep import folders_of, points_of
from tests.helpers.engine_pack import REGISTRY, RUNS, Add, Number, Write


def workflow(**sweep: Any) -> gf.Workflow:
    """A first step that all share, and one that takes the swept values."""
    built = gf.Workflow(**sweep)
    by, right = built.input("by", "int", default=1), built.input("right", "int", default=0)
    shared = built.add("shared", Number(value=10))
    total = built.add("total", Add(), left=shared, right=right, by=by)
    built.add("write", Write(name="total"), value=total)
    built.output("total", total)
    return built


def run(built: gf.Workflow, out: Path, **options: Any) -> gf.Run:
    RUNS.clear()
    return built.run(out=out, registry=REGISTRY, **options)


def test_all_combinations_run_in_order_and_share_what_is_equal(tmp_path: Path) -> None:
    made = run(workflow(), tmp_path, sweep={"by": [1, 2], "right": [0, 5, 6]})
    assert [dict(point.inputs) for point in made.points] == [
        {"by": by, "right": right} for by, right in itertools.product([1, 2], [0, 5, 6])
    ]
    assert [point["total"] for point in made.points] == [11, 16, 17, 12, 17, 18]
    assert RUNS.count("Number") == 1 and RUNS.count("Add") == 6
    assert [path.relative_to(tmp_path).as_posix() for path in made.files] == [
        f"by={by},right={right}/total.txt" for by, right in itertools.product([1, 2], [0, 5, 6])
    ]
    assert [point.files for point in made.points] == [(path,) for path in made.files]


def test_points_that_come_to_the_same_are_computed_once_and_saved_each(tmp_path: Path) -> None:
    built = gf.Workflow()
    value = built.input("value", "int", default=0)
    built.input("unused", "int", default=0)
    built.add("write", Write(name="x"), value=built.add("n", Number(), value=value))
    made = run(built, tmp_path, sweep={"value": [3], "unused": [1, 2]})
    assert RUNS == ["Number", "Write x", "Write x"]
    assert len({path.parent for path in made.files}) == 2


def test_files_are_found_where_the_folder_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = run(workflow(), Path("out"), sweep={"by": [1, 2]})
    assert [len(point.files) for point in made.points] == [1, 1]


def test_values_side_by_side(tmp_path: Path) -> None:
    made = run(workflow(), tmp_path, sweep=[{"by": 1, "right": 2}, {"by": 3, "right": 4}])
    assert [(point.folder, point["total"]) for point in made.points] == [("by=1,right=2", 13), ("by=3,right=4", 17)]


def test_a_document_says_its_own_sweep_and_a_given_value_is_not_swept(tmp_path: Path) -> None:
    built = gf.loads(workflow(sweep={"by": [1, 2], "right": [7, 8]}).dumps())
    assert [point.folder for point in run(built, tmp_path).points] == [
        "by=1,right=7", "by=1,right=8", "by=2,right=7", "by=2,right=8",
    ]  # fmt: skip
    assert [point.folder for point in run(built, tmp_path, right=3).points] == ["by=1", "by=2"]
    assert run(built, tmp_path, right=3, by=4)["total"] == 17
    assert run(built, tmp_path, right=3, by=4).points == []
    assert [point.folder for point in run(built, tmp_path, sweep={"by": [9]}).points] == ["by=9"]


def test_a_call_does_not_sweep(tmp_path: Path) -> None:
    workflow(sweep={"by": [1, 2]}).save(tmp_path / "inner.json")
    outer = gf.Workflow()
    outer.output("total", outer.call("call", "inner.json"))
    path = outer.save(tmp_path / "outer.json")
    made = gf.load(path).run(out=tmp_path / "out", registry=REGISTRY)
    assert made["total"] == 11 and made.points == []


def test_a_sweep_that_is_started_again_with_more_values_runs_the_new_ones_alone(tmp_path: Path) -> None:
    store = gf.DiskStore(tmp_path / "store")
    run(workflow(), tmp_path, sweep={"by": [1, 2]}, cache=store)
    run(workflow(), tmp_path, sweep={"by": [1, 2, 3]}, cache=store)
    assert RUNS.count("Add") == 1


@pytest.mark.parametrize(
    ("sweep", "code", "text"),
    [
        ({"bye": [1]}, "input.unknown", "did you mean 'by'?"),
        ({"by": 3}, "sweep.form", "'by': found 3 (an integer), expected a list of values"),
        ({"by": []}, "sweep.empty", "'by': found an empty list"),
        ({}, "sweep.empty", "found no inputs"),
        ([], "sweep.empty", "found an empty list"),
        ("by", "sweep.form", 'found "by" (a text), expected lists of values by input'),
        ([{"by": 1}, 2], "sweep.form", "found 2 (an integer), expected an object"),
        ([{"by": 1}, {"right": 1}], "sweep.form", "found values for right, expected the inputs of the first: by"),
        ({"by": [[1]]}, "sweep.form", "'by': found a list, expected one value"),
        ({"by": [1, 2, 1]}, "sweep.twice", "the sweep has the point by=1 twice"),
        ({"by": [1, "2"]}, "value.type", "input 'by': found \"2\" (a text), expected an integer"),
        ({"by": [1, 2000]}, "value.range", "found 2000, expected at most 1000"),
        ({"by": list(range(101)), "right": list(range(100))}, "sweep.too_large", "the sweep has 10100 points"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_told_before_anything_runs(
    sweep: Any, code: str, text: str, tmp_path: Path
) -> None:
    for options in ({"sweep": sweep}, {}):
        built = workflow() if options else workflow(sweep=sweep)
        with pytest.raises(gf.WorkflowError) as caught:
            run(built, tmp_path, **options)
        found = [str(problem) for problem in caught.value.problems if problem.code == code]
        assert found and text in " ".join(found), caught.value.problems
    assert RUNS == [] and list(tmp_path.iterdir()) == []
    assert workflow(sweep=sweep).validate() != []


def test_a_fault_in_the_sweep_of_a_file_has_its_place() -> None:
    built = gf.loads('{"graphflow": 1,\n "nodes": {"n": {"type": "Number"}},\n "sweep": {"bye": [1]}}')
    with pytest.raises(gf.WorkflowError) as caught:
        built.run(registry=REGISTRY)
    (problem,) = caught.value.problems
    assert problem.position is not None and (problem.position.line, problem.position.column) == (3, 19)


@pytest.mark.parametrize("sweep", [{"bye": [1]}, {"by": []}, {"by": [1, 1]}, [{"by": 1}, 2]])
def test_a_fault_in_a_sweep_hides_no_other(sweep: Any, tmp_path: Path) -> None:
    built = workflow()
    built.add("broken", Add(), left="four")
    built.add("unfinished", Write(name="here"))
    with pytest.raises(gf.WorkflowError) as caught:
        run(built, tmp_path, sweep=sweep, right="five")
    found = [problem.code for problem in caught.value.problems]
    assert sorted(found[1:]) == ["port.missing", "value.type", "value.type"]
    assert found[0].startswith(("sweep.", "input.unknown"))


def test_a_fault_that_all_points_have_is_told_once(tmp_path: Path) -> None:
    built = workflow()
    built.add("odd", Write(name="../x"), value=gf.NodeHandle("nobody"))
    with pytest.raises(gf.WorkflowError) as caught:
        run(built, tmp_path, sweep={"by": [1, 2, 3]})
    assert len(caught.value.problems) == 1


KINDS = (st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=60))
"""Values of an input, which all have its type."""


@given(st.one_of(*(st.lists(kind, min_size=1, max_size=8, unique=True) for kind in KINDS)))
def test_every_point_has_a_folder_of_its_own_that_every_system_can_hold(values: list[Any]) -> None:
    built = gf.Workflow()
    built.input("text", "text")
    points = points_of(built, {"text": values})
    folders = folders_of(points)
    assert len({folder.casefold() for folder in folders}) == len(values)
    for folder in folders:
        assert len(folder.encode()) <= 200 and not set(folder) & set('/\\<>:"|?*\0\n') and folder.isprintable()
        assert not folder.endswith((".", " "))
    assert folders_of(points) == folders
