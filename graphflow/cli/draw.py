"""Draw a workflow, as Mermaid text or as SVG. Nothing is run; inputs need no value.

With --expanded the fine steps of its plan are drawn, with the conversions between them.
"""

from __future__ import annotations

from pathlib import Path

from graphflow.cli.arguments import add_file, read_workflow
from graphflow.cli.output import write_result
from graphflow.cli.parser import Options, Parser, UsageError
from graphflow.graph.binder import bind
from graphflow.planning.planner import plan

__all__ = ["add_arguments", "run"]

FORMATS = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".md": "mermaid"}


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow draw``."""
    add_file(parser)
    parser.add_argument("--format", choices=("mermaid", "svg"), help="default: by the suffix of --out, else mermaid")
    parser.add_argument("--out", metavar="FILE", help="write to a file instead of stdout; .svg, .mmd or .md")
    parser.add_argument("--expanded", action="store_true", help="draw the fine steps that run")


def run(options: Options) -> int:
    """Print or write the drawing."""
    from graphflow.draw import drawing_of_graph, drawing_of_plan, mermaid, svg

    out = Path(options.out) if options.out else None
    suffix = out.suffix.lower() if out else ""
    if out and not options.format and suffix not in FORMATS:
        raise UsageError(
            f"cannot tell the format from '{out.name}'; give --format or end it in .svg, .mmd or .md", "graphflow draw"
        )
    chosen = options.format or FORMATS.get(suffix, "mermaid")
    graph = bind(read_workflow(options.file), checking=True)
    drawing = drawing_of_plan(plan(graph, results=False), graph) if options.expanded else drawing_of_graph(graph)
    text = svg(drawing) if chosen == "svg" else mermaid(drawing)
    if suffix == ".md" and chosen == "mermaid":
        text = f"```mermaid\n{text}```\n"
    write_result(text, out)
    return 0
