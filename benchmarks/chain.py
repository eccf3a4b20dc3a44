"""The longest chain that ships, in a fresh process: text to image, redrawn, x2, x4. Seconds and peak memory."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time

from benchmarks.startup import GRAPHFLOW, ROOT

WORKFLOW = "workflows/text_to_image_to_super_res.json"


def main() -> None:
    """Print wall seconds, model load included, and the largest resident set of the process."""
    print("text → image → image → x2 → x4 (512 pixels), a fresh process, models loaded, on", os.cpu_count(), "cores")
    print("| run | seconds | peak memory, MB |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as out:
        for attempt in ("first", "second"):
            begun = time.perf_counter()
            subprocess.run(
                [*GRAPHFLOW, "run", str(ROOT / WORKFLOW), "--out", out], cwd=ROOT, capture_output=True, check=True
            )
            seconds = time.perf_counter() - begun
            # the largest of all children so far: other benchmarks that ran before, in this process, count too
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
            print(f"| {attempt} | **{seconds:.1f}** | **{peak:.0f}** |")
