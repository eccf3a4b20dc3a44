"""Run again what a manifest or a picture records, and compare the files with the recorded ones.

FILE is a manifest of a run (DIR/manifests/*.json) or a PNG file that a run saved. No kept result is used. Each file is
bit-exact, close (a picture that differs by at most 2 of 255), different, or gone (the recorded file is not there, and
its hash is another one). The exit status is 0 where all are bit-exact or close, else 5. Differences between the
recorded environment and this one, such as versions of libraries, are reported before. Settings that are not given are
the recorded ones, where this machine has the device.

A manifest may name any folder of this machine to read from. A picture, which may be a stranger's, reads below its own
folder (or --folder) and what --set gives.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphflow.cli.arguments import add_offline, add_values, input_values
from graphflow.cli.computing import add_switches, given_switches
from graphflow.cli.display import progress_for
from graphflow.cli.interrupt import Interruption
from graphflow.cli.output import check_folder
from graphflow.cli.parser import Options, Parser
from graphflow.cli.report import tell, visible
from graphflow.cli.table import table
from graphflow.errors import Cancelled, GraphFlowError, WorkflowError
from graphflow.events import Event, FileSaved
from graphflow.machine.compute import Compute, resolve_device
from graphflow.machine.memory import device_kind
from graphflow.machine.switches import Switches
from graphflow.replay import Comparison, Replay, compare, differences, provenance, read_replay
from graphflow.run.job import prepare

__all__ = ["DIFFERS", "add_arguments", "run"]

DIFFERS = 5
"""Exit status of a replay that does not come near enough."""


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow replay``."""
    parser.add_argument("file", metavar="FILE", help="a manifest, or a PNG file that a run saved")
    parser.add_argument(
        "--out", metavar="DIR", help="folder to save in and keep (default: none, files are compared only)"
    )
    parser.add_argument(
        "--folder",
        metavar="DIR",
        help="where paths that stand in the workflow start (default: as then; of a picture, its folder)",
    )
    add_values(parser)
    add_offline(parser, "ask nothing of the network; of URLs, use what was downloaded before")
    add_switches(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="only errors and warnings on stderr")


def run(options: Options) -> int:
    """Replay FILE and compare."""
    if options.out:
        check_folder(Path(options.out))
    replay = read_replay(Path(options.file), Path(options.folder).resolve() if options.folder else None)
    replay = replay.with_values(input_values(replay.workflow, options.values))
    with contextlib.ExitStack() as stack:
        folder = options.out or stack.enter_context(tempfile.TemporaryDirectory(prefix="graphflow-replay-"))
        saved = _run_again(options, replay, Path(folder))
        if saved is None:
            return Cancelled.exit_code
        found = compare(replay, saved, Path(folder))
    if options.json:
        import orjson

        print(orjson.dumps({"files": [_data(each) for each in found]}, option=orjson.OPT_INDENT_2).decode())
    elif found:
        print(visible(table([(each.name, each.verdict, each.detail) for each in found])))
    if not found:
        tell("the run saved no files, so there is nothing to compare")
    sys.stdout.flush()
    return 0 if all(each.verdict in ("bit-exact", "close") for each in found) else DIFFERS


def _settings(given: Mapping[str, Any], recorded: Mapping[str, str], weights: int | None) -> Compute:
    """Return the settings that were given, and for the rest the recorded ones where this machine can keep them."""
    device = recorded.get("device", "cpu")
    asked = dict(given)
    if "device" not in asked:
        with contextlib.suppress(WorkflowError):
            asked["device"] = resolve_device(device)
    if device_kind(asked.get("device", "auto")) == device:
        as_recorded = {name: recorded[name] for name in ("dtype", "attention") if name in recorded}
        switched_on = {name: True for name in ("channels_last", "compile") if recorded.get(name) == "on"}
        with contextlib.suppress(WorkflowError):  # such as no compiler; what differs is reported
            return Switches(**{**as_recorded, **switched_on, **asked}).resolve(weights)
    return Switches(**asked).resolve(weights)


def _run_again(options: Options, replay: Replay, folder: Path) -> list[tuple[str, Path]] | None:
    """Return the files that are saved, with the names of their steps; None where the run was interrupted."""
    job = prepare(
        replay.workflow,
        replay.inputs,
        points=lambda: replay.points,
        bind=lambda values: replay.workflow.bind(values, offline=options.offline),
        compute=lambda weights: _settings(given_switches(options), replay.environment, weights),
        results=False,
    )
    job.refuse_over_budget()
    planned = job.plan
    for difference in differences(replay, planned):
        tell(f"warning: {difference}")
    saved: list[tuple[str, Path]] = []

    def collect(event: Event) -> None:
        if isinstance(event, FileSaved):
            saved.append((event.step, Path(event.path)))

    progress = progress_for(planned, quiet=options.quiet)
    with Interruption(frozenset(step.index for step in planned.steps if step.node.effect)) as interruption:
        try:
            with progress:
                job.execute(
                    output_folder=folder,
                    provenance=provenance(replay, list(job.graphs), planned.environment),
                    listeners=[interruption, collect, progress],
                    cancel=interruption.cancel,
                )
        except (KeyboardInterrupt, Cancelled):
            tell(progress.interruption())
            return None
        except GraphFlowError:
            raise
        except Exception as error:
            raise ReplayError(f"the replay failed: {type(error).__name__}: {error}") from error
    return saved


class ReplayError(GraphFlowError):
    """A node failed that ran through in the recorded run."""

    exit_code = 4


def _data(comparison: Comparison) -> dict[str, str]:
    return {"file": comparison.name, "verdict": comparison.verdict, "detail": comparison.detail}
