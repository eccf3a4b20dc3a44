"""Answers about files, asked for once while something is bound or planned.

A node is asked dozens of times for what is known of its model, and each answer begins with a look at files that may
have changed. For one graph, or all points of a sweep, one look is enough; more than that, what is decided in one go
should rest on one state of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["cached_answers", "file_answer"]

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

_answers: ContextVar[dict[Any, Any] | None] = ContextVar("answers", default=None)
"""The answers so far; None where every question is a new one."""


@contextmanager
def cached_answers() -> Iterator[None]:
    """Have functions decorated with `file_answer` answer an equal call as before, for a while. May be nested."""
    if _answers.get() is not None:
        yield
        return
    token = _answers.set({})
    try:
        yield
    finally:
        _answers.reset(token)


def file_answer(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Decorate a function of hashable arguments that looks at files. What it raises is not remembered."""

    @wraps(function)
    def once(*arguments: Arguments.args, **named: Arguments.kwargs) -> Answer:
        answers = _answers.get()
        if answers is None:
            return function(*arguments, **named)
        call = (function, arguments, tuple(named.items()))
        if call not in answers:
            answers[call] = function(*arguments, **named)
        answer: Answer = answers[call]
        return answer

    return once
