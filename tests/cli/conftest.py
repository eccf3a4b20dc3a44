from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graphflow import default_registry
from graphflow.cli import main
from tests.helpers import cli_pack as pack
from tests.helpers.command_line import Done


@pytest.fixture
def graphflow(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Done]:
    """Run a command line in this process, with the nodes of the test pack."""
    registry = default_registry()
    classes = {cls.type_id: cls for cls in pack.NODES}
    monkeypatch.setattr(registry, "_classes", {**dict(registry), **classes})

    def run(*words: str | Path) -> Done:
        capfdbinary.readouterr()
        status = main([str(word) for word in words])
        sys.stderr.flush()
        out, err = capfdbinary.readouterr()
        return Done(status, out.decode(), err.decode())

    return run


@pytest.fixture(scope="session")
def installed_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, on PYTHONPATH, is an installation of the test pack."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(pack.__file__, folder / "printing_pack.py")
    info = folder / "printing_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: printing-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[graphflow.nodes]\nprinting = printing_pack\n")
    return folder


@pytest.fixture
def process(installed_pack: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command line in a fresh process, which an interrupt reaches."""
    # where the tests run in the background of a shell, they and their processes ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*words: str | Path, cwd: Path | None = None, **options: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(installed_pack), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", "import sys; from graphflow.cli import main; sys.exit(main())", *map(str, words)],
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=cwd,
            env=environment,
            **options,
        )

    yield start
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a workflow into the test's folder."""

    def save(name: str = "flow.json", **document: Any) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps({"graphflow": 1, **document}, indent=2))
        return path

    return save


@pytest.fixture
def letter(write: Callable[..., Path]) -> Path:
    """A workflow that prints a page and declares it as its output, without saving it."""
    return write(
        "letter.json",
        description="Print a letter",
        inputs={
            "text": {"type": "text", "default": "dear all", "description": "what it says"},
            "copies": {"type": "int", "default": 1},
            "size": {"type": "float", "default": 1.0},
            "bold": {"type": "bool", "default": False},
        },
        nodes={
            "print": {
                "type": "pack.Print",
                "text": {"input": "text"},
                "copies": {"input": "copies"},
                "size": {"input": "size"},
                "bold": {"input": "bold"},
            }
        },
        outputs={"page": {"from": "print"}},
    )
