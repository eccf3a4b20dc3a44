"""The options that run a workflow for several values of its inputs, and the job of ``run`` and ``plan``."""

from __future__ import annotations

import argparse
import glob
import re
from collections.abc import Mapping
from typing import Any

import orjson

from graphflow.build import Workflow
from graphflow.cli.arguments import value_of
from graphflow.cli.computing import switches_for
from graphflow.cli.parser import Options, Parser
from graphflow.cli.saving import bound_with_saved_outputs
from graphflow.document.workflow import FILE_INPUTS
from graphflow.errors import Problem, WorkflowError
from graphflow.graph.sweep import MOST_POINTS, Point, points_of
from graphflow.run.job import Job, prepare

__all__ = ["add_sweep", "prepare_run"]


def add_sweep(parser: Parser) -> None:
    """Add the options ``--sweep`` and ``--zip``."""
    parser.add_argument(
        "--sweep",
        dest="axes",
        metavar="NAME=A,B,…",
        action="append",
        default=[],
        type=_axis,
        help="run the workflow for each of these values of an input; given for several inputs, for all combinations. "
        "Also 1..8 for whole numbers, a pattern like photos/*.png for files, and a JSON list for texts with commas. "
        "Takes the place of the sweep in the file",
    )
    parser.add_argument(
        "--zip",
        action="store_true",
        help="take the values of several --sweep side by side, instead of all combinations",
    )


def prepare_run(options: Options, workflow: Workflow, values: Mapping[str, Any]) -> Job:
    """Prepare the job of ``run`` and ``plan``, with the nodes that save what nobody saves. Raises WorkflowError."""
    return prepare(
        workflow,
        values,
        points=lambda: _points(options, workflow, values),
        bind=lambda each: bound_with_saved_outputs(workflow, each, offline=options.offline),
        compute=switches_for(options).resolve,
        results=False,
    )


def _points(options: Options, workflow: Workflow, values: Mapping[str, Any]) -> list[Point]:
    if not options.axes:
        return points_of(workflow, None, values)
    axes: dict[str, list[Any]] = {}
    problems = []
    for name, text in options.axes:
        if name in axes or name in values:
            other = "--sweep" if name in axes else "--set"
            problems.append(Problem("input.twice", f"--sweep gives '{name}', and {other} too", hint="give it once"))
            continue
        try:
            axes[name] = _values(workflow, name, text)
        except WorkflowError as error:
            problems += error.problems
    if options.zip and len({len(found) for found in axes.values()}) > 1:
        counts = ", ".join(f"{len(found)} for '{name}'" for name, found in axes.items())
        problems.append(Problem("sweep.form", f"found {counts}, expected equally many to take them side by side"))
    if problems:
        raise WorkflowError.of(problems)
    if options.zip:
        return points_of(workflow, [dict(zip(axes, each, strict=True)) for each in zip(*axes.values(), strict=True)])
    return points_of(workflow, axes)


def _values(workflow: Workflow, name: str, text: str) -> list[Any]:
    declaration = workflow.inputs.get(name)
    kind = declaration.type if declaration else "text"
    if text.startswith("["):
        try:
            read = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise WorkflowError([Problem("sweep.form", f"--sweep {name}: found no JSON list: {error}")]) from None
        return list(read)
    found: list[Any] = []
    for word in text.split(","):
        whole = re.fullmatch(r"([+-]?\d{1,18})\.\.([+-]?\d{1,18})", word) if kind in ("int", "seed") else None
        if whole:
            first, last = int(whole[1]), int(whole[2])
            if last - first >= MOST_POINTS:
                message = f"--sweep {name}: {word} has {last - first + 1} values, expected at most {MOST_POINTS}"
                raise WorkflowError([Problem("sweep.too_large", message)])
            found += range(first, last + 1) if first <= last else range(first, last - 1, -1)
        elif kind in FILE_INPUTS and any(sign in word for sign in "*?["):
            files = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - the pattern may begin anywhere
            if not files:
                raise WorkflowError.of([Problem("missing.file", f"--sweep {name}: no file is like {word}")])
            found += files
        else:
            found.append(value_of(workflow, name, word))
    return found


def _axis(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not equals or not name or not text:
        raise argparse.ArgumentTypeError(f"found '{word}', expected name=value,value,…")
    return name, text
