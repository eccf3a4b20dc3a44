"""Run again what a manifest or a picture says, and tell how near the files come to those of then.

FILE is a manifest of a run (DIR/manifests/*.json) or a PNG file that a run saved. No kept result is used. Each file is
bit-exact, close (a picture that differs by at most 2 of 255), different, or gone (the file of then is not there, and
its hash is another one). The exit status is 0 where all are bit-exact or close, else 5. What is another now than then,
such as versions of libraries, is told before. Settings that are not given are those of then, where this machine has the
device.

A manifest may name any folder of this machine to read from. A picture, which may be a stranger's, reads below its own
folder (or --folder) and what --set gives.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from graphflow.cli.computing import add_computing, compute_for
from graphflow.cli.display import progress_for
from graphflow.cli.files import add_offline, add_values, input_values
from graphflow.cli.interrupt import Interruption
from graphflow.cli.output import check_folder
from graphflow.cli.parser import Options, Parser
from graphflow.cli.report import tell, visible
from graphflow.cli.table import table
from graphflow.errors import Cancelled, GraphFlowError, WorkflowError
from graphflow.events import Event, FileSaved
from graphflow.graph.bound import Graph
from graphflow.graph.sweep import bind_points
from graphflow.machine.compute import Compute, resolve_device
from graphflow.machine.memory import device_kind
from graphflow.planning.budget import refuse_over_budget
from graphflow.planning.planner import plan_together
from graphflow.replay import Comparison, Replay, compare, differences, provenance, read_replay
from graphflow.run.scheduler import execute

__all__ = ["DIFFERS", "add_arguments", "run"]

DIFFERS = 5
"""Exit status of a replay that does not come near enough."""


def add_arguments(parser: Parser) -> None:
    """The options of ``graphflow replay``."""
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
    add_computing(
        parser,
        device="auto",
        told_device="as then, or else auto",
    )
    parser.set_defaults(device=None, dtype=None, attention=None)
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


def _compute(options: Options, then: Mapping[str, str], graphs: Collection[Graph]) -> Compute:
    """The settings that were given, and for the rest those of then if this machine can keep them."""
    device = then.get("device", "cpu")
    if options.device is None:
        try:
            options.device = resolve_device(device)
        except WorkflowError:
            options.device = "auto"
    asked = {**vars(options), "dtype": options.dtype or "auto", "attention": options.attention or "auto"}
    if device_kind(options.device) == device:
        as_then = {
            **asked,
            "dtype": options.dtype or then.get("dtype", "auto"),
            "attention": options.attention or then.get("attention", "auto"),
            "channels_last": options.channels_last or then.get("channels_last") == "on",
            "compile": options.compile or then.get("compile") == "on",
        }
        with contextlib.suppress(WorkflowError):  # such as no compiler; what differs is told
            return compute_for(Options(**as_then), graphs)
    return compute_for(Options(**asked), graphs)


def _run_again(options: Options, replay: Replay, folder: Path) -> list[tuple[str, Path]] | None:
    """The files that are saved, with the names of their steps; None where the run was interrupted."""
    graphs = bind_points(
        replay.points, replay.inputs, lambda values: replay.workflow.bind(values, offline=options.offline)
    )
    planned = plan_together(graphs, results=False, compute=_compute(options, replay.environment, graphs.values()))
    refuse_over_budget(planned)
    for told in differences(replay, planned):
        tell(f"warning: {told}")
    saved: list[tuple[str, Path]] = []

    def collect(event: Event) -> None:
        if isinstance(event, FileSaved):
            saved.append((event.step, Path(event.path)))

    progress = progress_for(planned, quiet=options.quiet)
    with Interruption(frozenset(step.index for step in planned.steps if step.node.effect)) as interruption:
        try:
            with progress:
                execute(
                    planned,
                    output_folder=folder,
                    provenance=provenance(replay, list(graphs), planned.environment),
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
    """A node failed that ran through then."""

    exit_code = 4


def _data(comparison: Comparison) -> dict[str, str]:
    return {"file": comparison.name, "verdict": comparison.verdict, "detail": comparison.detail}
