"""Sweeps: one workflow run for several values of its inputs.

A sweep is a mapping from inputs to lists of values, of which all combinations are run (a product, the last input varies
fastest), or a list of mappings, one for each run (values side by side). Each of its *points* has a folder of its own
below the output folder, called after its values, so that the name of a picture does not depend on what else is swept.
All points make one plan: what they share is computed once.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphflow.document.validation import show, show_typed
from graphflow.document.workflow import WorkflowDocument
from graphflow.errors import Position, Problem, WorkflowError, nearest
from graphflow.file_answers import cached_answers
from graphflow.graph.binder import bind
from graphflow.graph.bound import Graph
from graphflow.registry import Registry
from graphflow.types import digest_of

__all__ = ["MOST_POINTS", "Point", "bind_points", "folders_of", "points_of", "with_other_faults"]

Point = Mapping[str, Any]
"""Values of inputs by name."""

MOST_POINTS = 10_000

_EXPECTED = "expected lists of values by input, or a list of objects with one value for each input"


def points_of(document: WorkflowDocument, sweep: Any = None, given: Mapping[str, Any] | None = None) -> list[Point]:
    """Return the points of a sweep, by default the document's own; none where nothing is swept.

    An input that is ``given`` a value is not swept. Raises WorkflowError with all that is wrong with the sweep.
    """
    own = sweep is None
    sweep = document.sweep if own else sweep
    if sweep is None:
        return []
    place = document.position("sweep") if own else None
    problems = list(_faults(document, sweep, ("sweep",) if own else None))
    if problems:
        raise WorkflowError(problems)
    given = given or {}
    if isinstance(sweep, Mapping):
        axes = {name: values for name, values in sweep.items() if name not in given}
        count = 1
        for values in axes.values():
            count *= len(values)
        _bounded(count, place)
        points: list[Point] = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    else:
        _bounded(len(sweep), place)
        points = [{name: value for name, value in point.items() if name not in given} for point in sweep]
        if given:
            unique: dict[frozenset[tuple[str, Any]], Point] = {}
            for point in points:
                unique.setdefault(frozenset(point.items()), point)
            points = list(unique.values())
    if points in ([], [{}]):
        return []
    seen: set[str] = set()
    for folder in folders_of(points):
        if folder in seen:
            message = f"the sweep has the point {folder} twice"
            raise WorkflowError([Problem("sweep.twice", message, "sweep", "remove one", position=place)])
        seen.add(folder)
    return points


@contextmanager
def with_other_faults(
    document: WorkflowDocument, given: Mapping[str, Any], registry: Registry | None = None
) -> Iterator[None]:
    """Report the faults of a sweep with all other faults of the workflow and of the values given."""
    try:
        yield
    except WorkflowError as error:
        try:
            bind(document, given, registry=registry, checking=True)
        except WorkflowError as other:
            raise WorkflowError.of([*error.problems, *other.problems]) from None
        raise


def folders_of(points: Sequence[Point]) -> list[str]:
    """Return the folder of each point: ``seed=1,strength=0.3``; texts are shortened to what paths can hold."""
    return [_folder(point) for point in points]


@cached_answers()
def bind_points(
    points: Sequence[Point], values: Mapping[str, Any], bound: Callable[[Mapping[str, Any]], Graph]
) -> dict[str, Graph]:
    """Return the graph of each point by its folder; without points one graph, with files in the output folder itself.

    ``bound`` makes a graph of the values of the inputs. Raises WorkflowError with the faults of all points, each once.
    """
    if not points:
        return {"": bound(values)}
    graphs: dict[str, Graph] = {}
    problems: dict[tuple[Any, ...], Problem] = {}
    for folder, point in zip(folders_of(points), points, strict=True):
        try:
            graphs[folder] = bound({**values, **point})
        except WorkflowError as error:
            for problem in error.problems:
                problems.setdefault((problem.code, problem.node, problem.field, problem.message), problem)
    if any(problem.severity == "error" for problem in problems.values()):
        raise WorkflowError.of(list(problems.values()))
    return graphs


def _faults(document: WorkflowDocument, sweep: Any, path: tuple[str, ...] | None) -> Iterator[Problem]:
    def fault(code: str, message: str, *place: str | int, hint: str = "") -> Problem:
        position = document.position(*path, *place) if path else None
        return Problem(code, message, "sweep", hint, position=position)

    if isinstance(sweep, Mapping):
        if not sweep:
            yield fault("sweep.empty", f"found no inputs, {_EXPECTED}", hint="remove the sweep")
        for name, values in sweep.items():
            yield from _unknown(document, name, fault, name)
            if not isinstance(values, (list, tuple, range)):
                yield fault("sweep.form", f"'{name}': found {show_typed(values)}, expected a list of values", name)
            elif not values:
                yield fault("sweep.empty", f"'{name}': found an empty list, expected values", name)
            else:
                yield from _not_plain(name, values, fault)
        return
    if not isinstance(sweep, (list, tuple)):
        yield fault("sweep.form", f"found {show_typed(sweep)}, {_EXPECTED}")
        return
    if not sweep:
        yield fault("sweep.empty", f"found an empty list, {_EXPECTED}", hint="remove the sweep")
    for index, point in enumerate(sweep):
        if not isinstance(point, Mapping):
            yield fault("sweep.form", f"found {show_typed(point)}, expected an object of values by input", index)
            continue
        for name, value in point.items():
            yield from _unknown(document, name, fault, index, name)
            yield from _not_plain(name, [value], fault, index)
        if isinstance(sweep[0], Mapping) and point.keys() != sweep[0].keys():
            names = ", ".join(map(str, sweep[0])) or "none"
            message = (
                f"found values for {', '.join(map(str, point)) or 'none'}, expected the inputs of the first: {names}"
            )
            yield fault("sweep.form", message, index)


def _unknown(
    document: WorkflowDocument, name: Any, fault: Callable[..., Problem], *place: str | int
) -> Iterator[Problem]:
    if name not in document.inputs:
        hint = nearest(str(name), document.inputs) or "only what is declared under inputs can be swept"
        yield fault("input.unknown", f"the workflow has no input '{name}'", *place, hint=hint)


def _not_plain(name: str, values: Sequence[Any], fault: Callable[..., Problem], *place: str | int) -> Iterator[Problem]:
    for index, value in enumerate(values):
        if isinstance(value, (list, tuple, Mapping)):
            yield fault("sweep.form", f"'{name}': found {show_typed(value)}, expected one value", *place, name, index)


def _bounded(count: int, place: Position | None) -> None:
    if count > MOST_POINTS:
        message = f"the sweep has {count} points, expected at most {MOST_POINTS}"
        hint = "split it into several runs"
        raise WorkflowError([Problem("sweep.too_large", message, "sweep", hint, position=place)])


def _folder(point: Point) -> str:
    name = ",".join(f"{key}={_slug(value)}" for key, value in point.items())
    if len(name) <= 150:
        return name
    return f"{name[:140]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _slug(value: Any) -> str:
    """Return a value as a part of a file's name; where it is not the whole value, with a hash of it."""
    if isinstance(value, (bool, int, float)) or value is None:
        return show(value)
    text = str(value) if isinstance(value, (str, Path)) else digest_of(value)
    slug = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:40].rstrip("-.")
    return slug if slug == text else f"{slug}~{hashlib.sha256(text.encode()).hexdigest()[:6]}"
