"""A stranger's family of models: made from its page alone, installed, and run without a change to GraphFlow."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.helpers.packs import GRAPHFLOW, call, install

PAGE = Path(__file__).parents[1] / "docs" / "add-a-family.md"
FILES = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.z_image(tmp_path_factory.mktemp("model"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The pack of the page."""
    root = tmp_path / "source"
    for match in FILES.finditer(PAGE.read_text()):
        path = root / match["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(match["text"])
    (root / "my_z_image/__init__.py").touch()
    return root


@pytest.fixture
def packs(source: Path, tmp_path: Path) -> Path:
    """A folder that the pack is installed in."""
    install(source, tmp_path / "installed")
    return tmp_path / "installed"


@pytest.fixture
def workflow(model: Path, tmp_path: Path) -> Path:
    draw = {"type": "Text2Image", "model": str(model), "width": 64, "height": 64, "prompt": "a red ball", "seed": 4}
    nodes = {"draw": draw, "save": {"type": "SaveImage", "image": {"from": "draw"}, "name": "ball"}}
    path = tmp_path / "ball.json"
    path.write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
    return path


def done(told: subprocess.CompletedProcess[str]) -> str:
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_its_models_are_described_checked_and_planned_without_torch(workflow: Path, packs: Path, model: Path) -> None:
    assert "my-z-image" in done(call(workflow.parent, *GRAPHFLOW, "models", "list", str(model), packs=packs))
    script = "import sys; from graphflow.cli import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    for command in ("validate", "plan"):
        done(call(workflow.parent, "-c", script, command, workflow.name, packs=packs))
    (step,) = [
        step
        for step in json.loads(done(call(workflow.parent, *GRAPHFLOW, "plan", workflow.name, "--json", packs=packs)))[
            "steps"
        ]
        if step["type"] == "Denoise"
    ]
    assert (step["denoise_steps"], step["memory"]["activations"] > 0) == (8, True)


def test_it_draws_what_the_built_in_family_draws(workflow: Path, packs: Path, tmp_path: Path) -> None:
    """Check that it draws what diffusers draws."""
    ours = done(call(tmp_path, *GRAPHFLOW, "run", workflow.name, "--out", "ours", packs=packs)).strip()
    theirs = done(call(tmp_path, *GRAPHFLOW, "run", workflow.name, "--out", "theirs", packs=tmp_path)).strip()
    script = (
        "import sys, numpy, PIL.Image as P; one, other = (numpy.asarray(P.open(f)).astype(int) for f in sys.argv[1:]); "
        "sys.exit(bool(abs(one - other).max()))"
    )
    done(call(tmp_path, "-c", script, ours, theirs, packs=tmp_path))


def keys(folder: Path, packs: Path) -> dict[str, str]:
    planned = json.loads(done(call(folder, *GRAPHFLOW, "plan", "ball.json", "--json", packs=packs)))
    return {step["name"]: step["key"] for step in planned["steps"]}


def test_a_change_of_its_adapter_changes_the_keys_of_what_it_computes(workflow: Path, packs: Path) -> None:
    before = keys(workflow.parent, packs)
    adapter = packs / "my_z_image/adapter.py"
    adapter.write_text(adapter.read_text() + "\n# changed\n")
    after = keys(workflow.parent, packs)
    assert before != after
    assert before.keys() == after.keys()


def test_two_families_of_one_name_are_refused_and_both_named(workflow: Path, packs: Path) -> None:
    families = packs / "my_z_image/families.py"
    families.write_text(families.read_text().replace('name="my-z-image"', 'name="sdxl"'))
    told = call(workflow.parent, *GRAPHFLOW, "validate", workflow.name, packs=packs)
    assert told.returncode == 2
    assert "two families are called 'sdxl'" in told.stderr and "my_z_image.adapter:ZImage" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_pack_that_cannot_be_imported_is_named(workflow: Path, packs: Path) -> None:
    (packs / "my_z_image/families.py").write_text("import a_library_that_is_not_installed\n")
    told = call(workflow.parent, *GRAPHFLOW, "validate", workflow.name, packs=packs)
    assert told.returncode == 2
    assert "the families 'my_z_image' of my-z-image" in told.stderr
    assert "a_library_that_is_not_installed" in told.stderr and "Traceback" not in told.stderr


def test_a_family_with_one_task_is_planned_for_it_and_refused_for_others(
    workflow: Path, source: Path, tmp_path: Path, model: Path
) -> None:
    record = source / "my_z_image/families.py"
    text = record.read_text()
    assert text.count('        "image-to-image": ') == 1
    record.write_text(re.sub(r'        "image-to-image": .*\n', "", text))
    install(source, tmp_path / "one-task")
    done(call(tmp_path, *GRAPHFLOW, "validate", workflow.name, packs=tmp_path / "one-task"))
    done(call(tmp_path, *GRAPHFLOW, "plan", workflow.name, packs=tmp_path / "one-task"))
    document = json.loads(workflow.read_text())
    again = {"type": "Image2Image", "model": str(model), "prompt": "a cone", "image": {"from": "draw"}}
    document["nodes"] |= {"again": again, "save": {**document["nodes"]["save"], "image": {"from": "again"}}}
    (tmp_path / "again.json").write_text(json.dumps(document))
    told = call(tmp_path, *GRAPHFLOW, "validate", "again.json", packs=tmp_path / "one-task")
    assert told.returncode == 2
    assert "is of the family my-z-image, expected one of the families" in told.stderr
