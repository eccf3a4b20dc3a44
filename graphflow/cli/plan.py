"""Show the steps that a run would take, in order, without running any of them.

A step takes its inputs from the results of earlier steps (#1 is the result of step 1) or as plain values. Its key tells
equal work: two steps with one key have one result. A picture at a URL is downloaded, for its content is part of keys.
Beside the type of a step stands what memory it needs at its peak, its models included; one that needs more than there
is, is told of as an error (exit status 2).
"""

from __future__ import annotations

from typing import Any

from graphflow.budget import over_budget
from graphflow.cli.computing import add_computing, compute_for
from graphflow.cli.files import add_file, add_offline, add_values, input_values, read_workflow
from graphflow.cli.parser import Options, Parser
from graphflow.cli.report import count, report_problems, visible
from graphflow.cli.saving import bound_with_saved_outputs
from graphflow.cli.table import line_width, wrapped
from graphflow.errors import WorkflowError
from graphflow.graph import Constant
from graphflow.memory import Memory, show_bytes
from graphflow.node import Ref
from graphflow.plan import Plan, Step, plan
from graphflow.validation import show

__all__ = ["add_arguments", "run"]

KEY_DIGITS = 8


def add_arguments(parser: Parser) -> None:
    """The options of ``graphflow plan``."""
    add_file(parser)
    add_values(parser)
    add_offline(parser, "ask nothing of the network; of URLs, use what was downloaded before")
    add_computing(
        parser,
        device="cpu",
        device_help="auto, cpu, cuda, cuda:N or mps (default: cpu, which is the only one that needs no torch)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: Options) -> int:
    """Print the plan; warnings go to stderr."""
    workflow = read_workflow(options.file)
    graph = bound_with_saved_outputs(workflow, input_values(workflow, options.values), offline=options.offline)
    planned = plan(graph, results=False, compute=compute_for(options, graph))
    too_large = over_budget(planned)
    if planned.warnings or too_large:
        report_problems([*too_large, *planned.warnings])
    if options.json:
        import orjson

        print(orjson.dumps(_data(planned), option=orjson.OPT_INDENT_2).decode())
    else:
        print(visible(_text(planned)))
    return WorkflowError.exit_code if too_large else 0


def _text(planned: Plan) -> str:
    width = line_width()
    number_width = len(str(len(planned.steps)))
    indent = number_width + 3
    lines = []
    for step in planned.steps:
        size = f", {count(step.progress_steps, 'step')}" if step.progress_steps else ""
        head = f"{'#' + str(step.index + 1):>{number_width + 1}}  {step.name}"
        need = planned.memory(step)
        kind = f"{step.node.type_id}{size}{f', {show_bytes(need.total)}' if need else ''}"
        key = step.key[:KEY_DIGITS]
        gap = max(width - len(head) - len(kind) - len(key) - 4, 0)
        lines.append(f"{head}  {kind}{' ' * gap}  {key}")
        details = [f"{port}={_source(planned, value)}" for port, value in step.inputs.items()]
        details += [f"model={model}" for model in step.node.models()]
        if details:
            lines.append(wrapped("  ".join(details), indent=indent, width=width))
        freed = [_result(planned, ref) for ref in step.frees if ref.step != step.index]
        if freed:
            lines.append(wrapped("frees " + ", ".join(freed), indent=indent, width=width))
    lines += ["", _totals(planned)]
    return "\n".join(lines)


def _totals(planned: Plan) -> str:
    denoise = sum(step.progress_steps or 0 for step in planned.steps)
    models = planned.models()
    parts = [count(len(planned.steps), "step")]
    if denoise:
        parts.append(count(denoise, "denoise step"))
    parts.append(count(len(models), "model") + (f" ({', '.join(models)})" if models else ""))
    files = [claim for step in planned.steps if step.node.effect for claim in step.node.claims()]
    if files:
        parts.append("saves " + ", ".join(files))
    peak = _peak(planned)
    told = f"\npeak memory {show_bytes(peak[1].total)}, in #{peak[0].index + 1}" if peak else ""
    return ", ".join(parts) + told


def _peak(planned: Plan) -> tuple[Step, Memory] | None:
    """The step that needs most, and what it needs; None where nothing is known of any."""
    needs = [(step, need) for step in planned.steps if (need := planned.memory(step))]
    return max(needs, key=lambda pair: pair[1].total, default=None)


def _source(planned: Plan, value: Ref | Constant) -> str:
    if isinstance(value, Ref):
        return _result(planned, value)
    return show(value.value) if isinstance(value.value, (str, int, float, bool)) else repr(value.value)


def _result(planned: Plan, ref: Ref) -> str:
    several = len(planned.steps[ref.step].output_types) > 1
    return f"#{ref.step + 1}.{ref.output}" if several else f"#{ref.step + 1}"


def _data(planned: Plan) -> dict[str, Any]:
    return {
        "steps": [_step_data(planned, step) for step in planned.steps],
        "results": {name: {"step": ref.step, "output": ref.output} for name, ref in planned.wanted.items()},
        "models": list(planned.models()),
        "denoise_steps": sum(step.progress_steps or 0 for step in planned.steps),
        "files": [claim for step in planned.steps if step.node.effect for claim in step.node.claims()],
        "environment": dict(planned.environment),
        "peak_memory": peak[1].total if (peak := _peak(planned)) else None,
        "warnings": [problem.to_dict() for problem in planned.warnings],
    }


def _step_data(planned: Plan, step: Step) -> dict[str, Any]:
    need = planned.memory(step)
    inputs: dict[str, Any] = {}
    for port, value in step.inputs.items():
        if isinstance(value, Ref):
            inputs[port] = {"step": value.step, "output": value.output}
        else:
            plain = isinstance(value.value, (str, int, float, bool))
            inputs[port] = {"value": value.value if plain else repr(value.value)}
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
        "frees": [{"step": ref.step, "output": ref.output} for ref in step.frees],
        "key": step.key,
    }
