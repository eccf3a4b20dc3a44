"""A stranger's node pack: installed, found and run without a change to GraphFlow."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.packs import GRAPHFLOW, call, install

EXAMPLE = Path(__file__).parents[1] / "examples" / "tiny_pack"

OTHER_PACK = '''
from graphflow import Image, Node


class Grayscale(Node, id="tiny.Grayscale", version=1):
    """Another class of the same id."""

    def run(self, *, image: Image) -> Image:
        return image
'''
OTHER_PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "graphflow-other-pack"
version = "1.0"
[project.entry-points."graphflow.nodes"]
other = "other_pack"
[tool.setuptools]
py-modules = ["other_pack"]
"""


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the tiny pack is installed in."""
    root = tmp_path_factory.mktemp("packs")
    shutil.copytree(EXAMPLE, root / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    install(root / "source", root / "installed")
    return root / "installed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the workflow of the pack, away from its source."""
    shutil.copy(EXAMPLE / "contact_sheet.json", tmp_path)
    return tmp_path


def test_its_nodes_are_listed_and_described(folder: Path, packs: Path) -> None:
    listed = call(folder, *GRAPHFLOW, "nodes", packs=packs)
    assert listed.returncode == 0, listed.stderr
    for name in ("tiny.ContactSheet", "tiny.Grayscale", "tiny.Grid", "Text2Image"):
        assert name in listed.stdout
    described = call(folder, *GRAPHFLOW, "nodes", "tiny.Grid", packs=packs)
    assert "pictures in a row" in described.stdout


def test_without_it_its_nodes_are_unknown(folder: Path, tmp_path: Path) -> None:
    told = call(folder, *GRAPHFLOW, "validate", "contact_sheet.json", packs=tmp_path)
    assert told.returncode == 2
    assert "unknown node type 'tiny.ContactSheet'" in told.stderr


def test_a_workflow_with_its_nodes_is_checked_and_run(folder: Path, packs: Path) -> None:
    checked = call(folder, *GRAPHFLOW, "validate", "contact_sheet.json", packs=packs)
    assert checked.returncode == 0, checked.stderr
    words = ["run", "contact_sheet.json", "--set", "steps=2", "--out", "out", "--device", "cpu"]
    done = call(folder, *GRAPHFLOW, *words, packs=packs)
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.split()] == ["sheet.png", "sheet-grey.png"]
    assert all((folder / line).stat().st_size > 100 for line in done.stdout.split())


def test_a_fault_in_its_fields_is_told_like_any_other(folder: Path, packs: Path) -> None:
    document = json.loads((folder / "contact_sheet.json").read_bytes())
    document["nodes"]["sheet"] |= {"colums": 3, "count": 0}
    (folder / "wrong.json").write_text(json.dumps(document))
    told = call(folder, *GRAPHFLOW, "validate", "wrong.json", packs=packs)
    assert told.returncode == 2
    assert "did you mean 'columns'?" in told.stderr and "expected at least 1" in told.stderr


def test_importing_it_needs_no_torch(folder: Path, packs: Path) -> None:
    script = "import sys, tiny_pack; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert call(folder, "-c", script, packs=packs).returncode == 0


def test_its_own_tests_pass(tmp_path: Path, packs: Path) -> None:
    for name in ("test_tiny_pack.py", "contact_sheet.json"):
        shutil.copy(EXAMPLE / name, tmp_path)
    done = call(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tiny_pack.py", packs=packs)
    assert done.returncode == 0, done.stdout


def test_two_packs_with_one_id_are_refused_and_both_named(folder: Path, packs: Path, tmp_path: Path) -> None:
    source = tmp_path / "other"
    source.mkdir()
    (source / "pyproject.toml").write_text(OTHER_PROJECT)
    (source / "other_pack.py").write_text(OTHER_PACK)
    install(source, tmp_path / "installed")
    told = call(folder, *GRAPHFLOW, "nodes", packs=f"{packs}{os.pathsep}{tmp_path / 'installed'}")
    assert told.returncode == 2
    assert "tiny_pack.Grayscale" in told.stderr and "other_pack.Grayscale" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_pack_that_cannot_be_imported_is_named(folder: Path, tmp_path: Path) -> None:
    packs = tmp_path / "broken"
    (packs / "broken_pack-1.0.dist-info").mkdir(parents=True)
    (packs / "broken_pack-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken-pack\nVersion: 1.0\n"
    )
    (packs / "broken_pack-1.0.dist-info" / "entry_points.txt").write_text("[graphflow.nodes]\nbroken = broken_pack\n")
    (packs / "broken_pack.py").write_text("import a_library_that_is_not_installed\n")
    told = call(folder, *GRAPHFLOW, "nodes", packs=packs)
    assert told.returncode == 2
    assert "broken-pack" in told.stderr and "a_library_that_is_not_installed" in told.stderr
    assert "Traceback" not in told.stderr
