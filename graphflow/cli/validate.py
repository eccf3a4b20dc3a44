"""Check workflows and report every problem of every file. Nothing is run, and no weight is read.

Warnings alone are no failure. Nothing is downloaded: a picture at a URL is known if it was downloaded before.
"""

from __future__ import annotations

from typing import Any

from graphflow.cli.arguments import add_file, add_offline, add_values, input_values, read_workflow
from graphflow.cli.parser import Options, Parser
from graphflow.cli.report import summary, tell
from graphflow.errors import Problem, WorkflowError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow validate``."""
    add_file(parser, several=True)
    add_values(parser)
    add_offline(parser, "check for runs without the network: what was not downloaded yet is missing")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="say nothing about a file without problems")


def run(options: Options) -> int:
    """Validate each file; the status is that of the worst one."""
    results = [(file, *_problems(file, options)) for file in options.files]
    if options.json:
        _print_json(results)
    else:
        for file, problems, _ in results:
            for problem in problems:
                tell(_placed(problem, file))
            if problems or not options.quiet:
                tell(f"{file}: {summary(problems) if problems else 'ok'}")
    statuses = {status for _, _, status in results}
    return next((status for status in (2, 3) if status in statuses), 0)


def _problems(file: str, options: Options) -> tuple[list[Problem], int]:
    try:
        workflow = read_workflow(file)
        problems = workflow.validate(inputs=input_values(workflow, options.values), offline=options.offline)
    except WorkflowError as error:
        problems = list(error.problems)
    errors = [problem for problem in problems if problem.severity == "error"]
    return problems, WorkflowError.of(errors).exit_code if errors else 0


def _placed(problem: Problem, file: str) -> str:
    """Return the problem with its file, which one that is about the whole file may not name."""
    text = str(problem)
    return text if problem.position is not None or problem.code.startswith("missing.") else f"{file}: {text}"


def _print_json(results: list[tuple[str, list[Problem], int]]) -> None:
    import orjson

    data: list[dict[str, Any]] = [
        {"file": file, "valid": status == 0, "problems": [problem.to_dict() for problem in problems]}
        for file, problems, status in results
    ]
    print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())
