"""Run a workflow. The paths of the files it saves go to stdout, one a line, and everything else to stderr.

A picture or depth map among the outputs that no node of the workflow saves is saved as <workflow>-<output>.png.
The results of steps are kept (`graphflow cache`): a run that is started again, after whatever ended it, goes on where
it was. Of a sweep each point saves into a folder of its own, and a contact sheet shows all of them.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graphflow.cli.computing import add_computing, add_store, compute_for, store_for
from graphflow.cli.display import progress_for
from graphflow.cli.files import add_file, add_offline, add_values, input_values, read_workflow, stem_of
from graphflow.cli.interrupt import Interruption
from graphflow.cli.listeners import JsonLines, PathPrinter
from graphflow.cli.output import check_folder
from graphflow.cli.parser import Options, Parser
from graphflow.cli.progress import Progress
from graphflow.cli.report import report_problems, tell
from graphflow.cli.sweeping import add_sweep, graphs_of, swept_points
from graphflow.errors import Cancelled, WorkflowError
from graphflow.events import Event, Listener, StepFailed
from graphflow.graph.bound import Graph
from graphflow.graph.sweep import Point
from graphflow.planning.budget import refuse_over_budget
from graphflow.planning.planner import Plan, plan_together
from graphflow.record.contact_sheet import write_contact_sheets
from graphflow.record.manifest import ManifestWriter
from graphflow.record.outcome import Outcome
from graphflow.record.record import holds_record, records_of
from graphflow.run.ledger import keep_ledger
from graphflow.run.scheduler import execute

__all__ = ["add_arguments", "run"]

NODE_FAILED = 4


def add_arguments(parser: Parser) -> None:
    """The options of ``graphflow run``."""
    add_file(parser)
    add_values(parser)
    add_offline(parser, "ask nothing of the network; of URLs, use what was downloaded before")
    parser.add_argument("--out", metavar="DIR", default="out", help="folder for what is saved (default: out)")
    add_computing(
        parser,
        device="auto",
        told_device="auto, the first GPU or the CPU",
    )
    add_sweep(parser)
    parser.add_argument("--no-sheet", action="store_true", help="write no contact sheet of a sweep to DIR")
    add_store(parser)
    parser.add_argument(
        "--events", metavar="FILE", help="write what happens as JSON lines; - for stdout, instead of the paths"
    )
    parser.add_argument("--quiet", action="store_true", help="only errors and warnings on stderr")
    parser.add_argument(
        "--no-metadata",
        action="store_true",
        help="leave workflow and inputs out of the PNG files that are saved (JPEG and WebP have none)",
    )
    parser.add_argument(
        "--no-manifest",
        action="store_true",
        help="write no record of the run to DIR/manifests, from which it can be replayed",
    )


def run(options: Options) -> int:
    """Run FILE; the status tells how it went."""
    workflow = read_workflow(options.file)
    values = input_values(workflow, options.values)
    check_folder(Path(options.out))
    points = swept_points(options, workflow, values)
    graphs = graphs_of(workflow, points, values, offline=options.offline)
    planned = plan_together(graphs, results=False, compute=compute_for(options, graphs.values()))
    refuse_over_budget(planned)
    return _Execution(options, graphs, planned, values, points).run()


class _Execution:
    """One run with its listeners, and what is told about it at the end."""

    def __init__(
        self,
        options: Options,
        graphs: Mapping[str, Graph],
        planned: Plan,
        values: dict[str, Any],
        points: list[Point],
    ) -> None:
        self.options, self.planned, self.values = options, planned, values
        self.graph = next(iter(graphs.values()))
        self.records = records_of(graphs, points, values, planned.environment)
        self.manifest: ManifestWriter | None = None
        if not options.no_manifest:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            name = f"{stem_of(self.graph.document)}-{stamp}-{secrets.token_hex(3)}.json"
            path = Path(options.out) / "manifests" / name
            self.manifest = ManifestWriter(path, graphs, planned, values, points, Path(options.out))
        self.points = points
        self.output_folder = Path(options.out)
        self.failed: str | None = None
        self.progress: Progress = progress_for(planned, quiet=options.quiet)
        self.paths: PathPrinter | None = None

    def run(self) -> int:
        """Execute the plan and say what came of it."""
        with ExitStack() as stack:
            writers = frozenset(step.index for step in self.planned.steps if step.node.effect)
            interruption = stack.enter_context(Interruption(writers))
            # first, so that nobody hears of a step before its interruption is settled
            listeners: list[Listener] = [interruption, self._notice]
            if self.manifest is not None:
                listeners.append(self.manifest)  # before those that fail where nobody reads what they write
            listeners.append(self.progress)
            if self.options.events:
                listeners.append(stack.enter_context(JsonLines(self.options.events)))
            if self.options.events != "-":
                self.paths = PathPrinter(hold=self.progress.live and sys.stdout.isatty())
                listeners.append(self.paths)
            store = store_for(self.options)
            try:
                with self.progress:
                    outcome = execute(
                        self.planned,
                        output_folder=self.output_folder,
                        cache=store,
                        listeners=listeners,
                        cancel=interruption.cancel,
                        provenance=None if self.options.no_metadata else self.records,
                    )
            except (KeyboardInterrupt, Cancelled):
                self._release_paths()
                tell(self.progress.interruption())
                return Cancelled.exit_code
            except BrokenPipeError:
                raise
            except Exception as error:
                self._release_paths()
                if self.failed is None:
                    raise
                if isinstance(error, WorkflowError) and not self.options.debug:
                    report_problems(error.problems, ending=f"the run stopped in '{self.failed}'")
                    return error.exit_code
                return self._node_failed(error)
            finally:
                if store is not None:
                    keep_ledger(store, self.planned, self.graph.document.name)
            self._release_paths()
            self._finish(outcome)
        return 0

    def _notice(self, event: Event) -> None:
        if isinstance(event, StepFailed):
            self.failed = event.step

    def _release_paths(self) -> None:
        if self.paths is not None:
            self.paths.release()

    def _node_failed(self, error: Exception) -> int:
        if self.options.debug:
            import traceback

            tell("".join(traceback.format_exception(error)).rstrip())
            return NODE_FAILED
        tell(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            tell(f"    {note}")
        tell("run again with --debug for the traceback")
        return NODE_FAILED

    def _finish(self, outcome: Outcome) -> None:
        sheets = self._sheets(outcome)
        manifest = self.manifest
        if manifest is not None and manifest.unwritten:
            tell(f"warning: the manifest could not be written: {manifest.unwritten}")
        if self.options.no_metadata:
            for path in filter(holds_record, outcome.files):
                tell(f"warning: {path} was there already, with the workflow in it; delete it and run again")
        if self.options.quiet:
            return
        for name, value in outcome.results.items():
            if isinstance(value, (str, int, float, bool)):
                tell(f"{name}: {value}")
        tell(self.progress.summary(len(outcome.files)))
        for sheet in sheets:
            tell(f"contact sheet: {sheet}")
        if manifest is not None and not manifest.unwritten:
            tell(f"manifest: {manifest.path}")

    def _sheets(self, outcome: Outcome) -> list[Path]:
        if not self.points or self.options.no_sheet:
            return []
        try:
            return write_contact_sheets(self.points, outcome.files, self.output_folder, stem_of(self.graph.document))
        except OSError as error:
            tell(f"warning: the contact sheet could not be written: {error}")
            return []
