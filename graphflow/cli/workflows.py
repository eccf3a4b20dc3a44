"""List the saved workflows on the workflow path, or describe one: its inputs, its outputs, and the hash to pin it by.

They are looked for in the folders of GRAPHFLOW_PATH, in ./workflows, and among those that come with GraphFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphflow.cli.arguments import read_workflow
from graphflow.cli.parser import Options, Parser
from graphflow.cli.report import tell, visible
from graphflow.cli.table import table, wrapped
from graphflow.document.library import Library, saved_workflows
from graphflow.document.validation import show
from graphflow.document.workflow import WorkflowDocument
from graphflow.errors import WorkflowError
from graphflow.types import type_name

__all__ = ["add_arguments", "run"]

PIN_DIGITS = 16


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow workflows``."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="a saved workflow or a file to describe")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: Options) -> int:
    """Print the list, or one description."""
    if options.name is not None:
        document = read_workflow(options.name)
        data = _data(options.name, document, Library())
        print(_json(data) if options.json else visible(_description(data)))
        return 0
    found = []
    for name, path in saved_workflows():
        try:
            found.append((name, path, WorkflowDocument.load(path)))
        except WorkflowError as error:
            # one broken file must not hide the others
            tell(f"{error}")
    if options.json:
        library = Library()
        print(_json([_data(name, document, library) for name, _, document in found]))
    elif found:
        print(visible(_listing(found)))
    else:
        tell("there are no saved workflows on the path; set GRAPHFLOW_PATH or make a folder workflows")
    return 0


def _json(data: Any) -> str:
    import orjson

    return orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()


def _listing(found: list[tuple[str, Path, WorkflowDocument]]) -> str:
    width = max(len(name) for name, _, _ in found)
    folders = dict.fromkeys(path.parent for _, path, _ in found)
    blocks = []
    for folder in folders:
        rows = [
            (name.ljust(width), document.description or "(no description)")
            for name, path, document in found
            if path.parent == folder
        ]
        blocks.append(f"{_shown(folder)}\n{table(rows)}")
    blocks.append("`graphflow workflows NAME` tells inputs and outputs, `graphflow run NAME` runs one.")
    return "\n\n".join(blocks)


def _shown(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) and folder != here else str(folder)


def _data(name: str, document: WorkflowDocument, library: Library) -> dict[str, Any]:
    try:
        digest: str | None = library.hash(document)
    except WorkflowError as error:
        tell(f"{error}")
        digest = None
    return {
        "name": name,
        "file": document.name,
        "description": document.description,
        "inputs": {
            key: {
                "type": declaration.type,
                "description": declaration.description,
                "required": declaration.required,
                "default": declaration.default,
            }
            for key, declaration in document.inputs.items()
        },
        "outputs": {key: {"from": output.source, "type": kind} for key, output, kind in _outputs(document)},
        "sha256": digest,
    }


def _outputs(document: WorkflowDocument) -> list[tuple[str, Any, str | None]]:
    """Return the declared outputs with their types, as far as the workflow is sound."""
    from graphflow.graph.binder import bind

    types: dict[str, str] = {}
    try:
        graph = bind(document, checking=True)
        for key, edge in graph.outputs.items():
            if edge.source in graph.order:
                found = graph.bound(edge.source).output_types.get(edge.output or "")
                if found is not None:
                    types[key] = type_name(found.kind)
    except WorkflowError as error:
        errors = [problem for problem in error.problems if problem.severity == "error"]
        tell(f"{document.name}: cannot run ({len(errors)} errors); `graphflow validate` tells them")
    return [(key, output, types.get(key)) for key, output in document.outputs.items()]


def _default(value: Any) -> str:
    return "the node's own default" if value is None else f"default {show(value)}"


def _description(data: dict[str, Any]) -> str:
    lines = [data["name"] if data["name"] == data["file"] else f"{data['name']} ({data['file']})", ""]
    if data["description"]:
        lines += [wrapped(data["description"], indent=2), ""]
    inputs = []
    for key, item in data["inputs"].items():
        default = "required" if item["required"] else _default(item["default"])
        text = f"{default}. {item['description']}" if item["description"] else default
        inputs.append((key, item["type"], text))
    lines += ["Inputs (--set name=value)", table(inputs), ""] if inputs else ["It has no inputs.", ""]
    outputs = [(key, item["type"] or "", f"from {item['from']}") for key, item in data["outputs"].items()]
    lines += ["Outputs", table(outputs), ""] if outputs else []
    if data["sha256"]:
        target = Path(data["file"]).stem
        lines += ["Call it from another workflow, pinned to what it does now", ""]
        lines += [f'  "uses": "{target}@sha256:{data["sha256"][:PIN_DIGITS]}"']
    return "\n".join(lines).rstrip()
