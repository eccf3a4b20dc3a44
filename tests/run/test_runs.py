"""execute: values, memory, cache, events, cancelling, errors."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import graphflow as gf
from graphflow import events
from tests.helpers.engine_pack import (
    REGISTRY,
    RUNS,
    Add,
    Block,
    Explode,
    MakeBlock,
    Number,
    PassBlock,
    Split,
    Wait,
    Write,
)


def build(*nodes: tuple[str, gf.Node, dict[str, Any]]) -> gf.Workflow:
    workflow = gf.Workflow()
    for name, node, ports in nodes:
        workflow.add(name, node, **{port: gf.NodeHandle(v) if isinstance(v, str) else v for port, v in ports.items()})
    return workflow


def test_results_are_outputs_and_what_was_saved(tmp_path: Path) -> None:
    workflow = build(
        ("one", Number(value=1), {}), ("two", Add(by=1), {"left": "one"}), ("w", Write(name="x"), {"value": "two"})
    )
    run = workflow.run(out=tmp_path, registry=REGISTRY)
    assert dict(run) == {"two": 2}
    assert run.files == [tmp_path / "x.txt"]
    assert (tmp_path / "x.txt").read_text() == "2"
    with pytest.raises(KeyError, match=r"run\(keep=\['one'\]\) keeps it"):
        run["one"]
    with pytest.raises(gf.GraphFlowError, match="did you mean 'two'"):
        run["tow"]
    assert workflow.run(out=tmp_path, keep=["one"], registry=REGISTRY)["one"] == 1


def test_several_outputs_arrive_each_at_its_port() -> None:
    workflow = gf.Workflow()
    halves = workflow.add("halves", Split(), value=9)
    workflow.add("difference", Add(), left=halves["high"], right=halves["low"])
    assert workflow.run(registry=REGISTRY)["difference"] == 9


def test_a_chain_of_50_values_holds_at_most_two_at_once() -> None:
    workflow = gf.Workflow()
    handle = workflow.add("n0", MakeBlock(nbytes=20_000_000))
    for index in range(1, 50):
        handle = workflow.add(f"n{index}", PassBlock(tag=index), block=handle)
    Block.peak = Block.alive
    before = Block.alive
    run = workflow.run(registry=REGISTRY)
    assert Block.peak - before <= 2
    assert list(run) == ["n49"]


class TestCache:
    def test_an_unchanged_run_computes_nothing_and_an_effect_still_happens(self, tmp_path: Path) -> None:
        workflow = build(
            ("one", Number(value=1), {}), ("two", Add(by=1), {"left": "one"}), ("w", Write(name="x"), {"value": "two"})
        )
        cache = gf.MemoryCache()
        workflow.run(out=tmp_path, cache=cache, registry=REGISTRY)
        RUNS.clear()
        (tmp_path / "x.txt").unlink()
        run = workflow.run(out=tmp_path, cache=cache, registry=REGISTRY)
        assert RUNS == ["Write x"]
        assert (tmp_path / "x.txt").read_text() == "2"
        assert {record.name: record.state for record in run.outcome.records} == {
            "one": "unneeded",
            "two": "cached",
            "w": "ran",
        }

    def test_a_changed_last_node_runs_alone(self) -> None:
        cache = gf.MemoryCache()
        for by in (1, 2):
            RUNS.clear()
            workflow = build(("one", Number(value=1), {}), ("two", Add(by=by), {"left": "one"}))
            assert workflow.run(cache=cache, registry=REGISTRY)["two"] == 1 + by
        assert RUNS == ["Add"]

    def test_what_was_used_least_recently_goes_first(self) -> None:
        cache = gf.MemoryCache(max_bytes=3 * 1200)
        for key in "abc":
            cache.put(key, {"block": Block(1000)})
        assert cache.get("a") is not None
        cache.put("d", {"block": Block(1000)})
        assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
        assert cache.nbytes <= cache.max_bytes
        cache.put("e", {"block": Block(5000)})
        assert cache.get("e") is None
        cache.put("a", {"block": Block(1)})
        cache.clear()
        assert (len(cache), cache.nbytes) == (0, 0)


class TestEvents:
    def test_each_change_of_state_is_told_once_in_order(self, tmp_path: Path) -> None:
        workflow = build(
            ("one", Number(value=1), {}),
            ("wait", Wait(steps=2), {"value": "one"}),
            ("w", Write(name="x"), {"value": "wait"}),
        )
        told: list[dict[str, Any]] = []
        workflow.run(out=tmp_path, listeners=[lambda event: told.append(events.to_dict(event))], registry=REGISTRY)
        assert [(event["event"], event.get("step")) for event in told] == [
            ("run_started", None),
            ("started", "one"),
            ("finished", "one"),
            ("started", "wait"),
            ("progress", "wait"),
            ("progress", "wait"),
            ("finished", "wait"),
            ("started", "w"),
            ("saved", "w"),
            ("finished", "w"),
            ("run_finished", None),
        ]
        assert told[0] == {"event": "run_started", "steps": 3, "progress_steps": 4}
        assert [event["done"] for event in told if event["event"] == "progress"] == [1, 2]
        assert told[3]["total"] == 2
        assert told[-1]["outcome"] == "done" and told[-1]["ran"] == 3

    def test_cached_steps_and_failures_are_told(self) -> None:
        workflow = build(("one", Number(value=1), {}), ("bad", Explode(), {"value": "one"}))
        cache = gf.MemoryCache()
        told: list[events.Event] = []
        for _ in range(2):
            told.clear()
            with pytest.raises(ValueError, match="cannot digest 1"):
                workflow.run(cache=cache, listeners=[told.append], registry=REGISTRY)
        assert [type(event).__name__ for event in told] == [
            "RunStarted",
            "StepCached",
            "StepStarted",
            "StepFailed",
            "RunFinished",
        ]
        assert isinstance(told[-1], events.RunFinished) and told[-1].outcome == "failed"


def test_what_a_node_raises_passes_through_with_a_note_naming_it() -> None:
    workflow = build(("one", Number(value=7), {}), ("bad", Explode(), {"value": "one"}))
    with pytest.raises(ValueError, match="cannot digest 7") as caught:
        workflow.run(registry=REGISTRY)
    assert caught.value.__notes__ == ["in node 'bad' (Explode) with value=7"]


def test_a_cancelled_run_stops_within_one_step_and_later_nodes_do_not_run(tmp_path: Path) -> None:
    workflow = build(("wait", Wait(steps=1000), {"value": 1}), ("w", Write(name="x"), {"value": "wait"}))
    cancel = threading.Event()
    steps: list[int] = []

    def listener(event: events.Event) -> None:
        if isinstance(event, events.StepProgress):
            steps.append(event.done)
            if event.done == 3:
                cancel.set()

    with pytest.raises(gf.Cancelled):
        workflow.run(out=tmp_path, cancel=cancel, listeners=[listener], registry=REGISTRY)
    assert steps == [1, 2, 3]
    assert not list(tmp_path.iterdir())


def test_a_node_that_returns_the_wrong_type_is_named() -> None:
    class Liar(gf.Node, version=1):
        """Promise a number, give a text."""

        def run(self) -> int:
            return "no"  # type: ignore[return-value]

    workflow = gf.Workflow()
    workflow.add("a", Liar())
    with pytest.raises(TypeError, match=r"Liar.run returned str, expected Int"):
        workflow.run(registry=gf.Registry([Liar]))


def test_the_manifest_tells_what_ran(tmp_path: Path) -> None:
    workflow = build(("one", Number(value=1), {}), ("w", Write(name="x"), {"value": "one"}))
    manifest = workflow.run(out=tmp_path, registry=REGISTRY).manifest
    data = manifest.data
    assert data["workflow"] == workflow.to_dict()
    assert [(step["name"], step["type"], step["state"]) for step in data["steps"]] == [
        ("one", "Number", "ran"),
        ("w", "Write", "ran"),
    ]
    assert data["files"][0]["path"] == "x.txt"
    assert len(data["files"][0]["sha256"]) == 64
    assert manifest.save(tmp_path / "manifest.json").read_text() == manifest.dumps()
