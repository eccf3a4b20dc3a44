"""The FILE of a command, and the values for its inputs."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from typing import Any

from graphflow.build import Workflow, load
from graphflow.document.workflow import INPUT_KINDS, WorkflowDocument
from graphflow.errors import Problem, WorkflowError

__all__ = ["add_file", "add_offline", "add_values", "input_values", "read_workflow", "stem_of", "value_of"]


def add_file(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the argument FILE, or FILE…."""
    parser.add_argument(
        "files" if several else "file",
        metavar="FILE",
        nargs="+" if several else None,
        help="a workflow: path, name of a saved workflow, a PNG file that holds one, or - for stdin",
    )


def add_values(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--set``."""
    parser.add_argument(
        "--set",
        dest="values",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_assignment,
        help="value of an input of the workflow, may be given often; for an image or a depth map, the path "
        "of a file, or an https URL "
        "(`graphflow workflows FILE` lists the inputs)",
    )


def add_offline(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the option ``--offline``."""
    parser.add_argument("--offline", action="store_true", help=f"{help} (also: GRAPHFLOW_OFFLINE=1)")


def read_workflow(file: str) -> Workflow:
    """Return the workflow that FILE means. Raises WorkflowError."""
    if file == "-":
        return Workflow.loads(sys.stdin.buffer.read(), name="<stdin>")
    return load(file)


def stem_of(document: WorkflowDocument) -> str:
    """Name for files made from a workflow: that of its own file, kept to letters safe in paths."""
    name = re.split(r"[\\/]", document.name)[-1].removesuffix(".json").removesuffix(".png")
    return re.sub(r"[^\w-]+", "-", name, flags=re.ASCII).strip("-")[:80] or "workflow"


def input_values(document: WorkflowDocument, assignments: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the given texts as values of the declared types.

    A text that is none of its type is passed on as it stands: binding reports it together with every other fault, as it
    does for a name that is no input. Raises WorkflowError where two texts are for one input.
    """
    assignments = list(assignments)
    names = [name for name, _ in assignments]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise WorkflowError(
            Problem("input.twice", f"--set gives '{name}' {names.count(name)} times", hint="give it once")
            for name in twice
        )
    return {name: value_of(document, name, text) for name, text in assignments}


def value_of(document: WorkflowDocument, name: str, text: str) -> Any:
    """Return a text as a value of the type of an input; what is none of that type stays a text."""
    declaration = document.inputs.get(name)
    kind = INPUT_KINDS[declaration.type] if declaration else str
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is int:
        # the length bound keeps Python's own limit on digits away from the user
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,400}", text) else text
    if kind is float:
        return float(text) if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) else text
    return text


def _assignment(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"found '{word}', expected name=value")
    return name, text
