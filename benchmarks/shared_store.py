"""What a store of results is worth when processes are killed, and when several use it at once."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.worker import REGISTRY, workflow
from graphflow import DiskStore, PortType

STEPS = 24


def start(store: Path, log: Path, steps: int = STEPS) -> subprocess.Popen[str]:
    """A worker on a store."""
    command = [sys.executable, "-m", "benchmarks.worker", str(store), str(log), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    """What a worker printed last; raises RuntimeError with what it complained of."""
    out, errors = process.communicate(timeout=120)
    if process.returncode:
        raise RuntimeError(errors)
    return out.split()[-1]


def digest(folder: Path, steps: int = STEPS) -> str:
    """What a run prints that nobody disturbs."""
    return finish(start(folder / "undisturbed", folder / "undisturbed.log", steps))


def repeated(log: Path) -> int:
    """How many steps were started again although they had finished."""
    finished: set[str] = set()
    count = 0
    for line in log.read_text().splitlines():
        what, _, step = line.partition(" ")
        if what == "StepFinished":
            finished.add(step)
        elif what == "StepStarted" and step in finished:
            count += 1
    return count


def unclean(folder: Path, steps: int = STEPS) -> int:
    """Files in a store that are no whole results of the workflow, and results that are not there."""
    keys = {step.key for step in workflow(steps).plan(registry=REGISTRY).steps}
    store = DiskStore(folder)
    complaints: list[str] = []
    whole = {key for key in keys if store.get(key, {"value": PortType(str)}, complaints.append)}
    half_written = [path for path in (folder / "writing").iterdir() if path.is_file()]
    foreign = {entry.path.stem for entry in store.entries()} - keys
    # what the steps were made of is kept once for the workflow, beside the results
    return len(complaints) + len(keys - whole) + len(half_written) + max(len(foreign) - 1, 0)


def killed(folder: Path, random_: random.Random, expected: str, steps: int = STEPS) -> tuple[bool, int, int]:
    """Kill a run at a random moment, run again; whether that came out right, steps repeated, files left over."""
    store, log = folder / "store", folder / "log"
    victim = start(store, log, steps)
    assert victim.stdout is not None
    victim.stdout.readline()
    time.sleep(random_.uniform(0, 0.03 * steps))
    victim.kill()
    victim.communicate()
    log.touch()
    right = finish(start(store, log, steps)) == expected
    return right, repeated(log), unclean(store, steps)


def raced(folder: Path, processes: int, steps: int = STEPS) -> tuple[set[str], int]:
    """Several workers at once on an empty store: what they print, and how many steps ran more than once."""
    log = folder / "race.log"
    workers = [start(folder / "race", log, steps) for _ in range(processes)]
    printed = {finish(worker) for worker in workers}
    runs = Counter(line.split()[1] for line in log.read_text().splitlines() if line.startswith("StepFinished"))
    return printed, sum(count - 1 for count in runs.values())


def main() -> None:
    """Print the table."""
    trials = 50
    random_ = random.Random(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        expected = digest(folder)
        wrong = again = left = 0
        for trial in range(trials):
            own = folder / f"trial-{trial}"
            own.mkdir()
            right, repeats, files = killed(own, random_, expected)
            wrong, again, left = wrong + (not right), again + repeats, left + files
        printed, twice = raced(folder, 4)
    print("A store of results, a chain of", STEPS, "steps")
    print("| what | must be | measured |")
    print("|---|---|---|")
    print(f"| killed (SIGKILL) at {trials} random moments, run again: wrong results | 0 | **{wrong}** |")
    print(f"| finished steps that were computed again | 0 | **{again}** |")
    print(f"| damaged or half-written files left | 0 | **{left}** |")
    print(f"| 4 processes at once: different results | 0 | **{len(printed | {expected}) - 1}** |")
    print(f"| steps that more than one of them computed | <= 4 | **{twice}** |")
