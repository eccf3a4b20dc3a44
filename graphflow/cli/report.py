"""Messages to a person on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from graphflow.errors import Problem, printable

__all__ = ["count", "report_problems", "tell", "visible"]


def visible(text: str) -> str:
    """Lines that a terminal shows and does not obey, whatever a stranger's workflow holds."""
    return "\n".join(printable(line) for line in text.split("\n"))


def tell(text: str) -> None:
    """Write to stderr, whatever its encoding holds."""
    stream, text = sys.stderr, visible(text)
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def count(number: int, noun: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def summary(problems: Iterable[Problem]) -> str:
    """``2 errors, 1 warning``."""
    severities = [problem.severity for problem in problems]
    parts = [(severities.count("error"), "error"), (severities.count("warning"), "warning")]
    return ", ".join(count(number, noun) for number, noun in parts if number) or "no problems"


def report_problems(problems: Iterable[Problem], *, ending: str = "") -> None:
    """Write every problem to stderr, and at the end how many there were."""
    problems = list(problems)
    for problem in problems:
        tell(str(problem))
    tell(summary(problems) + (f"; {ending}" if ending else ""))
