"""Problems made of pydantic's errors: what was found, what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from graphflow.errors import Problem, nearest

__all__ = ["problems_from", "show", "show_typed"]

KIND_NAMES = {
    str: "a text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    type(None): "null",
    dict: "an object",
    list: "a list",
}

_EXPECTED = {
    "string_type": "a text",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
    "tuple_type": "a list",
    "none_required": "null",
}

_RANGE = {
    "greater_than": ("gt", "greater than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
}


def show(value: Any) -> str:
    """Show a value as a person would write it in a workflow file, cut where it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return f'"{value[:60]}…"' if len(value) > 61 else f'"{value}"'
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else "a list"
    return str(value)


def problems_from(error: ValidationError) -> Iterator[tuple[Problem, tuple[str | int, ...]]]:
    """One Problem for each thing pydantic reports, with the path of the value it is about."""
    for item in error.errors(include_url=False):
        kind, path, found = item["type"], item["loc"], item["input"]
        context = item.get("ctx", {})
        if kind == "extra_forbidden":
            yield Problem("field.unknown", f"unknown field '{path[-1]}'"), path
        elif kind == "missing":
            yield Problem("field.missing", f"the field '{path[-1]}' is missing"), path
        elif kind in _RANGE:
            key, text = _RANGE[kind]
            yield Problem("value.range", f"found {show(found)}, expected {text.format(_bound(context[key]))}"), path
        elif kind in _EXPECTED:
            yield Problem("value.type", f"found {show_typed(found)}, expected {_EXPECTED[kind]}"), path
        elif kind in ("literal_error", "enum"):
            choices = re.findall(r"'([^']*)'", context["expected"])
            hint = nearest(found, choices) if isinstance(found, str) and len(choices) < 50 else ""
            hint = hint if hint.startswith("did") else ""  # the message lists them all
            yield Problem("value.choice", f"found {show(found)}, expected {context['expected']}", hint=hint), path
        elif kind == "string_pattern_mismatch" and path and path[-1] == "[key]":
            rule = "a letter or _, then letters, digits, _ and -"
            fitting = re.sub(r"^(?=[\d-])", "_", re.sub(r"[^A-Za-z0-9_-]+", "_", str(path[-2])))
            hint = f'for example "{fitting}"' if fitting.strip("_") and len(fitting) <= 40 else ""
            yield Problem("name.form", f"found the name {show(path[-2])}, expected {rule}", hint=hint), path
        elif kind == "string_pattern_mismatch":
            yield Problem("value.form", f"found {show(found)}, expected a text of the form {context['pattern']}"), path
        elif kind in ("string_too_short", "string_too_long", "too_short", "too_long"):
            bound = "at least" if kind.endswith("short") else "at most"
            length = context.get("min_length", context.get("max_length"))
            unit = "characters" if kind.startswith("string") else "items"
            yield Problem("value.length", f"found {show(found)}, expected {bound} {length} {unit}"), path
        else:
            message = item["msg"][:1].lower() + item["msg"][1:].removeprefix("alue error, ")
            yield Problem("value.invalid", f"found {show(found)}: {message}"), path


def _bound(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else show(value)


def show_typed(value: Any) -> str:
    """Show a value with its kind, where its text alone leaves that open."""
    if isinstance(value, (bool, dict, list, tuple)) or value is None:
        return show(value)
    return f"{show(value)} ({KIND_NAMES.get(type(value), type(value).__name__)})"
