"""Strict JSON with positions.

Reading is done by the standard library's parser (orjson is faster, but lets duplicate keys pass). Where a value stands
in the text is worked out only when a problem has to be reported, by one iterative scan.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from graphflow.errors import Position, Problem

__all__ = ["Path", "Source", "parse"]

Path = tuple[str | int, ...]
"""Keys and indices from the top of a document down to a value."""

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<punctuation>[{}\[\],:])|(?P<scalar>[^\s{}\[\],:"]+))', re.DOTALL
)


@dataclass(slots=True)
class _Open:
    """A container whose end has not been read yet."""

    kind: str
    path: Path
    key: str | None = None
    index: int = 0
    keys: set[str] = field(default_factory=set)


@dataclass
class Source:
    """A named JSON text that can tell where a value stands in it."""

    name: str
    text: str

    def position(self, path: Path = ()) -> Position:
        """Line and column of the value at ``path``, or of the nearest value around it that exists."""
        places, _ = self._places
        for length in range(len(path), -1, -1):
            if path[:length] in places:
                return self.at_offset(places[path[:length]])
        return Position(self.name)

    def duplicates(self) -> list[tuple[Path, Position]]:
        """Every key that stands twice in one object: its path, and where it stands for the second time."""
        return [(path, self.at_offset(offset)) for path, offset in self._places[1]]

    def at_offset(self, offset: int) -> Position:
        """Line and column of a character."""
        line_start = self.text.rfind("\n", 0, offset) + 1
        return Position(self.name, self.text.count("\n", 0, offset) + 1, offset - line_start + 1)

    @cached_property
    def _places(self) -> tuple[dict[Path, int], list[tuple[Path, int]]]:
        places: dict[Path, int] = {}
        duplicates: list[tuple[Path, int]] = []
        stack: list[_Open] = []
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup or ""
            start, token = match.start(kind), match[kind]
            top = stack[-1] if stack else None
            if kind == "punctuation" and token in "]}":
                if stack:
                    stack.pop()
            elif kind == "punctuation" and token in ",:":
                if token == "," and top is not None:
                    top.index, top.key = top.index + 1, None
            elif kind == "string" and top is not None and top.kind == "{" and top.key is None:
                top.key = str(json.loads(token, strict=False))
                if top.key in top.keys:
                    duplicates.append(((*top.path, top.key), start))
                top.keys.add(top.key)
            else:
                path: Path = () if top is None else (*top.path, top.index if top.kind == "[" else (top.key or ""))
                places.setdefault(path, start)
                if kind == "punctuation":
                    stack.append(_Open(token, path))
        return places, duplicates


def parse(source: Source) -> tuple[Any, list[Problem]]:
    """Read a JSON text; the value is meaningless if there is any problem.

    Refused besides malformed text: a key that stands twice in one object, NaN and infinity, numbers that overflow.
    """
    problems: list[Problem] = []
    repeated = False
    numbers: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        made = dict(items)
        repeated |= len(made) != len(items)
        return made

    def constant(text: str) -> float:
        numbers.append(text)
        return 0.0

    def real(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else constant(text)

    try:
        value = json.loads(source.text, object_pairs_hook=pairs, parse_constant=constant, parse_float=real)
    except json.JSONDecodeError as error:
        problems.append(
            Problem(
                "json.syntax",
                f"not valid JSON: {error.msg[0].lower()}{error.msg[1:]}",
                hint=_syntax_hint(source.text, error.pos),
                position=Position(source.name, error.lineno, error.colno),
            )
        )
        return None, problems
    except RecursionError:
        problems.append(
            Problem(
                "json.too_deep",
                "nested too deeply to read",
                hint="a workflow needs four levels at most",
                position=Position(source.name),
            )
        )
        return None, problems
    except ValueError as error:  # an integer of thousands of digits
        problems.append(Problem("json.number", f"unreadable number: {error}", position=Position(source.name)))
        return None, problems
    for text in numbers:
        found = re.search(rf"(?<![\w.\"+-]){re.escape(text)}(?![\w.\"])", source.text)
        problems.append(
            Problem(
                "json.number",
                f"found {text}, expected a finite number",
                hint="JSON has neither NaN nor infinity",
                position=source.at_offset(found.start()) if found else Position(source.name),
            )
        )
    if repeated:
        problems += [
            Problem(
                "json.duplicate_key",
                f"the key '{path[-1]}' stands twice in one object",
                hint="keep one of the two; otherwise the earlier one would be ignored in silence",
                position=position,
            )
            for path, position in source.duplicates()
        ]
    return value, problems


def _syntax_hint(text: str, offset: int) -> str:
    before = text[:offset].rstrip()
    rest = text[offset:].lstrip()
    if not text.strip():
        return "the file is empty"
    if before.endswith(",") and rest[:1] in ("}", "]"):
        return "remove the comma before it"
    if rest.startswith("'"):
        return 'strings are written in double quotes: "…"'
    if rest.startswith(("//", "/*", "#")):
        return 'JSON has no comments; use "description"'
    if text.lstrip()[:1] == "<":
        return "this looks like a web page, not a workflow"
    return ""
