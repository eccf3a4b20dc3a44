"""Run a workflow. The paths of the files it saves go to stdout, one a line, and everything else to stderr.

A picture or depth map among the outputs that no node of the workflow saves is saved as <workflow>-<output>.png.
The results of steps are kept (`graphflow cache`): a run that is started again, after whatever ended it, goes on where
it was. Of a sweep each point saves into a folder of its own, and a contact sheet shows all of them.
"""

from __future__ import annotations

import secrets
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from graphflow.cli.arguments import add_file, add_offline, add_values, input_values, read_workflow, stem_of
from graphflow.cli.computing import add_store, add_switches, store_for
from graphflow.cli.display import progress_for
from graphflow.cli.interrupt import Interruption
from graphflow.cli.listeners import JsonLines, PathPrinter
from graphflow.cli.output import check_folder
from graphflow.cli.parser import Options, Parser
from graphflow.cli.progress import Progress
from graphflow.cli.report import report_problems, tell
from graphflow.cli.sweeping import add_sweep, prepare_run
from graphflow.errors import Cancelled, WorkflowError
from graphflow.events import Event, Listener, StepFailed
from graphflow.record.contact_sheet import write_contact_sheets
from graphflow.record.manifest import ManifestWriter
from graphflow.record.outcome import Outcome
from graphflow.record.record import holds_record
from graphflow.run.job import Job

__all__ = ["add_arguments", "run"]

NODE_FAILED = 4


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow run``."""
    add_file(parser)
    add_values(parser)
    add_offline(parser, "ask nothing of the network; of URLs, use what was downloaded before")
    parser.add_argument("--out", metavar="DIR", default="out", help="folder for what is saved (default: out)")
    add_switches(parser)
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
    """Run FILE; returns the exit status."""
    workflow = read_workflow(options.file)
    values = input_values(workflow, options.values)
    check_folder(Path(options.out))
    job = prepare_run(options, workflow, values)
    job.refuse_over_budget()
    return _Execution(options, job).run()


class _Execution:
    """One run with its listeners, and the report at its end."""

    def __init__(self, options: Options, job: Job) -> None:
        self.options, self.job = options, job
        self.output_folder = Path(options.out)
        self.manifest: ManifestWriter | None = None
        if not options.no_manifest:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            name = f"{stem_of(job.document)}-{stamp}-{secrets.token_hex(3)}.json"
            path = self.output_folder / "manifests" / name
            self.manifest = ManifestWriter(path, job.graphs, job.plan, job.inputs, job.points, self.output_folder)
        self.failed: str | None = None
        self.progress: Progress = progress_for(job.plan, quiet=options.quiet)
        self.paths: PathPrinter | None = None

    def run(self) -> int:
        """Execute the plan and say what came of it."""
        with ExitStack() as stack:
            writers = frozenset(step.index for step in self.job.plan.steps if step.node.effect)
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
            try:
                with self.progress:
                    outcome = self.job.execute(
                        output_folder=self.output_folder,
                        store=store_for(self.options),
                        listeners=listeners,
                        cancel=interruption.cancel,
                        metadata=not self.options.no_metadata,
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
        job = self.job
        if not job.points or self.options.no_sheet:
            return []
        try:
            return write_contact_sheets(job.points, outcome.files, self.output_folder, stem_of(job.document))
        except OSError as error:
            tell(f"warning: the contact sheet could not be written: {error}")
            return []
