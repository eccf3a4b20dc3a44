from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import graphflow as package
from graphflow.cli.live import LiveProgress
from graphflow.cli.main import COMMANDS
from graphflow.cli.progress import duration
from graphflow.cli.table import display_width, table
from graphflow.schema import workflow_schema
from tests.helpers import cli_pack as pack
from tests.helpers.command_line import Command

Process = Callable[..., "subprocess.Popen[str]"]
WORKFLOWS = Path(__file__).parents[2] / "workflows"
HEAVY = ("torch", "diffusers", "transformers", "PIL", "numpy", "rich")

TEXT = {"type": "pack.Print", "text": "abc"}


# Usage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_has_help(graphflow: Command, command: str) -> None:
    done = graphflow(command, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"usage: graphflow {command}")
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    for number, line in enumerate(lines):
        if line.startswith("  -"):
            assert "  " in line.strip() or lines[number + 1].startswith("        "), line


def test_help_lists_the_commands(graphflow: Command) -> None:
    done = graphflow("--help")
    assert all(f"  {name} " in done.out for name in COMMANDS)
    assert max(map(len, done.out.splitlines())) <= 80


def test_version(graphflow: Command) -> None:
    assert graphflow("--version").out == f"graphflow {package.__version__}\n"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["vlidate"], "did you mean 'validate'?"),
        (["flow.json"], "did you mean 'graphflow run flow.json'?"),
        (["--versoin"], "did you mean '--version'?"),
        (["run", "x.json", "--quite"], "did you mean '--quiet'?"),
        (["run", "x.json", "--dtyp=float32"], "did you mean '--dtype'?"),
        (["nodes", "pack.Prnt"], "did you mean 'pack.Print'?"),
        (["run"], "FILE"),
        (["validate", "a.json", "--json=3"], "--json"),
        (["draw", "redraw", "--out", "x.png"], "cannot tell the format"),
        (["run", "flow.json", "--set", "prompt=a\udcffb"], r"found the argument 'prompt=a\xffb', expected UTF-8 text"),
        ([], "usage: graphflow"),
    ],
)
def test_bad_usage_is_status_2_with_the_nearest_name(graphflow: Command, words: list[str], hint: str) -> None:
    done = graphflow(*words)
    assert (done.status, done.out) == (2, "")
    assert hint in done.err


def test_a_bug_says_that_it_is_one(graphflow: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphflow.cli.nodes.default_registry", lambda: 1 / 0)
    done = graphflow("nodes")
    assert (done.status, done.out) == (1, "")
    assert "a bug in GraphFlow or in a node pack: ZeroDivisionError" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in graphflow("nodes", "--debug").err


# validate -----------------------------------------------------------------------------------------------------------


def test_every_problem_of_every_file_is_told(graphflow: Command, write: Callable[..., Path], letter: Path) -> None:
    bad = write("bad.json", nodes={"a": {"type": "pack.Prnt"}, "b": {"type": "pack.Print", "copies": 99}})
    done = graphflow("validate", bad, letter)
    assert (done.status, done.out) == (2, "")
    assert "[node.unknown]" in done.err
    assert "[value.range]" in done.err
    assert "[port.missing]" in done.err
    assert f"{bad}: 3 errors\n{letter}: ok\n" in done.err


def test_a_file_cannot_steer_the_terminal(
    graphflow: Command, write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b[31m\x9b2J\u202egnp.exe"
    monkeypatch.setenv("GRAPHFLOW_PATH", str(tmp_path))
    bad = write("bad.json", nodes={"a": {"type": evil}})
    good = write("good.json", description=evil, nodes={"print": {"type": "pack.Print", "text": evil}})
    for words in (["validate", bad], ["plan", good], ["workflows"], ["workflows", "good"]):
        done = graphflow(*words)
        assert not {"\x1b", "\x9b", "\u202e"} & set(done.out + done.err), words
        assert "\\u001b[31m\\u009b2J\\u202egnp.exe" in done.out + done.err, words


def test_warnings_alone_are_status_0(graphflow: Command, write: Callable[..., Path]) -> None:
    flow = write(nodes={"print": TEXT, "warn": {"type": "pack.Warn", "page": {"from": "print"}}})
    done = graphflow("validate", flow)
    assert done.status == 0
    assert done.err.endswith(f"{flow}: 1 warning\n")


def test_problems_as_json(graphflow: Command, write: Callable[..., Path]) -> None:
    done = graphflow("validate", write(nodes={"a": {"type": "pack.Prnt"}}), "--json")
    assert (done.status, done.err) == (2, "")
    (result,) = json.loads(done.out)
    assert result["valid"] is False
    assert result["problems"][0]["code"] == "node.unknown"
    assert result["problems"][0]["line"] == 5


def test_an_input_without_a_value_is_no_problem(graphflow: Command, write: Callable[..., Path]) -> None:
    flow = write(
        inputs={"text": {"type": "text"}, "copies": {"type": "int"}},
        nodes={
            "print": {"type": "pack.Print", "text": {"input": "text"}, "copies": {"input": "copies"}},
            "twice": {"type": "pack.PrintTwice", "text": {"input": "text"}},
            "copy": {"type": "pack.Copy", "page": {"from": "print"}},
        },
        outputs={"page": {"from": "copy"}, "other": {"from": "twice"}},
    )
    done = graphflow("validate", flow)
    assert (done.status, done.err) == (0, f"{flow}: ok\n")


def test_validate_imports_nothing_heavy(process: Process, installed_pack: Path, letter: Path) -> None:
    program = (
        "import sys; from graphflow.cli import main; status = main(sys.argv[2:]); "
        "print(status, sorted(set(sys.modules) & set(sys.argv[1].split(','))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, ",".join(HEAVY), "validate", *map(str, sorted(WORKFLOWS.glob("*.json")))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(installed_pack)},
    )
    assert done.stdout == "0 []\n", done.stderr


@pytest.mark.parametrize("name", ["offline", "registry", "inputs", "self"])
def test_validate_on_the_command_line_takes_every_name(graphflow: Command, tmp_path: Path, name: str) -> None:
    file = tmp_path / "w.json"
    data: dict[str, Any] = {
        "graphflow": 1,
        "inputs": {name: {"type": "int"}},
        "nodes": {"print": {"type": "pack.Print", "text": "la", "copies": {"input": name}}},
    }
    file.write_text(json.dumps(data))
    done = graphflow("validate", file, "--set", f"{name}=x")
    assert done.status == 2
    assert "bug in GraphFlow" not in done.err
    assert f"input '{name}': found \"x\" (a text), expected an integer" in done.err


# plan, nodes, workflows ---------------------------------------------------------------------------------------------


def test_values_are_validated_with_the_workflow(graphflow: Command, letter: Path) -> None:
    assert graphflow("validate", letter, "--set", "copies=3").status == 0
    done = graphflow("validate", letter, "--set", "copies=99", "--set", "txt=x")
    assert done.status == 2
    assert "found 99, expected at most 9" in done.err and "did you mean 'text'?" in done.err


def test_the_plan_tells_steps_in_order(graphflow: Command, letter: Path) -> None:
    done = graphflow("plan", letter, "--set", "copies=3")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split()[:3] == ["#1", "print", "pack.Print"]
    assert lines[1].strip() == 'text="dear all"'
    assert lines[2].split()[:3] == ["#2", "save-page", "pack.SavePage"]
    assert lines[3] == "    page=#1"
    assert lines[-1] == "2 steps, 0 models, saves letter-page.txt"


def test_the_plan_as_json(graphflow: Command, letter: Path) -> None:
    data = json.loads(graphflow("plan", letter, "--json").out)
    assert [step["name"] for step in data["steps"]] == ["print", "save-page"]
    assert data["steps"][1]["inputs"] == {"page": {"step": 0, "output": "page"}}
    assert data["files"] == ["letter-page.txt"]


def test_the_plan_of_a_shipped_workflow_counts_denoise_steps(graphflow: Command) -> None:
    data = json.loads(graphflow("plan", "text_to_image_to_image", "--json").out)
    assert data["models"] == ["pocket"]
    assert data["denoise_steps"] == sum(step["denoise_steps"] or 0 for step in data["steps"]) > 0


def test_nodes_are_listed_coarse_first(graphflow: Command) -> None:
    done = graphflow("nodes")
    assert done.status == 0
    names = [line.split()[0] for line in done.out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {cls.type_id for cls in pack.NODES} <= set(names)
    assert names.index("Text2Image") < names.index("Denoise") < names.index("SaveImage")
    assert re.search(r"^  pack\.PrintTwice +Print, and print again\.$", done.out, re.MULTILINE)


def test_a_node_is_described(graphflow: Command) -> None:
    done = graphflow("nodes", "pack.Print")
    assert "  text  Text  required\n" in done.out
    assert "  copies  integer from 1 to 9, default 1\n            how many\n" in done.out
    assert "  size    number above 0, default 1.0\n" in done.out
    assert "  bold    true or false, default false\n" in done.out
    assert "Outputs\n  page  Page\n" in done.out


def test_every_installed_node_can_be_described(graphflow: Command) -> None:
    for item in json.loads(graphflow("nodes", "--json").out):
        assert graphflow("nodes", item["type"]).status == 0
        assert json.loads(graphflow("nodes", item["type"], "--json").out) == item


def test_workflows_on_the_path(
    graphflow: Command, letter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.json").write_text("{")
    monkeypatch.setenv("GRAPHFLOW_PATH", str(tmp_path))
    done = graphflow("workflows")
    assert done.status == 0
    assert re.search(r"^  letter +Print a letter$", done.out, re.MULTILINE)
    assert "broken.json" in done.err
    assert "redraw" in done.out


def test_a_workflow_is_described_with_its_pin(
    graphflow: Command, letter: Path, write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHFLOW_PATH", str(tmp_path))
    done = graphflow("workflows", "letter")
    assert '  text    text   default "dear all". what it says\n' in done.out
    assert "  page  Page  from print\n" in done.out
    pinned = done.out.splitlines()[-1].strip().removeprefix('"uses": ').strip('"')
    caller = write("caller.json", nodes={"call": {"type": "Workflow", "uses": pinned}})
    assert graphflow("validate", caller).status == 0


def test_tables_fit_80_columns(graphflow: Command) -> None:
    commands: list[list[str]] = [["nodes"], ["workflows"], ["workflows", "redraw"], ["plan", "text_to_image_to_image"]]
    commands += [["nodes", item["type"]] for item in json.loads(graphflow("nodes", "--json").out)]
    for words in commands:
        done = graphflow(*words)
        for line in done.out.splitlines():
            assert display_width(line) <= 80 or " " not in line.strip() or "`graphflow" in line, (words, line)


def test_columns_align_with_wide_characters() -> None:
    assert table([("日本", "one"), ("a", "two")]) == "  日本  one\n  a     two"


# schema -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return workflow_schema(package.Registry([*package.default_registry().values(), *pack.NODES]))


def test_the_schema_is_one(graphflow: Command, tmp_path: Path) -> None:
    done = graphflow("schema", "--out", tmp_path / "schema.json")
    assert done.out == f"{tmp_path / 'schema.json'}\n"
    jsonschema.Draft202012Validator.check_schema(json.loads((tmp_path / "schema.json").read_text()))
    assert json.loads(graphflow("schema").out) == json.loads((tmp_path / "schema.json").read_text())


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_workflows_follow_the_schema(path: Path, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(json.loads(path.read_text()))


@pytest.mark.parametrize(
    "node",
    [
        {"type": "pack.Prnt"},
        {"type": "pack.Print"},
        {"type": "pack.Print", "text": 3},
        {"type": "pack.Print", "text": "a", "copies": 10},
        {"type": "pack.Print", "text": "a", "copies": "1"},
        {"type": "pack.Print", "text": "a", "copy": 1},
        {"type": "pack.Print", "text": {"from": "a b"}},
        {"type": "pack.Copy", "page": "a literal"},
        {"type": "Workflow"},
        {"text": "no type"},
    ],
)
def test_the_schema_refuses(node: dict[str, Any], schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    good = {"type": "pack.Print", "text": {"input": "t"}, "copies": {"input": "c"}}
    assert validator.is_valid({"graphflow": 1, "nodes": {"a": good}})
    assert not validator.is_valid({"graphflow": 1, "nodes": {"a": node}})


def test_the_schema_knows_the_types_of_inputs(schema: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema)

    def valid(**declaration: Any) -> bool:
        return bool(validator.is_valid({"graphflow": 1, "inputs": {"a": declaration}, "nodes": {}}))

    assert valid(type="int", default=3)
    assert valid(type="image")
    assert not valid(type="int", default="3")
    assert not valid(type="image", default="a.png")
    assert not valid(type="seed", default=-1)
    assert not valid(type="integer")


# progress -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1:00"), (3723, "1:02:03")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("width", [24, 40, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_bars_fit_any_terminal(graphflow: Command, width: int, encoding: str) -> None:
    from rich.console import Console

    from graphflow import Registry, Workflow, bind, execute, plan

    workflow = Workflow()
    page = workflow.add("print", pack.Print(), text="a")
    slow = workflow.add("a-rather-long-name-of-a-node-that-counts", pack.Slow(steps=3, pause=0), page=page)
    workflow.add("warn", pack.Warn(), page=slow)
    planned = plan(bind(workflow, registry=Registry(pack.NODES)))

    class Stream(StringIO):
        @property
        def encoding(self) -> str:  # type: ignore[override]
            return encoding

    stream = Stream()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    progress = LiveProgress(planned, console)
    seen = []
    with progress:
        execute(planned, listeners=[progress, lambda event: seen.append(progress._share())])
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    text = stream.getvalue()
    if encoding == "ascii":
        assert text.isascii()
    else:
        assert text.count("✓") == 3
    assert "mind the step" in text or width < 40
