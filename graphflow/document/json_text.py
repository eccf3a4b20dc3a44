"""Strict JSON with positions.

Reading is done by the standard library's parser (orjson is faster, but lets duplicate keys pass). Where a value stands
in the text is worked out only when a problem has to be reported, by one iterative scan.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Collection, Iterator
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


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


@dataclass(slots=True)
class _Open:
    """A container whose end has not been read yet."""

    kind: str
    path: Path
    key: str | None = None
    index: int = 0
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Places:
    """Offsets of the values and of the keys before them, and of the keys that stand twice."""

    values: dict[Path, int] = field(default_factory=dict)
    keys: dict[Path, int] = field(default_factory=dict)
    duplicates: list[tuple[Path, int]] = field(default_factory=list)


@dataclass
class Source:
    """A named JSON text that knows the places of its values."""

    name: str
    text: str

    def position(self, path: Path = (), *, key: bool = False) -> Position:
        """Line and column of the value at ``path``, or of the nearest value around it that exists.

        With ``key`` it is that of the key before the value.
        """
        places = self._places
        if key and path in places.keys:
            return self.at_offset(places.keys[path])
        for length in range(len(path), -1, -1):
            if path[:length] in places.values:
                return self.at_offset(places.values[path[:length]])
        return Position(self.name)

    def duplicates(self) -> list[tuple[Path, Position]]:
        """Return every key that stands twice in one object: its path, and where it stands for the second time."""
        return [(path, self.at_offset(offset)) for path, offset in self._places.duplicates]

    def scalars(self) -> Iterator[tuple[str, Position]]:
        """Yield every number and bare word with its place; what stands inside of texts is none."""
        for match in _TOKEN.finditer(self.text):
            if match["scalar"]:
                yield match["scalar"], self.at_offset(match.start("scalar"))

    def at_offset(self, offset: int) -> Position:
        """Line and column of a character."""
        line_start = self.text.rfind("\n", 0, offset) + 1
        return Position(self.name, self.text.count("\n", 0, offset) + 1, offset - line_start + 1)

    def broken_texts(self) -> Iterator[Position]:
        """Yield every text that holds half of a surrogate pair, which no encoding can write."""
        for match in _TOKEN.finditer(self.text):
            if match["string"] and _SURROGATE.search(match["string"]):
                try:
                    json.loads(match["string"], strict=False).encode()
                except UnicodeEncodeError:
                    yield self.at_offset(match.start("string"))

    @cached_property
    def _places(self) -> _Places:
        places = _Places()
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
                places.keys.setdefault((*top.path, top.key), start)
                if top.key in top.keys:
                    places.duplicates.append(((*top.path, top.key), start))
                top.keys.add(top.key)
            else:
                path: Path = () if top is None else (*top.path, top.index if top.kind == "[" else (top.key or ""))
                places.values.setdefault(path, start)
                if kind == "punctuation":
                    stack.append(_Open(token, path))
        return places


def _may_hold_surrogates(text: str) -> bool:
    """Check quickly, to spare most texts the search."""
    return not text.isascii() or "\\u" in text


@dataclass(slots=True)
class _Reader:
    """The hooks of the parser; they note what is refused, and leave its places to be found only then."""

    repeated: bool = False
    """A key stands twice in one object."""
    long: bool = False
    """An integer has more than 64 bits."""
    endless: set[str] = field(default_factory=set)
    """Numbers that are not finite, as they are written."""

    def pairs(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        """Make an object of its keys and values."""
        made = dict(items)
        if len(made) != len(items):
            self.repeated = True
        return made

    def constant(self, text: str) -> float:
        """Note NaN or infinity, written out or by its size."""
        self.endless.add(text)
        return 0.0

    def integer(self, text: str) -> int:
        """Read an integer."""
        value = int(text)
        if not -(2**63) <= value < 2**64:
            self.long = True
        return value

    def real(self, text: str) -> float:
        """Read a number with a fraction or an exponent."""
        value = float(text)
        return value if math.isfinite(value) else self.constant(text)


def parse(source: Source) -> tuple[Any, list[Problem]]:
    """Read a JSON text; the value is meaningless if there is any problem.

    Refused besides malformed text: a key that stands twice in one object, NaN and infinity, numbers that overflow,
    integers of more than 64 bits, half characters.
    """
    reader = _Reader()
    try:
        value = json.loads(
            source.text,
            object_pairs_hook=reader.pairs,
            parse_constant=reader.constant,
            parse_float=reader.real,
            parse_int=reader.integer,
        )
    except json.JSONDecodeError as error:
        return None, [_syntax_problem(source, error)]
    except RecursionError:
        hint = "a workflow needs four levels at most"
        place = Position(source.name)
        return None, [Problem("json.too_deep", "nested too deeply to read", hint=hint, position=place)]
    except ValueError:  # an integer of thousands of digits
        return None, list(_unreadable_numbers(source))
    problems: list[Problem] = []
    if reader.endless:
        problems += _endless_numbers(source, reader.endless)
    if reader.long:
        problems += _long_integers(source)
    if _may_hold_surrogates(source.text) and _SURROGATE.search(source.text):
        problems += _broken_texts(source)
    if reader.repeated:
        problems += _repeated_keys(source)
    return value, problems


def _unreadable_numbers(source: Source) -> Iterator[Problem]:
    for text, place in source.scalars():
        if len(text) > sys.get_int_max_str_digits() and text.lstrip("-").isdigit():
            message = f"found a number of {len(text.lstrip('-'))} digits, expected a shorter one"
            yield Problem("json.number", message, position=place)


def _endless_numbers(source: Source, written: Collection[str]) -> Iterator[Problem]:
    for text, place in source.scalars():
        if text in written:
            largest = "the largest number is about 1.8e308"
            hint = largest if text[-1].isdigit() else "JSON has neither NaN nor infinity"
            yield Problem("json.number", f"found {text}, expected a finite number", hint=hint, position=place)


def _long_integers(source: Source) -> Iterator[Problem]:
    for text, place in source.scalars():
        if re.fullmatch(r"-?\d+", text) and not -(2**63) <= int(text) < 2**64:
            shown = text if len(text) < 40 else text[:36] + "…"
            message = f"found {shown}, expected an integer of at most 64 bits"
            yield Problem("json.number", message, hint="the largest is 18446744073709551615", position=place)


def _broken_texts(source: Source) -> Iterator[Problem]:
    for place in source.broken_texts():
        message = "found half of a surrogate pair, expected whole characters"
        yield Problem("json.text", message, hint="write the character itself, without \\u", position=place)


def _repeated_keys(source: Source) -> Iterator[Problem]:
    hint = "keep one of the two; otherwise the earlier one would be ignored in silence"
    for path, place in source.duplicates():
        message = f"the key '{path[-1]}' stands twice in one object"
        yield Problem("json.duplicate_key", message, hint=hint, position=place)


_EXPECTED = {
    "Expecting value": "a value",
    "Expecting property name enclosed in double quotes": "a name in double quotes",
    "Expecting ',' delimiter": "a comma or the closing bracket",
    "Expecting ':' delimiter": "a colon",
    "Extra data": "the end of the file",
    "Unterminated string starting at": "its closing quote",
    "Invalid control character at": "the closing quote of the text before",
}
"""Messages of the parser, and what they mean; its wording differs between versions of Python."""


def _syntax_problem(source: Source, error: json.JSONDecodeError) -> Problem:
    text, offset, said = source.text, error.pos, error.msg
    if said.startswith("Illegal trailing comma"):  # newer Pythons point at the comma, older ones behind it
        offset += 1 + len(text[offset + 1 :]) - len(text[offset + 1 :].lstrip())
        said = "Expecting property name enclosed in double quotes" if text[offset] == "}" else "Expecting value"
    if said in _EXPECTED:
        message = f"not valid JSON: found {_found(text, offset)}, expected {_EXPECTED[said]}"
    else:
        message = f"not valid JSON: {said[:1].lower()}{said[1:].removesuffix(' at')}"
    return Problem(
        "json.syntax", message, hint=_syntax_hint(text, offset, said), position=source.at_offset(min(offset, len(text)))
    )


def _found(text: str, offset: int) -> str:
    if offset >= len(text):
        return "the end of the file"
    if text[offset] in "\r\n":
        return "the end of the line"
    if text[offset] == '"':
        written = re.compile(r'"[^"\n]{0,40}"?').match(text, offset)
        return written[0] if written else '"'
    token = re.compile(r"\w+|.", re.DOTALL).match(text, offset)
    return repr(token[0][:40]) if token else "nothing"


def _syntax_hint(text: str, offset: int, said: str) -> str:
    before = text[:offset].rstrip()
    rest = text[offset:].lstrip()
    if not text.strip():
        return "the file is empty"
    if before.endswith(",") and rest[:1] in ("}", "]"):
        return "remove the comma before it"
    if rest.startswith("'"):
        return 'texts are written in double quotes: "…"'
    if rest.startswith(("//", "/*", "#")):
        return 'JSON has no comments; use "description"'
    if text.lstrip()[:1] == "<":
        return "this looks like a web page, not a workflow"
    if said == "Expecting ',' delimiter" and rest[:1] in ('"', "{", "["):
        return "is a comma missing before it?"
    if said == "Invalid control character at":
        return "a line break inside of a text is written \\n"
    if said.startswith("Invalid \\escape"):
        return "a backslash inside of a text is written twice: \\\\"
    if not rest:
        return "was the file cut short?"
    return ""
