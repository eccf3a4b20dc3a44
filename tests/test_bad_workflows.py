"""Broken workflow files, one for each fault, beside what a person is told about it.

``tests/bad_workflows/NAME.json`` is named after its fault, ``NAME.txt`` holds the whole of what ``graphflow validate
NAME.json`` writes to stderr when it is called in that folder. `FOLDER` in it stands for the folder itself. After a
message was changed on purpose, ``python -m tests.test_bad_workflows`` writes the texts anew; read the difference.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphflow.cli import main

FOLDER = Path(__file__).parent / "bad_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
SOURCES = [Path(__file__).parents[1] / name for name in ("graphflow", "nodes")]

HEAVY = ("torch", "diffusers", "transformers", "PIL", "numpy")
"""Libraries that checking a workflow must not import."""

ENVIRONMENT = {"HF_HUB_CACHE": "/no-such-cache", "GRAPHFLOW_CACHE": "/no-such-cache", "GRAPHFLOW_OFFLINE": "1"}
"""Environment in which the texts are written."""

WITHOUT_A_FILE = {
    "attention.device": "an option of a run, not of a workflow",
    "attention.missing": "an option of a run, not of a workflow",
    "attention.unknown": "an option of a run, not of a workflow",
    "compile.missing": "an option of a run, not of a workflow",
    "compile.offload": "an option of a run, not of a workflow",
    "device.mixed": "an option of a run, not of a workflow",
    "device.missing": "an option of a run, not of a workflow",
    "device.unknown": "an option of a run, not of a workflow",
    "device.twice": "an option of a run, not of a workflow",
    "dtype.unknown": "an option of a run, not of a workflow",
    "file.unwritable": "an option of a run, not of a workflow",
    "file.damaged": "found by the decoder, when the picture is read",
    "input.loader": "needs an input whose kind no installed node reads, and a value for it",
    "input.missing": "needs a run: while a workflow is only checked, an input without a value is no fault",
    "input.twice": "a second input of one name, in Python; in a file it is json.duplicate_key",
    "json.too_deep": "how deep Python reads depends on its version; tests/document/test_documents.py",
    "keep.unknown": "an argument of a run, not of a workflow",
    "missing.answer": "found while a URL is asked for; tests/nodes/web/test_load_image_url.py",
    "missing.connection": "found while a URL is asked for; tests/nodes/web/test_load_image_url.py",
    "missing.host": "found while a URL is asked for; tests/nodes/web/test_load_image_url.py",
    "missing.package": "depends on what is installed; tests/nodes: test_upscaler_files, test_prompts, test_samplers",
    "missing.status": "found while a URL is asked for; tests/nodes/web/test_load_image_url.py",
    "memory.budget": "depends on the machine; tests/planning/test_memory_budget.py",
    "memory.unreadable": "an option of a run, not of a workflow",
    "missing.peft": "depends on what is installed; tests/nodes/diffusion/checkpoints/test_loras.py",
    "missing.repository": "found while downloading; tests/cli/test_models.py",
    "model.choice": "found while downloading; tests/cli/test_models.py",
    "manifest.damaged": "about a manifest; tests/cli/test_replay.py",
    "manifest.unfinished": "about a manifest; tests/cli/test_replay.py",
    "manifest.version": "about a manifest; tests/cli/test_replay.py",
    "model.prior": "needs a Kandinsky decoder; tests/nodes/diffusion/adapters/test_kandinsky.py",
    "model.unsafe": "found when the weights are read; tests/nodes/diffusion/checkpoints/test_upscaler_files.py",
    "node.twice": "a second node of one name, in Python; in a file it is json.duplicate_key",
    "offload.device": "an option of a run, not of a workflow",
    "offload.unknown": "an option of a run, not of a workflow",
    "output.twice": "a second output of one name, in Python; in a file it is json.duplicate_key",
    "path.url": "needs a node that reads files but fetches nothing; tests/test_fetching.py",
    "record.damaged": "about a picture; tests/cli/test_replay.py",
    "record.missing": "about a picture; tests/cli/test_replay.py",
    "record.value": "a value that was given in Python; tests/record/test_records.py",
    "record.version": "about a picture; tests/cli/test_replay.py",
    "url.certificate": "found while a URL is asked for; tests/nodes/web/test_load_image_url.py",
    "url.proxy": "found while a URL is asked for; tests/nodes/web/test_load_image_url.py",
    "url.redirects": "found while a URL is asked for; tests/nodes/web/test_load_image_url.py",
    "url.too_large": "found while a URL is asked for; tests/nodes/web/test_load_image_url.py",
    "uses.relative": "needs a workflow that is in no folder",
    "value.control_batch": "needs several depth maps, which no file holds; tests/nodes/test_controlnet_depth.py",
    "value.hand_over_steps": "needs a model of the SDXL family; tests/nodes/diffusion/adapters/test_sdxl.py",
    "value.invalid": "a rule of a parameter that only other packs have",
    "value.unwritable": "a value that no file can hold, given in Python",
    "input.ambiguous": "a keyword of Python; tests/run/test_keywords.py",
    "input.form": "a keyword of Python; tests/run/test_keywords.py",
    "together.range": "an option of a run, not of a workflow",
}
"""Codes that no workflow file can show by itself, each with the reason."""


def told(name: str) -> tuple[int, str]:
    """Exit status of ``graphflow validate`` on a file, and what it says, independent of this machine."""
    stream = io.StringIO()
    with contextlib.chdir(FOLDER), contextlib.redirect_stderr(stream):
        status = main(["validate", f"{name}.json"])
    return status, stream.getvalue().replace(str(FOLDER), "FOLDER")


def codes_in(text: str) -> list[str]:
    """The codes at the ends of the lines of a text, without those of warnings."""
    found = re.findall(r"^(.*) \[([a-z]+\.[a-z_]+)\]$", text, re.MULTILINE)
    return [code for line, code in found if ": warning: " not in line]


@pytest.fixture(autouse=True)
def _empty_caches_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_workflow_is_told_of_as_written_down(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphflow.run.job.execute", _must_not_run)
    status, text = told(name)
    assert text == (FOLDER / f"{name}.txt").read_text()
    codes = codes_in(text)
    assert codes, "a broken workflow without a fault"
    assert status == (3 if all(code.startswith("missing.") for code in codes) else 2)
    assert "Traceback" not in text
    assert capsys.readouterr().out == ""


def _must_not_run(*_: object, **__: object) -> None:
    raise AssertionError("something was run")


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_workflow_is_not_run(name: str, tmp_path: Path) -> None:
    stream = io.StringIO()
    with contextlib.chdir(FOLDER), contextlib.redirect_stderr(stream):
        status = main(["run", f"{name}.json", "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert status in (2, 3)
    assert "Traceback" not in stream.getvalue()
    assert codes_in(stream.getvalue())
    assert not (tmp_path / "out").exists()


def test_every_text_belongs_to_a_file() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == NAMES


def test_every_code_has_a_broken_workflow() -> None:
    shown = {code for name in NAMES for code in codes_in((FOLDER / f"{name}.txt").read_text())}
    warnings = {"input.unused", "type.hop", "url.stale", "model.variant", "value.size_floored", "value.strength_share"}
    there = set(codes_in_source()) - warnings
    assert there - shown - set(WITHOUT_A_FILE) == set(), "give each of these a file in tests/bad_workflows"
    assert not shown & set(WITHOUT_A_FILE), "these have a file now"
    assert not set(WITHOUT_A_FILE) - there, "these are gone"


def codes_in_source() -> Iterator[str]:
    """Every code in the source: what is given to Problem first, and every other text that begins like one of those."""
    firsts: set[str] = set()
    texts: set[str] = set()
    for folder in SOURCES:
        for path in sorted(folder.rglob("*.py")):
            for part in ast.walk(ast.parse(path.read_text())):
                texts |= _codes(part)
                if isinstance(part, ast.Call) and getattr(part.func, "id", "") == "Problem" and part.args:
                    firsts |= {code for leaf in ast.walk(part.args[0]) for code in _codes(leaf)}
    families = {code.partition(".")[0] for code in firsts} | {"missing", "model"}
    suffixes = {"json", "safetensors", "index", "png", "nodes", "output", "max", "limit_in_bytes"}
    for text in sorted(texts):
        family, _, rest = text.partition(".")
        if family in families and (text in firsts or rest not in suffixes):
            yield text


def _codes(part: ast.AST) -> set[str]:
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        return {part.value} if re.fullmatch(r"[a-z]+\.[a-z_]+", part.value) else set()
    return set()


def test_all_of_them_are_checked_in_one_process_without_heavy_imports() -> None:
    script = (
        "import sys\nfrom graphflow.cli import main\n"
        f"status = main(['validate', *{[f'{name}.json' for name in NAMES]!r}])\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else status)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert {line.split(".json")[0] for line in done.stderr.splitlines() if ".json: " in line} >= set(NAMES)


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    for stem in NAMES:
        (FOLDER / f"{stem}.txt").write_text(told(stem)[1])
