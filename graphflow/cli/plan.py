"""Show the steps that a run would take, in order, without running any of them.

A step takes its inputs from the results of earlier steps (#1 is the result of step 1) or as plain values. Steps with
equal keys do equal work and share one result. A picture at a URL is downloaded, for its content is part of keys.
Before the key stands what a run would do: take a kept result (cached), nothing (not needed, because what comes after is
kept), or run the step, and then why: what in its key is another than when the workflow ran last.
Beside the type of a step stands what memory it needs at its peak, its models included; one that needs more than there
is, is reported as an error (exit status 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphflow.cli.arguments import add_file, add_offline, add_values, input_values, read_workflow
from graphflow.cli.computing import add_store, add_switches, store_for
from graphflow.cli.parser import Options, Parser
from graphflow.cli.report import count, report_problems, tell, visible
from graphflow.cli.sweeping import add_sweep, prepare_run
from graphflow.cli.table import line_width, wrapped
from graphflow.document.validation import show
from graphflow.errors import WorkflowError
from graphflow.graph.bound import Constant
from graphflow.machine.memory import Memory, show_bytes
from graphflow.node import Ref
from graphflow.planning.planner import Plan, Step
from graphflow.run.ledger import read_ledger, reasons
from graphflow.run.lookup import look_up
from graphflow.store.interface import Store

__all__ = ["add_arguments", "run"]

KEY_DIGITS = 8


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow plan``."""
    add_file(parser)
    add_values(parser)
    add_offline(parser, "ask nothing of the network; of URLs, use what was downloaded before")
    add_switches(parser)
    parser.add_argument("--out", metavar="DIR", default="out", help="folder that a run would save in (default: out)")
    add_sweep(parser)
    add_store(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: Options) -> int:
    """Print the plan; warnings go to stderr."""
    workflow = read_workflow(options.file)
    job = prepare_run(options, workflow, input_values(workflow, options.values))
    planned, too_large = job.plan, job.over_budget()
    if planned.warnings or too_large:
        report_problems([*too_large, *planned.warnings])
    forecast = _Forecast(planned, store_for(options), Path(options.out), workflow.name)
    if options.json:
        import orjson

        print(orjson.dumps(_data(planned, forecast), option=orjson.OPT_INDENT_2).decode())
    else:
        print(visible(_text(planned, forecast)))
    return WorkflowError.exit_code if too_large else 0


class _Forecast:
    """Forecast of a run: what it would do with each step, and why."""

    def __init__(self, planned: Plan, store: Store | None, output_folder: Path, name: str) -> None:
        self._planned = planned
        self.states = look_up(planned, store, output_folder, tell).states
        self._ledger = read_ledger(store, name) if store is not None else {}

    def why(self, step: Step) -> list[str]:
        """Reasons why a step runs; empty where it does not, or the workflow never ran."""
        if self.states[step.index] != "run" or not self._ledger:
            return []
        return ["it saves"] if step.node.effect else reasons(step, self._planned, self._ledger)


_STATES = {"run": "", "cached": "cached", "unneeded": "not needed"}


def _text(planned: Plan, forecast: _Forecast) -> str:
    width = line_width()
    number_width = len(str(len(planned.steps)))
    indent = number_width + 3
    lines = []
    for step, last in zip(planned.steps, planned.freed(), strict=True):
        size = f", {count(step.progress_steps, 'step')}" if step.progress_steps else ""
        head = f"{'#' + str(step.index + 1):>{number_width + 1}}  {step.name}"
        need = planned.memory(step)
        kind = f"{step.node.type_id}{size}{f', {show_bytes(need.total)}' if need else ''}"
        key = step.key[:KEY_DIGITS]
        if state := _STATES[forecast.states[step.index]]:
            key = f"{state}  {key}"
        gap = max(width - len(head) - len(kind) - len(key) - 4, 0)
        lines.append(f"{head}  {kind}{' ' * gap}  {key}")
        details = [f"{port}={_source(planned, value)}" for port, value in step.inputs.items()]
        details += [f"model={model}" for model in step.node.models()]
        if details:
            lines.append(wrapped("  ".join(details), indent=indent, width=width))
        if why := forecast.why(step):
            lines.append(wrapped("runs: " + "; ".join(why), indent=indent, width=width))
        if others := [f"#{each + 1}" for each in step.batch if each != step.index]:
            lines.append(wrapped("computed together with " + ", ".join(others), indent=indent, width=width))
        freed = [_result(planned, ref) for ref in last if ref.step != step.index]
        if freed:
            lines.append(wrapped("frees " + ", ".join(freed), indent=indent, width=width))
    lines += ["", _totals(planned, forecast)]
    return "\n".join(lines)


def _totals(planned: Plan, forecast: _Forecast) -> str:
    running = [step for step in planned.steps if forecast.states[step.index] == "run"]
    denoise = sum(step.progress_steps or 0 for step in running)
    models = tuple(dict.fromkeys(model for step in running for model in step.node.models()))
    parts = [count(len(planned.steps), "step")]
    if len(running) < len(planned.steps):
        parts.append(f"{len(running)} to run")
    if denoise:
        parts.append(count(denoise, "denoise step"))
    parts.append(count(len(models), "model") + (f" ({', '.join(models)})" if models else ""))
    files = [claim for step in planned.steps if step.node.effect for claim in step.node.claims()]
    if files:
        parts.append("saves " + ", ".join(files))
    peak = _peak(planned)
    memory = f"\npeak memory {show_bytes(peak[1].total)}, in #{peak[0].index + 1}" if peak else ""
    return ", ".join(parts) + memory


def _peak(planned: Plan) -> tuple[Step, Memory] | None:
    """Return the step that needs most, and what it needs; None where nothing is known of any."""
    needs = [(step, need) for step in planned.steps if (need := planned.memory(step))]
    return max(needs, key=lambda pair: pair[1].total, default=None)


def _source(planned: Plan, value: Ref | Constant) -> str:
    if isinstance(value, Ref):
        return _result(planned, value)
    return show(value.value) if value.plain else repr(value.value)


def _result(planned: Plan, ref: Ref) -> str:
    several = len(planned.steps[ref.step].output_types) > 1
    return f"#{ref.step + 1}.{ref.output}" if several else f"#{ref.step + 1}"


def _data(planned: Plan, forecast: _Forecast) -> dict[str, Any]:
    return {
        "steps": [
            {**_step_data(planned, step, last), "state": forecast.states[step.index], "why": forecast.why(step)}
            for step, last in zip(planned.steps, planned.freed(), strict=True)
        ],
        "results": {name: {"step": ref.step, "output": ref.output} for name, ref in planned.wanted.items()},
        "models": list(planned.models()),
        "denoise_steps": sum(step.progress_steps or 0 for step in planned.steps),
        "files": [claim for step in planned.steps if step.node.effect for claim in step.node.claims()],
        "environment": dict(planned.environment),
        "peak_memory": peak[1].total if (peak := _peak(planned)) else None,
        "warnings": [problem.to_dict() for problem in planned.warnings],
    }


def _step_data(planned: Plan, step: Step, last: Sequence[Ref]) -> dict[str, Any]:
    need = planned.memory(step)
    inputs: dict[str, Any] = {}
    for port, value in step.inputs.items():
        if isinstance(value, Ref):
            inputs[port] = {"step": value.step, "output": value.output}
        else:
            inputs[port] = {"value": value.value if value.plain else repr(value.value)}
    return {
        "index": step.index,
        "name": step.name,
        "type": step.node.type_id,
        "version": step.node.version,
        "parameters": step.node.model_dump(mode="json"),
        "inputs": inputs,
        "outputs": {name: str(kind) for name, kind in step.output_types.items()},
        "denoise_steps": step.progress_steps,
        "models": list(step.node.models()),
        "memory": {"weights": need.weights, "activations": need.activations, "total": need.total} if need else None,
        "effect": step.node.effect,
        "batch": list(step.batch),
        "frees": [{"step": ref.step, "output": ref.output} for ref in last],
        "key": step.key,
    }
