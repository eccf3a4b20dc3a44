"""The wheel holds what a plain install needs: every package, the workflows, the pocket models."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
POCKET = ROOT / "nodes/diffusion/pocket"


def packages() -> set[str]:
    """Every folder with Python files, under the name it is imported by."""
    found = {"graphflow.workflows"}
    for top, name in (("graphflow", "graphflow"), ("nodes", "graphflow.nodes")):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.parent.relative_to(ROOT / top).parts
            if "nodes" not in parts and "__pycache__" not in parts:
                found.add(".".join((name, *parts)))
    return found


def test_pyproject_lists_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(listed) == packages()


def test_the_tested_set_pins_every_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    own, wanted = "graphflow-diffusion", [*project["dependencies"], *extras["dev"], *extras["docs"]]
    (tested,) = [requirement for requirement in wanted if requirement.startswith(own)]
    for extra in tested.removeprefix(own).strip("[]").split(","):
        wanted += extras[extra]
    wanted.remove(tested)
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {requirement.partition(">=")[0] for requirement in wanted} <= pinned


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the files that git would give to anyone."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        origin, target = ROOT / name, source / name
        if name.startswith(("tests/", "training/")) or not (origin.exists() or origin.is_symlink()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_symlink():
            target.symlink_to(origin.readlink())
        else:
            target.write_bytes(origin.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_code_workflows_and_weights_once(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert len(names) == len(set(names))
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"graphflow"}
    for path in [*(ROOT / "graphflow").rglob("*.py"), *(ROOT / "nodes").rglob("*.py"), *(ROOT / "workflows").glob("*")]:
        relative = path.relative_to(ROOT).as_posix()
        if path.is_file() and "graphflow/nodes" not in relative:
            packed = relative if relative.startswith("graphflow/") else f"graphflow/{relative}"
            assert packed in names
    for path in POCKET.rglob("*"):
        if path.is_file():
            assert f"graphflow/nodes/diffusion/pocket/{path.relative_to(POCKET).as_posix()}" in names
    for part in ("base/unet", "base/vae", "x2/unet", "x4/unet", "controlnet-depth", "depth"):
        assert (POCKET / part / "diffusion_pytorch_model.safetensors").is_file()


def test_the_wheel_and_the_pocket_models_are_small(wheel: zipfile.ZipFile) -> None:
    sizes = [path.stat().st_size for path in POCKET.rglob("*") if path.is_file()]
    assert sum(sizes) <= 25_000_000
    assert max(sizes) <= 16_000_000
    assert sum(item.compress_size for item in wheel.infolist()) < 25_000_000
