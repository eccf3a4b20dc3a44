"""Records of runs that Python started."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import graphflow as gf
from graphflow.record.record import document_in_record, make_record
from graphflow.replay import read_replay
from tests.helpers.engine_pack import REGISTRY, Decode, Number


def test_a_value_that_python_gave_cannot_be_replayed_and_that_is_told(tmp_path: Path) -> None:
    workflow = gf.Workflow()
    latent = workflow.input("latent", "latent")
    workflow.output("image", workflow.add("decode", Decode(model="sd-model"), latent=latent))
    given = gf.Latent(None, "sd", "sd-model")  # type: ignore[arg-type]
    run = workflow.run(registry=REGISTRY, latent=given, out=tmp_path)
    manifest = run.manifest.save(tmp_path / "manifest.json")
    with pytest.raises(gf.WorkflowError, match=r"does not hold the value of latent.*\n?.*record\.value"):
        read_replay(manifest).with_values({})


def test_the_manifest_of_a_finished_run_says_when_that_began(tmp_path: Path) -> None:
    workflow = gf.Workflow()
    workflow.output("number", workflow.add("number", Number(value=1)))
    run = workflow.run(registry=REGISTRY, out=tmp_path)
    run.outcome.begun -= timedelta(hours=1)  # as if the manifest was asked for an hour later
    data = run.manifest.data
    assert timedelta(minutes=59) < datetime.fromisoformat(data["written"]) - datetime.fromisoformat(data["begun"])


def test_a_record_of_many_levels_of_calls_costs_no_recursion(write: Callable[..., Path]) -> None:
    levels = sys.getrecursionlimit() + 50
    for level in range(levels):
        inner = {"type": "Workflow", "uses": f"level{level - 1}"} if level else {"type": "Number", "value": 7}
        write(f"level{level}.json", {"nodes": {"a": inner}, "outputs": {"value": {"from": "a"}}})
    document = gf.load(write("main.json", {"nodes": {"a": {"type": "Workflow", "uses": f"level{levels - 1}"}}}))
    record = make_record(document, {}, {})
    assert len(record["called"]) == levels
    again, _ = document_in_record(gf.Workflow, record, name="record", folder=None)
    assert [bound.node for bound in again.bind(registry=REGISTRY)] == [Number(value=7)]
