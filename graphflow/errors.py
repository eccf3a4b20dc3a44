"""Everything that can go wrong, in one place.

The tree of exceptions::

    GraphFlowError                  base of all; ``exit_code`` is what the command line exits with
    ├── WorkflowError       (2)     a workflow has faults: carries every Problem, nothing was run
    │   └── MissingError    (3)     its only faults are models or files that are not on this machine
    ├── NodeDefinitionError (2)     a node class or a node pack is written wrongly (for pack authors)
    └── Cancelled         (130)     the run was asked to stop

What a node raises while it runs is none of these: it passes through untouched, with a note that names the node and
the shapes of its inputs (exit status 4 on the command line).

A `Problem` is one fault or one warning as plain data. Its message says what was found and what was expected, its hint
what to do; where it is (file, line, column, node, field) is filled in by the engine.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

__all__ = [
    "Cancelled",
    "GraphFlowError",
    "MissingError",
    "NodeDefinitionError",
    "Position",
    "Problem",
    "WorkflowError",
    "nearest",
]

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text file; line and column count from 1, 0 means unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault (severity "error") or one surprise worth knowing ("warning").

    ``code`` is stable and dotted, for programs to match on; codes that begin with ``missing.`` stand for a model or a
    file that is not on this machine.
    """

    code: str
    message: str
    field: str | None = None
    hint: str = ""
    severity: Severity = "error"
    node: str | None = None
    position: Position | None = None

    def at(self, *, node: str | None = None, position: Position | None = None) -> Problem:
        """Return the same problem with its place filled in where it was still open."""
        return replace(self, node=self.node or node, position=self.position or position)

    @property
    def where(self) -> str:
        """File, line, column, node and field, as far as they are known."""
        parts = [str(self.position)] if self.position else []
        if self.node is not None:
            parts.append(f"node '{self.node}'" + (f", field '{self.field}'" if self.field else ""))
        elif self.field:
            parts.append(f"'{self.field}'")
        return ": ".join(parts)

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        label = "warning: " if self.severity == "warning" else ""
        hint = f"\n    {printable(self.hint)}" if self.hint else ""
        return f"{printable(where)}{label}{printable(self.message)} [{self.code}]{hint}"

    def to_dict(self) -> dict[str, str | int | None]:
        """Return the problem as a flat JSON object."""
        position = self.position
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
            "node": self.node,
            "field": self.field,
            "file": position.file if position else None,
            "line": position.line if position and position.line else None,
            "column": position.column if position and position.column else None,
        }


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Make a text safe for a terminal: a stranger's file may hold line breaks and control characters."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class GraphFlowError(Exception):
    """Base class of what GraphFlow itself raises."""

    exit_code = 2


class WorkflowError(GraphFlowError):
    """A workflow that cannot run.

    ``problems`` holds every fault and warning that was found: errors first, then by their place, file after file.
    """

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = in_reading_order(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @staticmethod
    def of(problems: Sequence[Problem]) -> WorkflowError:
        """Return the fitting exception: MissingError where everything at fault is only absent from this machine."""
        errors = [problem for problem in problems if problem.severity == "error"]
        absent = bool(errors) and all(problem.code.startswith("missing.") for problem in errors)
        return (MissingError if absent else WorkflowError)(problems)


class MissingError(WorkflowError):
    """The workflow is sound, but a model or a file it needs is not on this machine."""

    exit_code = 3


class NodeDefinitionError(GraphFlowError):
    """A node class or a node pack breaks a rule; the message names the class and its module."""


class Cancelled(GraphFlowError):  # noqa: N818 - to be asked to stop is no error
    """The run was cancelled by its caller."""

    exit_code = 130


def in_reading_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Errors before warnings, and both as a person reads the files; what has no place comes first."""
    given = list(problems)
    files: dict[str, int] = {}
    for problem in given:
        if problem.position is not None:
            files.setdefault(problem.position.file, len(files))

    def place(problem: Problem) -> tuple[bool, int, int, int]:
        at = problem.position
        return (problem.severity != "error", files[at.file] if at else -1, at.line if at else 0, at.column if at else 0)

    return tuple(sorted(given, key=place))


def nearest(name: str, known: Iterable[str]) -> str:
    """Make a hint that offers the nearest known name, or lists the known ones when there are few and none is near."""
    names = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{lowered[close[0]]}'?"
    if names and len(names) <= 12:
        return "known here: " + ", ".join(names)
    return ""
