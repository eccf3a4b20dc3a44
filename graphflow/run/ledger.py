"""The ledger of a workflow: what its steps were made of in the last run, to explain why one runs again.

A ledger is kept in the store of results like any result, under a key that is made of the workflow's name, and written
again after each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from graphflow.document.validation import show
from graphflow.graph.bound import Constant
from graphflow.node import Ref
from graphflow.planning.key_parts import key_parts
from graphflow.planning.keys import digest
from graphflow.planning.planner import Plan, Step
from graphflow.store.interface import Store
from graphflow.types import PortType

__all__ = ["keep_ledger", "read_ledger", "reasons"]

RECORD = "ledger/1"
"""First element of what a ledger's key is made of; raise the number when the form changes."""

LARGEST = 2000
"""Steps; of longer plans there is no ledger, for it would cost more than it is worth."""

_TYPES = {"steps": PortType(str)}


def keep_ledger(store: Store, plan: Plan, name: str) -> None:
    """Remember what the steps of a plan are made of. ``name`` is that of the workflow's document."""
    if len(plan.steps) <= LARGEST:
        steps = {step.name: key_parts(step, plan) for step in plan.steps}
        store.put(_key(name), {"steps": orjson.dumps(steps).decode()}, _nobody)


def read_ledger(store: Store, name: str) -> Mapping[str, Any]:
    """Read what the steps of a workflow were made of in the last run, by name; empty where there is no ledger."""
    kept = store.get(_key(name), _TYPES, _nobody)
    steps: dict[str, Any] = orjson.loads(kept["steps"]) if kept else {}
    return steps


def reasons(step: Step, plan: Plan, ledger: Mapping[str, Any]) -> list[str]:
    """Explain why a step runs, in a few words each: the parts of its key that changed since the last run."""
    before = ledger.get(step.name)
    if before is None:
        return ["new"]
    now = key_parts(step, plan)
    if before["key"] == now["key"]:
        return ["its result is not kept any more"] if step.node.cached else ["quicker made than kept"]
    return list(_changes(step, plan, before, now)) or ["its code changed"]


def _changes(step: Step, plan: Plan, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before["type"] != now["type"]:
        yield f"{before['type']} became {now['type']}"
        return
    if before["version"] != now["version"]:
        yield f"version {before['version']} -> {now['version']} of {now['type']}"
    yield from _differences(before["parameters"], now["parameters"])
    if before["identity"] != now["identity"]:
        yield "the files of the model changed" if step.node.models() else "the file changed"
    for port in dict.fromkeys([*before["inputs"], *now["inputs"]]):
        was, is_now = before["inputs"].get(port), now["inputs"].get(port)
        if was == is_now:
            continue
        source = step.inputs.get(port)
        if isinstance(source, Ref):
            yield f"{port} comes from #{source.step + 1}, which changed"
        elif isinstance(source, Constant) and was is not None and "value" in was and "value" in (is_now or {}):
            yield f"{port} {show(was['value'])} -> {show(source.value)}"
        else:
            yield f"{port} changed"
    yield from _differences(before["environment"], now["environment"])


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *now]):
        was, is_now = before.get(name), now.get(name)
        if was != is_now:
            yield f"{name} {_told(was)} -> {_told(is_now)}"


def _told(value: Any) -> str:
    return "none" if value is None else show(value)


def _key(name: str) -> str:
    path = Path(name)
    return digest([RECORD, str(path.resolve()) if path.exists() else name])


def _nobody(message: str) -> None:
    """Report nothing: a ledger that cannot be read or kept changes no result."""
