"""The keywords of ``Workflow.run``, ``plan`` and ``validate``, taken apart into options, switches and values of inputs.

A declared input may have the name of an option (``device``, ``out``, ``sweep``). Its value is then given in the mapping
``inputs``; as a keyword the name would mean two things, so it is refused::

    workflow.run(seed=3, device="cpu")                      # a value, and a switch
    workflow.run({"device": "a lens"}, device="cpu")        # the input called device, and the switch
    workflow.run(device="cpu")                              # refused where the workflow declares an input device
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

from graphflow.errors import Problem, WorkflowError
from graphflow.machine.switches import SPELLINGS, Switches, all_switches

__all__ = ["takes_inputs"]


class _Declaring(Protocol):
    """Something that declares inputs: a workflow."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...


Method = TypeVar("Method", bound=Callable[..., Any])


def takes_inputs(method: Method) -> Method:
    """Decorate a method that takes a mapping of values and options, so that it takes keywords for values and switches.

    A method with an option ``switches`` takes every field of `Switches` as a keyword of its own too.
    """
    signature = inspect.signature(method)
    options = {name for name, each in signature.parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}
    spellings = SPELLINGS if "switches" in options else {}

    @functools.wraps(method)
    def call(self: _Declaring, inputs: Mapping[str, Any] | None = None, /, **keywords: Any) -> Any:
        inputs = keywords.pop("inputs", None) if inputs is None else inputs
        values = _values(inputs, keywords, {*options, *spellings}, self.inputs, method.__name__)
        given = {name: value for name, value in keywords.items() if name in options}
        switches = {spellings[name]: value for name, value in keywords.items() if name in spellings}
        if switches:
            given["switches"] = replace(given.get("switches", Switches()), **switches)
        return method(self, values, **given)

    call.__signature__ = _with_switches(signature) if spellings else signature  # type: ignore[attr-defined]
    return cast(Method, call)


def _values(
    inputs: Any, keywords: Mapping[str, Any], options: Collection[str], declared: Collection[str], method: str
) -> dict[str, Any]:
    """Return the values of inputs, given either way. Raises WorkflowError for a name that may mean two things."""
    if inputs is not None and not isinstance(inputs, Mapping):
        message = f"found {type(inputs).__name__} as inputs, expected a mapping of values by the name of an input"
        hint = "an input called 'inputs' is given as inputs={'inputs': …}" if "inputs" in declared else ""
        raise WorkflowError([Problem("input.form", message, hint=hint)])
    problems = []
    for name in keywords:
        if name in options:
            # beside a mapping, which would have the value of the input, the keyword can only be the option
            if inputs is None and name in declared:
                message = f"found the keyword '{name}', which is an option of {method}() and an input of the workflow"
                hint = f"give the input as inputs={{'{name}': …}}; beside inputs={{…}} the keyword is the option"
                problems.append(Problem("input.ambiguous", message, hint=hint))
        elif inputs and name in inputs:
            message = f"found a value for '{name}' in inputs, and as a keyword too"
            problems.append(Problem("input.twice", message, hint="give it once"))
    if problems:
        raise WorkflowError(problems)
    return {**(inputs or {}), **{name: value for name, value in keywords.items() if name not in options}}


def _with_switches(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature with a keyword for each switch, as ``help`` and notebooks show it."""
    kind = inspect.Parameter.KEYWORD_ONLY
    *before, values = signature.parameters.values()
    return signature.replace(
        parameters=[
            *before,
            *(inspect.Parameter(each.name, kind, default=each.default) for each in all_switches()),
            values,
        ]
    )
