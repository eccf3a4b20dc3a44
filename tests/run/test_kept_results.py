"""Runs with a store on the disk: nothing is computed twice, and a store that lies changes no result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import graphflow as gf
from graphflow import events
from graphflow.run.ledger import read_ledger, reasons
from graphflow.run.lookup import look_up
from tests.helpers.engine_pack import REGISTRY, RUNS, Add, Number, Write


class Note(Write, version=1, effect=True, saves=True):
    """Write a number to a file, and do nothing else."""


OWN = gf.Registry([*REGISTRY.values(), Note])


def chain(*, by: int = 1, effect: type[Write] = Note) -> gf.Workflow:
    workflow = gf.Workflow()
    one = workflow.add("one", Number(value=1))
    two = workflow.add("two", Add(by=by), left=one)
    three = workflow.add("three", Add(by=1), left=two)
    workflow.add("write", effect(name="x"), value=three)
    return workflow


@pytest.fixture
def store(tmp_path: Path) -> gf.DiskStore:
    RUNS.clear()
    return gf.DiskStore(tmp_path / "store")


def run(workflow: gf.Workflow, store: gf.DiskStore, out: Path, **options: Any) -> dict[str, str]:
    RUNS.clear()
    made = workflow.run(out=out, cache=store, registry=OWN, **options)
    return {record.name: record.state for record in made.outcome.records}


def on_disk(store: gf.DiskStore, workflow: gf.Workflow, name: str) -> Path:
    (step,) = [step for step in workflow.plan(registry=OWN).steps if step.name == name]
    return Path(store._path(step.key))


def test_a_run_in_a_later_process_computes_nothing(store: gf.DiskStore, tmp_path: Path) -> None:
    assert set(run(chain(), store, tmp_path).values()) == {"ran"}
    again = run(chain(), gf.DiskStore(store.folder), tmp_path)
    assert RUNS == []
    assert again == {"one": "unneeded", "two": "unneeded", "three": "cached", "write": "cached"}


def test_a_changed_last_step_pays_for_itself_alone(store: gf.DiskStore, tmp_path: Path) -> None:
    run(chain(), store, tmp_path)
    workflow = chain()
    workflow.add("four", Add(by=5), left=gf.NodeHandle("three"))
    workflow.output("four", gf.NodeHandle("four"))
    assert run(workflow, store, tmp_path)["three"] == "cached"
    assert RUNS == ["Add"]


class TestSavedFiles:
    def saved(self, workflow: gf.Workflow, store: gf.DiskStore, out: Path) -> list[Path]:
        RUNS.clear()
        return workflow.run(out=out, cache=store, registry=OWN).files

    def test_what_is_there_unchanged_is_told_and_not_written_again(self, store: gf.DiskStore, tmp_path: Path) -> None:
        first = self.saved(chain(), store, tmp_path)
        written = first[0].stat().st_mtime_ns
        assert self.saved(chain(), store, tmp_path) == first == [tmp_path / "x.txt"]
        assert RUNS == [] and first[0].stat().st_mtime_ns == written

    @pytest.mark.parametrize("change", ["removed", "another content", "another folder"])
    def test_what_is_not_there_any_more_is_written_again(
        self, change: str, store: gf.DiskStore, tmp_path: Path
    ) -> None:
        (path,) = self.saved(chain(), store, tmp_path)
        if change == "removed":
            path.unlink()
        elif change == "another content":
            path.write_text("7")
        out = tmp_path / "other" if change == "another folder" else tmp_path
        (again,) = self.saved(chain(), store, out)
        assert again.read_text() == "3" and RUNS == ["Write x"]

    def test_an_effect_that_may_do_more_than_save_happens_always(self, store: gf.DiskStore, tmp_path: Path) -> None:
        for _ in range(2):
            self.saved(chain(effect=Write), store, tmp_path)
        assert RUNS == ["Write x"]


class TestDamage:
    @pytest.mark.parametrize("damage", ["cut", "gone"])
    def test_a_result_that_is_lost_after_it_was_counted_on_is_made_anew_with_what_it_needs(
        self, damage: str, store: gf.DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workflow = chain()
        run(workflow, store, tmp_path)
        (tmp_path / "x.txt").unlink()
        path = on_disk(store, workflow, "three")
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-1])
        else:  # another process prunes between the look and the reading
            path.unlink()
            monkeypatch.setattr(store, "has", lambda key: True)
        states = run(workflow, store, tmp_path)
        assert states == {"one": "unneeded", "two": "cached", "three": "ran", "write": "ran"}
        assert (tmp_path / "x.txt").read_text() == "3"

    def test_a_store_of_nothing_but_damage_costs_a_run_and_no_result(self, store: gf.DiskStore, tmp_path: Path) -> None:
        run(chain(), store, tmp_path)
        (tmp_path / "x.txt").unlink()
        for entry in store.entries():
            entry.path.write_bytes(b"\0" * 20)
        made = chain().run(out=tmp_path, cache=store, registry=OWN)
        assert (tmp_path / "x.txt").read_text() == "3"
        assert any("is damaged" in warning for warning in made.outcome.warnings)
        assert run(chain(), store, tmp_path)["write"] == "cached"


class TestWaiting:
    def test_a_step_that_another_computes_is_waited_for_and_taken(self, store: gf.DiskStore, tmp_path: Path) -> None:
        workflow = chain()
        last = workflow.plan(registry=OWN).steps[2]
        claim = store.claim(last.key)
        assert claim is not None
        told: list[events.Event] = []

        def other() -> None:
            while not any(isinstance(event, events.StepWaiting) for event in told):
                time.sleep(0.01)
            store.put(last.key, {"value": 40}, lambda message: None)
            claim.release()

        thread = threading.Thread(target=other)
        thread.start()
        states = run(workflow, store, tmp_path, listeners=[told.append])
        thread.join()
        assert states["three"] == "cached" and RUNS == ["Number", "Add", "Write x"]
        assert (tmp_path / "x.txt").read_text() == "40"

    def test_waiting_ends_when_the_run_is_cancelled(self, store: gf.DiskStore, tmp_path: Path) -> None:
        workflow, cancel = chain(), threading.Event()
        claim = store.claim(workflow.plan(registry=OWN).steps[0].key)
        assert claim is not None
        with pytest.raises(gf.Cancelled):
            run(
                workflow,
                store,
                tmp_path,
                cancel=cancel,
                listeners=[lambda event: cancel.set() if isinstance(event, events.StepWaiting) else None],
            )
        claim.release()


class TestReasons:
    def why(self, workflow: gf.Workflow, store: gf.DiskStore, out: Path) -> dict[str, list[str]]:
        plan = workflow.plan(registry=OWN)
        states, ledger = look_up(plan, store, out).states, read_ledger(store, "<python>")
        return {step.name: reasons(step, plan, ledger) for step in plan.steps if states[step.index] == "run"}

    def test_a_changed_parameter_and_what_comes_after_it(self, store: gf.DiskStore, tmp_path: Path) -> None:
        run(chain(), store, tmp_path)
        assert self.why(chain(), store, tmp_path) == {}
        assert self.why(chain(by=2), store, tmp_path) == {
            "two": ["by 1 -> 2"],
            "three": ["left comes from #2, which changed"],
            "write": ["value comes from #3, which changed"],
        }

    def test_a_result_that_is_not_kept_any_more(self, store: gf.DiskStore, tmp_path: Path) -> None:
        workflow = chain()
        run(workflow, store, tmp_path)
        (tmp_path / "x.txt").unlink()
        on_disk(store, workflow, "three").unlink()
        assert self.why(workflow, store, tmp_path)["three"] == ["its result is not kept any more"]

    def test_a_step_that_was_not_there(self, store: gf.DiskStore, tmp_path: Path) -> None:
        run(chain(), store, tmp_path)
        workflow = chain()
        workflow.output("more", workflow.add("more", Add(by=9), left=gf.NodeHandle("two")))
        assert self.why(workflow, store, tmp_path) == {"more": ["new"]}


def test_a_node_of_somebody_else_is_known_by_its_code(tmp_path: Path) -> None:
    """Whoever changes their own node without a new version must not be given the results of the old one."""
    module = tmp_path / "own_pack.py"
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import graphflow as gf, own_pack; w = gf.Workflow(); "
        "w.output('o', w.add('n', own_pack.Own())); "
        "r = w.run(registry=gf.Registry([own_pack.Own])); print(r['o'], r.outcome.records[0].state)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GRAPHFLOW_NO_CACHE"}
    environment["GRAPHFLOW_CACHE"] = str(tmp_path / "cache")
    printed = []
    for value in (1, 1, 2):
        module.write_text(
            "from graphflow import Node\n\n\nclass Own(Node, version=1):\n    def run(self) -> int:\n"
            f"        return {value}\n"
        )
        done = subprocess.run(
            [sys.executable, "-B", "-c", program, str(tmp_path)],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        printed.append(done.stdout.strip() or done.stderr)
    assert printed == ["1 ran", "1 cached", "2 ran"]


def test_an_unchanged_run_of_the_command_line_imports_no_torch(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "GRAPHFLOW_NO_CACHE"}
    environment |= {"GRAPHFLOW_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    document = {
        "graphflow": 1,
        "nodes": {
            "draw": {"type": "Text2Image", "prompt": "a red ball on sand", "steps": 1},
            "save": {"type": "SaveImage", "image": {"from": "draw"}, "name": "drawn"},
        },
    }
    (tmp_path / "draw.json").write_text(json.dumps(document))
    program = (
        "import sys; from graphflow.cli.main import main; status = main(sys.argv[1:]); "
        "print(sorted({'torch', 'diffusers', 'numpy', 'PIL'} & set(sys.modules))); sys.exit(status)"
    )
    printed = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program, "run", "draw.json", "--out", "out"],
            capture_output=True, text=True, check=True, env=environment, cwd=tmp_path,
        )  # fmt: skip
        printed.append(done.stdout.splitlines())
    assert printed[0][0] == printed[1][0] == str(tmp_path / "out/drawn.png")
    assert "torch" in printed[0][1]
    assert printed[1][1] == "[]"
