"""List the models that a workflow needs, or download those that are not on this machine.

list FILE tells family, latent space, native size, bytes, and whether a model is here. pull takes workflows and
references of models ("owner/name", "owner/name@revision + lora:owner/name"), tells what it will download, and
downloads it into the Hugging Face cache: of each component one set of safetensors files, in half precision where
there is one, never a pickle.

It honours HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN and HF_ENDPOINT.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from graphflow.cli.arguments import add_values, input_values, read_workflow
from graphflow.cli.parser import Options, Parser, UsageError
from graphflow.cli.report import count, tell, visible
from graphflow.cli.table import table
from graphflow.document.library import saved_workflows
from graphflow.errors import Problem, WorkflowError
from graphflow.graph.binder import models_named
from graphflow.model_library import Download, ModelDescription, ModelLibrary, model_library

__all__ = ["add_arguments", "run"]

VARIANTS = ("fp16", "none")


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow models``."""
    parser.add_argument("action", metavar="list|pull", choices=("list", "pull"), help="what to do")
    parser.add_argument(
        "items",
        metavar="FILE|REFERENCE",
        nargs="+",
        help="a workflow (path ending in .json, name of a saved one, or -), or the reference of a model",
    )
    add_values(parser)
    parser.add_argument("--json", action="store_true", help="list: print JSON")
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        default="fp16",
        help="pull: weights in half precision where there are any, or plain ones (default: fp16)",
    )
    parser.add_argument("--dry-run", action="store_true", help="pull: tell what would be downloaded, and stop")


def run(options: Options) -> int:
    """List or pull; a model that is not on this machine is what makes the status of a list 3."""
    library = model_library()
    if library is None:
        raise UsageError("no installed node pack knows models", "graphflow models")
    named = _named(options)
    if options.action == "pull":
        return _pull(library, named, options)
    return _list(library, named, options)


def _named(options: Options) -> dict[str, list[str]]:
    """Return every model that is meant, with the nodes that need it."""
    saved = {name for name, _ in saved_workflows()}
    named: dict[str, list[str]] = {}
    for item in options.items:
        if item == "-" or item.endswith(".json") or item in saved:
            workflow = read_workflow(item)
            values = input_values(workflow, options.values)
            for reference, nodes in models_named(workflow, values).items():
                named.setdefault(reference, []).extend(nodes)
        else:
            named.setdefault(item, [])
    return named


def _list(library: ModelLibrary, named: dict[str, list[str]], options: Options) -> int:
    found = [library.describe(reference) for reference in named]
    problems = [problem for model in found for problem in _problems_of(model, named[model.reference])]
    if options.json:
        import orjson

        data = [_data(model, named[model.reference]) for model in found]
        print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())
    elif found:
        print(visible(table([_HEAD, *(_row(model) for model in found)])))
    for problem in problems if not options.json else ():
        tell(str(problem))
    return WorkflowError.of(problems).exit_code if problems else 0


def _problems_of(model: ModelDescription, nodes: Iterable[str]) -> list[Problem]:
    """Return the problems that keep a model from being used, with the nodes that need it."""
    names = ", ".join(f"'{name}'" for name in nodes)
    named = []
    for problem in model.problems:
        message = f"{problem.message} (needed by {names})" if names else problem.message
        named.append(replace(problem, message=message, field=None))
    return named


_HEAD = ("MODEL", "FAMILY", "SPACE", "PIXELS", "BYTES", "")


def _row(model: ModelDescription) -> tuple[str, ...]:
    if model.problems:
        absent = all(problem.code.startswith("missing.") for problem in model.problems)
        return (model.reference, "", "", "", "", "not on this machine" if absent else "unusable")
    size = f"{model.width} x {model.height}" if model.width else ""
    return (model.reference, model.family or "", model.space or "", size, _bytes(model.nbytes), "on this machine")


def _data(model: ModelDescription, nodes: list[str]) -> dict[str, Any]:
    return {
        "reference": model.reference,
        "nodes": nodes,
        "family": model.family,
        "space": model.space,
        "width": model.width,
        "height": model.height,
        "bytes": model.nbytes,
        "present": not model.problems,
        "problems": [problem.to_dict() for problem in model.problems],
    }


def _pull(library: ModelLibrary, named: dict[str, list[str]], options: Options) -> int:
    variant = None if options.variant == "none" else options.variant
    wanted = _wanted(library, named, variant)
    fetched = 0
    while wanted:
        for download in wanted:
            _announce(download)
        files = [(download, file) for download in wanted for file in download.files]
        total = sum(file.nbytes or 0 for _, file in files)
        tell(f"{count(len(files), 'file')}, {_bytes(total)} to download")
        if options.dry_run:
            return 0
        for number, (download, file) in enumerate(files, 1):
            tell(f"[{number}/{len(files)}] {download.repository}/{file.name} ({_bytes(file.nbytes)})")
            _fetch(library, download, file)
        fetched += len(files)
        # only now is it known whether a checkpoint of one file lacks a vocabulary.
        again = _wanted(library, named, variant)
        if again == wanted:
            break
        wanted = again
    tell(f"{count(fetched, 'file')} downloaded" if fetched else "nothing to download: everything is on this machine")
    return 0


def _fetch(library: ModelLibrary, download: Download, file: Any) -> None:
    if sys.stderr.isatty():
        library.fetch(download, file)
        return
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        library.fetch(download, file)
    finally:
        enable_progress_bars()


def _wanted(library: ModelLibrary, named: dict[str, list[str]], variant: str | None) -> list[Download]:
    """List what is missing of all models, each repository once. Raises WorkflowError with all that cannot be had."""
    problems: list[Problem] = []
    wanted: list[Download] = []
    for reference, nodes in named.items():
        try:
            wanted += [download for download in library.missing(reference, variant) if download not in wanted]
        except WorkflowError as error:
            problems += _problems_of(ModelDescription(reference=reference, problems=error.problems), nodes)
    if problems:
        raise WorkflowError.of(problems)
    return wanted


def _announce(download: Download) -> None:
    total = sum(file.nbytes or 0 for file in download.files)
    tell(f"{download.repository}@{download.revision} (commit {download.commit[:8]}): {_bytes(total)}")
    for file in download.files:
        tell(f"  {file.name} ({_bytes(file.nbytes)})")


def _bytes(number: int | None) -> str:
    """``812 B``, ``12.3 kB``, ``6.9 GB``; "size unknown" for None."""
    if number is None:
        return "size unknown"
    value, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 99.5 else f"{value:.1f} {units[0]}"
