"""Print the JSON Schema of workflow files (draft 2020-12), made from the installed node types.

With it editors complete node types and fields, and mark what is wrong. Visual Studio Code takes it in settings.json:

  "json.schemas": [
    {"fileMatch": ["workflows/*.json"], "url": "./graphflow.schema.json"}
  ]
"""

from __future__ import annotations

from pathlib import Path

from graphflow.cli.parser import Options, Parser
from graphflow.registry import default_registry

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow schema``."""
    parser.add_argument("--out", metavar="FILE", help="write to a file instead of stdout")


def run(options: Options) -> int:
    """Print or write the schema."""
    import json

    from graphflow.cli.output import write_result
    from graphflow.schema import workflow_schema

    # not orjson: the bound of a seed, 2**64, is beyond its integers
    text = json.dumps(workflow_schema(default_registry()), indent=2, ensure_ascii=False) + "\n"
    write_result(text, Path(options.out) if options.out else None)
    return 0
