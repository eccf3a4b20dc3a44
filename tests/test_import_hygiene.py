"""Imports: no heavy library on the way to `validate`, no test module in another one."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "PIL", "numpy"}


def modules() -> list[Path]:
    engine = [path for path in (ROOT / "graphflow").rglob("*.py") if "nodes" not in path.relative_to(ROOT).parts]
    return sorted(engine) + sorted((ROOT / "nodes").glob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_heavy_is_imported_at_the_top(path: Path) -> None:
    for statement in ast.parse(path.read_text()).body:
        names = []
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            names = [statement.module or ""]
        assert not {name.partition(".")[0] for name in names} & HEAVY, f"line {statement.lineno}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_never_names_the_node_library(path: Path) -> None:
    if path.parent == ROOT / "nodes":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("graphflow.nodes")
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("graphflow.nodes") for alias in node.names)


def test_importing_building_and_validating_loads_nothing_heavy() -> None:
    program = """
import sys
import graphflow as gf
from graphflow.nodes import Text2Image
workflow = gf.Workflow()
workflow.add("draw", Text2Image(), prompt="a red ball")
assert workflow.validate() == [], workflow.validate()
print(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""
    done = subprocess.run([sys.executable, "-c", program, *HEAVY], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_node_library_refuses_another_name() -> None:
    program = "import nodes"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "graphflow.nodes" in done.stderr.splitlines()[-1]


FILES_OF_TESTS = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", FILES_OF_TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_share_only_what_lies_in_helpers(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        taken = [name for name in names if name.partition(".")[0] == "tests"]
        assert all(name.startswith("tests.helpers.") for name in taken), taken


def test_the_public_names_are_sorted_and_exist() -> None:
    import graphflow

    assert graphflow.__all__ == sorted(graphflow.__all__)
    assert all(hasattr(graphflow, name) for name in graphflow.__all__)


def test_no_public_name_shadows_a_module() -> None:
    import graphflow

    modules = {path.stem for path in (ROOT / "graphflow").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(graphflow.__all__)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("graphflow.plan")


PUBLIC_MODULES = {
    "graphflow": "what everybody needs",
    "graphflow.environment": "names of environment variables, for messages",
    "graphflow.machine.memory": "memory of a device",
    "graphflow.machine.processor": "processors and their instructions",
    "graphflow.model_library": "what a pack tells the command line about models",
    "graphflow.record": "records in pictures",
    "graphflow.registry": "the modules of installed packs",
}
"""Modules whose names in ``__all__`` nodes may use, and what for."""


def test_every_public_module_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/packs.rst").read_text()
    described = {line.split(":: ")[1] for line in page.splitlines() if line.startswith(".. automodule::")}
    assert described == PUBLIC_MODULES.keys() - {"graphflow"}


@pytest.mark.parametrize("path", sorted((ROOT / "nodes").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nodes_use_only_public_names(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("graphflow.") for alias in node.names), f"line {node.lineno}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "graphflow":
            module, names = node.module or "", {alias.name for alias in node.names}
            if not f"{module}.".startswith("graphflow.nodes."):
                assert module in PUBLIC_MODULES, f"line {node.lineno}"
                assert names <= set(importlib.import_module(module).__all__), f"line {node.lineno}: {module}"
