from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command_line import Command

Process = Callable[..., "subprocess.Popen[str]"]

TEXT = {"type": "pack.Print", "text": "abc"}


def test_paths_go_to_stdout_and_nothing_else_does(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    done = graphflow("run", letter, "--out", tmp_path / "out")
    saved = tmp_path / "out" / "letter-page.txt"
    assert (done.status, done.out) == (0, f"{saved}\n")
    assert saved.read_text() == "dear all"
    assert "done in" in done.err
    assert "2 steps run, 1 file saved" in done.err


def test_lines_for_a_log_hold_no_control_characters(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    done = graphflow("run", letter, "--out", tmp_path)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.err)
    lines = done.err.splitlines()
    assert lines[0] == "running 2 steps"
    assert lines[1] == "start   print (pack.Print)"
    assert re.fullmatch(r"done    print in \d+\.\d s", lines[2])


def test_values_have_the_declared_types(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    values = ["text=a=b c", "copies=2", "size=1e-1", "bold=true"]
    done = graphflow("run", letter, "--out", tmp_path, *(word for value in values for word in ("--set", value)))
    assert done.status == 0, done.err
    assert (tmp_path / "letter-page.txt").read_text() == "a=b ca=b c"
    manifest = json.loads(next((tmp_path / "manifests").iterdir()).read_text())
    assert manifest["inputs"] == {"text": "a=b c", "copies": 2, "size": 0.1, "bold": True}


def test_all_wrong_values_are_told_at_once(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    values = ["copies=2.0", "size=nan", "bold=yes", "txt=x"]
    done = graphflow("run", letter, "--out", tmp_path / "out", *(w for value in values for w in ("--set", value)))
    assert (done.status, done.out) == (2, "")
    assert "input 'copies': found \"2.0\" (a text), expected an integer" in done.err
    assert "input 'size': found \"nan\" (a text), expected a number" in done.err
    assert "input 'bold': found \"yes\" (a text), expected true or false" in done.err
    assert "no input 'txt' [input.unknown]\n    did you mean 'text'?" in done.err
    assert done.err.endswith("4 errors; nothing was run\n")
    assert not (tmp_path / "out").exists()


def test_a_value_out_of_range_names_its_input(graphflow: Command, letter: Path) -> None:
    done = graphflow("run", letter, "--set", "copies=12")
    assert done.status == 2
    assert "found 12, expected at most 9 (from the input 'copies')" in done.err


@pytest.mark.parametrize("words", [["--set", "copies"], ["--set", "=3"]])
def test_a_set_without_name_or_value_is_bad_usage(graphflow: Command, letter: Path, words: list[str]) -> None:
    done = graphflow("run", letter, *words)
    assert done.status == 2
    assert "expected name=value" in done.err


def test_one_input_cannot_be_set_twice(graphflow: Command, letter: Path) -> None:
    done = graphflow("run", letter, "--set", "copies=1", "--set", "copies=2")
    assert done.status == 2
    assert "--set gives 'copies' 2 times" in done.err


def test_what_a_node_saves_is_not_saved_again(graphflow: Command, write: Callable[..., Path], tmp_path: Path) -> None:
    flow = write(
        nodes={
            "print": TEXT,
            "copy": {"type": "pack.Copy", "page": {"from": "print"}},
            "save": {"type": "pack.SavePage", "page": {"from": "copy"}, "name": "mine"},
        },
        outputs={"copy": {"from": "copy"}, "print": {"from": "print"}},
    )
    done = graphflow("run", flow, "--out", tmp_path / "out")
    assert {Path(line).name for line in done.out.splitlines()} == {"mine.txt", "flow-print.txt"}


def test_the_name_of_a_saved_output_gives_way(graphflow: Command, write: Callable[..., Path], tmp_path: Path) -> None:
    flow = write(
        nodes={
            "print": TEXT,
            "copy": {"type": "pack.Copy", "page": {"from": "print"}},
            "save-copy": {"type": "pack.SavePage", "page": {"from": "print"}, "name": "flow-copy"},
        },
        outputs={"copy": {"from": "copy"}},
    )
    done = graphflow("run", flow, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    assert done.out.splitlines() == [str(tmp_path / "out" / name) for name in ("flow-copy.txt", "flow-copy-2.txt")]


def test_last_nodes_are_saved_where_nothing_is_declared(
    graphflow: Command, write: Callable[..., Path], tmp_path: Path
) -> None:
    done = graphflow("run", write(nodes={"print": TEXT}), "--out", tmp_path)
    assert done.out == f"{tmp_path / 'flow-print.txt'}\n"


def test_a_workflow_is_read_from_a_pipe(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[letter.read_bytes()])
    writer.start()
    done = graphflow("validate", pipe)
    writer.join()
    assert (done.status, done.err) == (0, f"{pipe}: ok\n")


def test_plain_outputs_are_told_on_stderr(graphflow: Command, write: Callable[..., Path], tmp_path: Path) -> None:
    flow = write(
        nodes={"print": TEXT, "count": {"type": "pack.Count", "page": {"from": "print"}}},
        outputs={"letters": {"from": "count"}},
    )
    done = graphflow("run", flow, "--out", tmp_path)
    assert (done.status, done.out) == (0, "")
    assert "letters: 3\n" in done.err


def test_the_manifest_is_told_and_says_what_ran(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    done = graphflow("run", letter, "--out", tmp_path)
    path = Path(re.search(r"^manifest: (.*)$", done.err, re.MULTILINE)[1])  # type: ignore[index]
    assert path.parent == tmp_path / "manifests"
    assert re.fullmatch(r"letter-\d{8}T\d{6}Z-[0-9a-f]{6}\.json", path.name)
    assert [step["type"] for step in json.loads(path.read_text())["steps"]] == ["pack.Print", "pack.SavePage"]


def test_no_manifest(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    done = graphflow("run", letter, "--out", tmp_path / "out", "--no-manifest")
    assert "manifest" not in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter-page.txt"]


def test_quiet_leaves_only_warnings(graphflow: Command, write: Callable[..., Path], tmp_path: Path) -> None:
    flow = write(nodes={"print": TEXT, "warn": {"type": "pack.Warn", "page": {"from": "print"}}})
    done = graphflow("run", flow, "--out", tmp_path, "--quiet")
    assert done.status == 0
    first, hint, second = done.err.splitlines()
    assert first.endswith("node 'warn': warning: this is surprising [pack.surprise]")
    assert (hint, second) == ("    look again", "node 'warn': warning: mind the step")


def test_events_on_stdout_replace_the_paths(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    done = graphflow("run", letter, "--out", tmp_path, "--events", "-")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in events] == [
        "run_started",
        "started",
        "finished",
        "started",
        "saved",
        "finished",
        "run_finished",
    ]
    assert events[4]["path"] == str(tmp_path / "letter-page.txt")


def test_events_in_a_file(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    done = graphflow("run", letter, "--out", tmp_path, "--events", tmp_path / "events.jsonl", "--quiet")
    assert done.out == f"{tmp_path / 'letter-page.txt'}\n"
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["outcome"] == "done"


def test_a_failing_node_is_named_without_traceback(
    graphflow: Command, write: Callable[..., Path], tmp_path: Path
) -> None:
    flow = write(nodes={"print": TEXT, "fail": {"type": "pack.Fail", "page": {"from": "print"}}})
    done = graphflow("run", flow, "--out", tmp_path)
    assert (done.status, done.out) == (4, "")
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-3:]
    assert last[0] == "ValueError: the press is broken"
    assert last[1].startswith("    in node 'fail' (pack.Fail) with page=")
    assert last[2] == "run again with --debug for the traceback"


def test_debug_shows_the_traceback(graphflow: Command, write: Callable[..., Path], tmp_path: Path) -> None:
    flow = write(nodes={"print": TEXT, "fail": {"type": "pack.Fail", "page": {"from": "print"}}})
    done = graphflow("run", flow, "--out", tmp_path, "--debug")
    assert done.status == 4
    assert "Traceback (most recent call last)" in done.err


def test_a_missing_workflow_or_file_is_status_3(graphflow: Command, write: Callable[..., Path], tmp_path: Path) -> None:
    assert graphflow("run", tmp_path / "none.json").status == 3
    flow = write(nodes={"read": {"type": "pack.ReadPage", "path": "none.txt"}})
    done = graphflow("run", flow)
    assert done.status == 3
    assert "found no file" in done.err


def test_an_unknown_saved_workflow_gets_the_nearest_name(graphflow: Command) -> None:
    done = graphflow("run", "text_to_imag")
    assert done.status == 2
    assert "did you mean 'text_to_image'?" in done.err


def test_a_device_that_is_none(graphflow: Command, letter: Path) -> None:
    done = graphflow("run", letter, "--device", "gpu")
    assert done.status == 2
    assert "found device 'gpu', expected auto, cpu, cuda, cuda:N or mps" in done.err


def test_on_several_devices_the_same_files_are_saved(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    sweep = ["--sweep", "copies=1..3", "--no-cache"]
    one = graphflow("run", letter, *sweep, "--out", tmp_path / "one", "--device", "cpu")
    two = graphflow("run", letter, *sweep, "--out", tmp_path / "two", "--device", "cpu:0,cpu:1")
    assert (one.status, two.status) == (0, 0)
    saved = [sorted((tmp_path / name).rglob("*.txt")) for name in ("one", "two")]
    assert [path.relative_to(tmp_path / "one") for path in saved[0]] == [
        path.relative_to(tmp_path / "two") for path in saved[1]
    ]
    assert [path.read_text() for path in saved[0]] == [path.read_text() for path in saved[1]] and saved[0]
    assert two.out.splitlines() and [*map(Path, sorted(two.out.splitlines()))] == saved[1]


def test_devices_that_do_not_go_together(graphflow: Command, letter: Path) -> None:
    done = graphflow("run", letter, "--device", "cpu,cpu")
    assert done.status == 2
    assert "found a device twice in 'cpu,cpu', expected each once [device.twice]" in done.err


def test_a_number_of_points_to_compute_together_that_is_none(graphflow: Command, letter: Path) -> None:
    for option, word in (("--max-batch", "0"), ("--max-batch", "-1"), ("--together", "two"), ("--together", "1.5")):
        done = graphflow("run", letter, option, word)
        assert done.status == 2
        assert f"found '{word}', expected a whole number from 1 on" in done.err


def test_plan_tells_what_is_computed_together(graphflow: Command) -> None:
    words = ("plan", "text_to_image", "--sweep", "seed=1,2,3", "--max-batch", "2", "--no-cache", "--device", "cpu")
    done = graphflow(*words)
    assert done.status == 0
    assert "computed together with #5" in done.out and "computed together with #4" in done.out
    steps = json.loads(graphflow(*words, "--json").out)["steps"]
    assert [step["batch"] for step in steps if step["type"] == "Denoise"] == [[3, 4], [3, 4], []]


def test_an_output_folder_that_cannot_be_written(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    done = graphflow("run", letter, "--out", tmp_path / "out")
    assert done.status == 2
    assert "is a file, expected a folder [file.unwritable]" in done.err


def test_an_events_file_that_cannot_be_written(graphflow: Command, letter: Path, tmp_path: Path) -> None:
    done = graphflow("run", letter, "--out", tmp_path, "--events", tmp_path / "none" / "events.jsonl")
    assert done.status == 2
    assert "[file.unwritable]" in done.err
    assert not (tmp_path / "letter-page.txt").exists()


def test_a_workflow_from_stdin(graphflow: Command, letter: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with letter.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        done = graphflow("run", "-", "--out", tmp_path / "out")
    assert done.out == f"{tmp_path / 'out' / 'stdin-page.txt'}\n"


# In a fresh process -------------------------------------------------------------------------------------------------


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the process ended before it said {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_within_a_step_and_leaves_nothing(
    process: Process, write: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    flow = write(
        nodes={
            "print": TEXT,
            "first": {"type": "pack.SavePage", "page": {"from": "print"}, "name": "first"},
            "slow": {"type": "pack.Slow", "page": {"from": "print"}, "steps": 400},
            "save": {"type": "pack.SavePage", "page": {"from": "slow"}},
        }
    )
    running = process("run", flow, "--out", tmp_path / "out")
    wait_for(running, "start   slow")
    begun = time.monotonic()
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    assert time.monotonic() - begun < 5  # 400 steps take 20 s
    assert running.returncode == 130
    saved = tmp_path / "out" / "first.txt"
    assert out == f"{saved}\n"
    assert err.splitlines()[-1] == f"interrupted after 2 of 4 steps; saved: {saved}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["first.txt", "manifests"]
    (manifest,) = (tmp_path / "out" / "manifests").iterdir()
    data = json.loads(manifest.read_text())
    assert (data["state"], data["error"]) == ("interrupted", None)
    assert [step["state"] for step in data["steps"]] == ["ran", "ran", "not reached", "not reached"]


def test_an_interrupt_lets_a_file_be_finished(process: Process, write: Callable[..., Path], tmp_path: Path) -> None:
    flow = write(
        nodes={
            "print": TEXT,
            "write": {"type": "pack.SlowSave", "page": {"from": "print"}},
            "slow": {"type": "pack.Slow", "page": {"from": "print"}},
            "save": {"type": "pack.SavePage", "page": {"from": "slow"}},
        }
    )
    running = process("run", flow, "--out", tmp_path / "out")
    wait_for(running, "start   write")
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=20)
    assert running.returncode == 130
    assert (tmp_path / "out" / "slow.txt").read_text() == "first second"
    assert out == f"{tmp_path / 'out' / 'slow.txt'}\n"


def test_nobody_reads_the_output(process: Process) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    running = process("schema", stdout=writer)
    os.close(writer)
    _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (141, "")


def test_a_run_ends_quietly_when_nobody_reads_its_events(process: Process, letter: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    running = process("run", letter, "--events", "-", "--out", tmp_path, "--quiet", stdout=writer)
    os.close(writer)
    _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (141, "")


def test_a_pack_is_found_through_its_entry_point(process: Process, letter: Path, tmp_path: Path) -> None:
    running = process("run", letter, "--quiet", "--no-manifest", cwd=tmp_path)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (0, "out/letter-page.txt\n", "")
