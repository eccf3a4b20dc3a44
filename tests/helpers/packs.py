"""Packs installed as a user installs them, and GraphFlow in a fresh process that sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["GRAPHFLOW", "call", "install"]

GRAPHFLOW = ("-c", "import sys; from graphflow.cli import main; sys.exit(main())")


def install(source: Path, target: Path) -> None:
    """Install a pack as a user does, without a network."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(target), str(source)], check=True, timeout=300
    )


def call(folder: Path, *words: str, packs: Path | str) -> subprocess.CompletedProcess[str]:
    """A command in a fresh process that sees the packs in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(packs), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
