"""Choose the command, run it, and turn what went wrong into a message and an exit status.

0 done, 1 a bug in GraphFlow, 2 invalid workflow or usage, 3 a model or file is missing, 4 a node failed,
5 a replay differs, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from graphflow.cli.parser import Parser, UsageError
from graphflow.cli.report import report_problems, tell
from graphflow.errors import GraphFlowError, WorkflowError, nearest
from graphflow.version import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "run": "run a workflow; the paths of saved files go to stdout",
    "validate": "check workflows and tell every problem, without running anything",
    "plan": "show the steps that a run would take",
    "nodes": "list the node types, or describe one",
    "workflows": "list the saved workflows, or describe one",
    "models": "list the models that a workflow needs, or download them",
    "replay": "run again what a manifest or a picture says, and compare",
    "cache": "tell what results are kept, or remove some",
    "schema": "print the JSON Schema of workflow files, for editors",
    "draw": "draw a workflow as Mermaid text or SVG",
}

INTERRUPTED = 130
PIPE_CLOSED = 141

_NOTES = """graphflow COMMAND --help says more.
A FILE is a path, the name of a saved workflow, or - for stdin.
Exit status: 0 done, 2 invalid, 3 a model or file is missing, 4 a node failed,
5 a replay differs, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except UsageError as error:
        tell(f"{error}\ntry: {error.program} --help")
        return 2
    except WorkflowError as error:
        _trace(debug)
        report_problems(error.problems, ending="nothing was run")
        return error.exit_code
    except GraphFlowError as error:
        _trace(debug)
        tell(f"{error}")
        return error.exit_code
    except KeyboardInterrupt:
        tell("interrupted; nothing was run")
        return INTERRUPTED
    except BrokenPipeError:
        # the interpreter flushes stdout once more at its end and would complain there
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return PIPE_CLOSED
    except Exception as error:
        _trace(debug)
        if debug:
            return 1
        tell(
            f"this is a bug in GraphFlow or in a node pack: {type(error).__name__}: {error}\n"
            "run again with --debug for the traceback, and please report it"
        )
        return 1


def _trace(debug: bool) -> None:
    if debug:
        import traceback

        tell(traceback.format_exc().rstrip())


def _dispatch(words: list[str]) -> int:
    parser = _parser()
    if not words:
        tell(parser.format_help().rstrip())
        return 2
    name = words[0]
    if name in ("-h", "--help", "help"):
        print(parser.format_help(), end="")
        return 0
    if name in ("-V", "--version"):
        print(f"graphflow {__version__}")
        return 0
    if name.startswith("-"):
        raise UsageError(f"unknown option {name}{_or(nearest(name, ['--help', '--version']))}", parser.prog)
    for word in words:
        _refuse_broken(word, parser.prog)
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS)
        if name.endswith(".json"):
            hint = f"did you mean 'graphflow run {name}'?"
        raise UsageError(f"there is no command '{name}'{_or(hint)}", parser.prog)
    command = importlib.import_module(f"graphflow.cli.{name}")
    inner = Parser(prog=f"graphflow {name}", description=command.__doc__)
    command.add_arguments(inner)
    inner.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = inner.parse(words[1:])
    if options is None:
        return 0
    status: int = command.run(options)
    return status


def _refuse_broken(word: str, program: str) -> None:
    """Raise UsageError for bytes that are no text: neither a workflow, a manifest nor a picture could name them."""
    try:
        word.encode()
    except UnicodeEncodeError:
        given = ascii(word.encode("utf-8", "surrogateescape"))[2:-1]
        raise UsageError(f"found the argument '{given}', expected UTF-8 text", program) from None


def _or(hint: str) -> str:
    return f"; {hint}" if hint else ""


def _parser() -> Parser:
    parser = Parser(
        prog="graphflow",
        usage="graphflow COMMAND …",
        description="Run diffusion workflows that are plain JSON files.",
        add_version=True,
    )
    width = max(map(len, COMMANDS))
    parser.epilog = "\n".join(
        [
            "commands:",
            *(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()),
            "",
            _NOTES,
        ]
    )
    return parser
