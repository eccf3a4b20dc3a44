"""Whole commands in fresh processes: `validate` on every workflow and every broken one, and the demo."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GRAPHFLOW = [sys.executable, "-m", "graphflow"]


def seconds(command: list[str], folder: Path) -> float:
    """Wall seconds of one command in a fresh process, which may use the byte code that an earlier one left."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    return time.perf_counter() - begun


def main() -> None:
    """Print the tables."""
    print("`graphflow validate FILE` in a fresh process, wall seconds")
    print("| files | number | median | slowest |")
    print("|---|---|---|---|")
    for folder in ("workflows", "tests/bad_workflows"):
        files = sorted((ROOT / folder).glob("*.json"))
        seconds([*GRAPHFLOW, "validate", files[0].name], ROOT / folder)  # the first one warms the disk
        times = [seconds([*GRAPHFLOW, "validate", path.name], ROOT / folder) for path in files]
        print(f"| {folder} | {len(files)} | {statistics.median(times):.2f} | **{max(times):.2f}** |")
    bare = statistics.median(seconds([sys.executable, "-c", "pass"], ROOT) for _ in range(5))
    both = [sys.executable, "-c", "import pydantic, networkx"]
    floor = statistics.median(seconds(both, ROOT) for _ in range(5))
    print(f"floor: bare Python {bare:.2f} s, with pydantic and networkx {floor:.2f} s")
    print()
    print("`make demo` after the install, wall seconds on", os.cpu_count(), "cores")
    print("| run | seconds |")
    print("|---|---|")
    with tempfile.TemporaryDirectory() as out:
        for attempt in ("first", "second"):
            command = [*GRAPHFLOW, "run", str(ROOT / "workflows/text_to_image.json"), "--out", out]
            print(f"| {attempt} | {seconds(command, ROOT):.1f} |")
