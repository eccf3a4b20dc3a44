"""The site of the pages: ``make docs``. Every page that links to another one is in it; a broken link is an error.

The pages are written to be read in the repository too, so they hold no directives: README.md, the first page, is given
the list of contents here, and node classes are given the tables of their parameters and ports.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import graphflow
from graphflow.node import Node
from graphflow.schema import parameter_schemas

ROOT = Path(__file__).parents[2]

project = "GraphFlow"
author = "The GraphFlow maintainers"
project_copyright = "the GraphFlow maintainers, Apache-2.0"
version = release = graphflow.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["*.md", "docs/**", "*/README.md", "*/*/README.md", "nodes/diffusion/pocket/README.md"]
exclude_patterns = [".*", "build", "out", "tests", "graphflow", "**/__pycache__"]

html_theme = "furo"
html_title = "GraphFlow"
html_extra_path = ["index.html"]
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}

myst_heading_anchors = 4
smartquotes = False
nitpicky = True
default_role = "py:obj"
nitpick_ignore_regex = [("py:.*", r"(torch|PIL|networkx|nx|pydantic|pydantic_core|collections|typing|threading)\b.*")]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

CONTENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "README": {
        "Use": (
            "docs/command-line",
            "docs/python",
            "docs/nodes",
            "docs/image-to-image",
            "docs/prompts",
            "docs/models",
            "docs/memory-and-speed",
            "docs/conventions",
            "docs/problems",
        ),
        "Extend": ("docs/write-a-node", "docs/add-a-family", "examples/tiny_pack/README", "CONTRIBUTING"),
        "Reference": (
            "docs/reference/graphflow",
            "docs/reference/nodes",
            "docs/reference/events",
            "docs/reference/packs",
        ),
        "Understand": ("docs/principles", "docs/design"),
        "Results": (
            "benchmarks/README",
            "training/pocket/README",
            "nodes/diffusion/pocket/README",
            "CHANGELOG",
        ),
    },
    "docs/design": {
        "Mechanisms": (
            "docs/design/document",
            "docs/design/nodes",
            "docs/design/binding",
            "docs/design/planning",
            "docs/design/execution",
            "docs/design/store",
            "docs/design/records",
            "docs/design/models",
            "docs/design/memory",
            "docs/design/prompts",
            "docs/design/pictures",
            "docs/design/errors",
            "docs/design/safety",
            "docs/design/urls",
        )
    },
}
"""The contents below a page, by caption; a page that is in none of them is an error."""


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the list of contents below a page, where only the site shows it."""
    for caption, pages in CONTENTS.get(name, {}).items():
        listed = "\n".join(f"/{page}" for page in pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def describe_node(app: Sphinx, kind: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Add the ports, outputs and parameters of a node type to its docstring."""
    if kind != "class" or not isinstance(obj, type) or not issubclass(obj, Node) or obj.abstract:
        return
    signature = obj.signature()
    outputs = ", ".join(f"``{name}`` ({kind})" for name, kind in signature.outputs.items()) or "none"
    lines += ["", f"Version {obj.version}. Outputs: {outputs}.", ""]
    if signature.inputs:
        ports = [
            (f"``{port.name}``", str(port.type), "required" if port.required else f"``{port.default!r}``")
            for port in signature.inputs.values()
        ]
        lines += table(("port", "type", "default"), ports)
    parameters = [
        (
            f"``{name}``",
            f"``{schema['default']!r}``" if "default" in schema else "required",
            re.sub(r"[*`_:]", r"\\\g<0>", schema.get("description", "")),
        )
        for name, schema in parameter_schemas(obj)[0].items()
    ]
    if parameters:
        lines += table(("parameter", "default", "meaning"), parameters)


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: auto", "   :align: left", ""]
    for row in (heads, *rows):
        lines += [f"   {'*' if number == 0 else ' '} - {cell}" for number, cell in enumerate(row)]
    return [*lines, ""]


def shorten_signature(
    app: Sphinx, kind: str, name: str, obj: object, options: Any, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Leave out the fields of pydantic's classes, which stand in the table of a node type, and the inside of defaults.

    autodoc cannot take defaults from the source: methods with the switches of a run have more than stand there.
    """
    if kind == "class" and isinstance(obj, type) and issubclass(obj, BaseModel):
        return "", None
    if signature is None:
        return None
    signature = re.sub(r"\b(Switches|Compute)\([^()]*\)", r"\1()", signature)
    signature = re.sub(r"PosixPath\('(.*?)'\)", r"Path('\1')", signature)
    return signature.replace("<factory>", "...").replace("= Ellipsis", "= ..."), returned


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """Find what a docstring names by its own module, or in short; what is not public is shown without a link.

    A name that nobody has stays unresolved, which is an error.
    """
    target = str(node.get("reftarget", ""))
    short = target.rpartition(".")[2]
    for name in (f"graphflow.{target}", f"graphflow.{short}", f"graphflow.nodes.{short}"):
        found = env.domains["py"].resolve_any_xref(env, node["refdoc"], app.builder, name, node, content)
        if found:
            return found[0][1]
    return content if is_known(target) else None


def is_known(name: str) -> bool:
    """Tell whether a command, a module, or something in one of GraphFlow's modules or classes has this name."""
    if name.startswith("graphflow "):
        return True
    first, _, rest = name.partition(".")
    if first in sys.modules:
        return has(importlib.import_module(first), rest)
    own = [module for module in list(sys.modules.values()) if is_own(module)]
    classes = [thing for module in own for thing in list(vars(module).values()) if isinstance(thing, type)]
    return any(has(place, name) for place in (importlib.import_module("builtins"), *own, *classes))


def has(place: object, name: str) -> bool:
    """Tell whether a dotted name leads somewhere from a module or class."""
    for part in filter(None, name.split(".")):
        if isinstance(place, type) and part in {
            **getattr(place, "__annotations__", {}),
            **getattr(place, "model_fields", {}),
        }:
            return True
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True


def is_own(module: object) -> bool:
    """Tell whether a module is one of GraphFlow's."""
    return str(getattr(module, "__name__", "")).partition(".")[0] == "graphflow"


def setup(app: Sphinx) -> None:
    """Connect the functions above; import what docstrings may name."""
    for module in pkgutil.walk_packages(graphflow.__path__, "graphflow."):
        if ".nodes.diffusion" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", describe_node)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("missing-reference", resolve)
