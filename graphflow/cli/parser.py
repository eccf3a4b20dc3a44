"""Reading a command line: argparse, with the nearest known name for what it does not know."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Sequence
from typing import NoReturn

from graphflow.cli.table import wrapped
from graphflow.errors import nearest

__all__ = ["Options", "Parser", "UsageError"]

Options = argparse.Namespace


class UsageError(Exception):
    """The command line cannot be understood."""

    def __init__(self, message: str, program: str) -> None:
        super().__init__(message)
        self.program = program


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` instead of ending the process."""

    def __init__(
        self, *, prog: str, description: str | None, usage: str | None = None, add_version: bool = False
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=_paragraphs(description or ""),
            allow_abbrev=False,
            add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("-h", "--help", action="store_true", help="show this help")
        if add_version:
            self.add_argument("-V", "--version", action="store_true", help="show the version")

    def parse(self, words: Sequence[str]) -> Options | None:
        """Read the options on a command line; None where it asked for help, which was printed."""
        if {"-h", "--help"} & set(words[: words.index("--")] if "--" in words else words):
            print(self.format_help(), end="")
            return None
        options, unknown = self.parse_known_args(words)
        if unknown:
            known = [text for action in self._actions for text in action.option_strings]
            complaints = []
            for word in unknown:
                if word.startswith("-") and len(word) > 1:
                    hint = nearest(word.partition("=")[0], known)
                    complaints.append(f"unknown option {word}" + (f"; {hint}" if hint else ""))
                else:
                    complaints.append(f"unexpected argument '{word}'")
            raise UsageError("\n".join(complaints), self.prog)
        return options

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with argparse's message, unless an unknown option is what it stumbled over."""
        raise UsageError(re.sub(r"^argument ([^:]+): ", r"\1: ", message), self.prog)


def _paragraphs(text: str) -> str:
    """Return a docstring with its long paragraphs wrapped; what is short enough stays as it was written."""
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(part if max(map(len, part.split("\n"))) < 80 else wrapped(part, width=79) for part in parts)
