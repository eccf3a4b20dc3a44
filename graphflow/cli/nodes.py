"""List the node types that are installed, or describe one: its ports, parameters, ranges and defaults."""

from __future__ import annotations

import inspect
from typing import Any

from graphflow.cli.parser import Options, Parser, UsageError
from graphflow.cli.report import visible
from graphflow.cli.table import table, wrapped
from graphflow.document.validation import show
from graphflow.errors import nearest
from graphflow.node import Node
from graphflow.registry import Registry, default_registry
from graphflow.schema import parameter_schemas
from graphflow.signature import REQUIRED
from graphflow.types import PLAIN_KINDS, type_name

__all__ = ["add_arguments", "run"]

GROUPS = (
    ("Nodes to think in (each stands for several fine ones)", lambda cls: cls.coarse),
    ("Fine nodes", lambda cls: not cls.coarse and not cls.loads and not cls.effect),
    ("Files in and out", lambda cls: not cls.coarse and (cls.loads or cls.effect)),
)


def add_arguments(parser: Parser) -> None:
    """Add the options of ``graphflow nodes``."""
    parser.add_argument("type", metavar="TYPE", nargs="?", help="a node type to describe")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: Options) -> int:
    """Print the list, or one description."""
    registry = default_registry()
    if options.type is not None and options.type not in registry:
        hint = nearest(options.type, registry)
        raise UsageError(f"there is no node type '{options.type}'" + (f"; {hint}" if hint else ""), "graphflow nodes")
    if options.json:
        import json

        if options.type:
            data: Any = _data(registry[options.type])
        else:
            data = [_data(registry[name]) for name in sorted(registry)]
        print(json.dumps(data, indent=2, ensure_ascii=False))
    elif options.type:
        print(visible(_description(registry[options.type])))
    else:
        print(visible(_listing(registry)))
    return 0


def _listing(registry: Registry) -> str:
    blocks = []
    width = max((len(name) for name in registry), default=0)
    for title, belongs in GROUPS:
        rows = [(name.ljust(width), registry[name].summary()) for name in sorted(registry) if belongs(registry[name])]
        if rows:
            blocks.append(f"{title}\n{table(rows)}")
    blocks.append("`graphflow nodes TYPE` describes one.")
    return "\n\n".join(blocks)


def _description(cls: type[Node]) -> str:
    flags = [
        text
        for true, text in (
            (cls.coarse, "stands for several fine nodes"),
            (cls.effect, "always runs, for what it does"),
            (cls.converts, "is put on edges where it is needed"),
            (cls.loads, "reads the file that is given for a workflow input"),
            (cls.saves, "saves outputs that nothing else saves"),
        )
        if true
    ]
    lines = [f"{cls.type_id}, version {cls.version}, from {cls.__module__}", ""]
    for paragraph in inspect.cleandoc(cls.__doc__ or "").split("\n\n"):
        lines += [wrapped(paragraph.replace("``", "'"), indent=2), ""]
    if flags:
        lines += [wrapped("It " + "; ".join(flags) + ".", indent=2), ""]
    signature = cls.signature()
    rows = [
        (port.name, str(port.type), "required" if port.required else _default(port.default))
        for port in signature.inputs.values()
    ]
    lines += ["Ports (take an edge" + _plain_ports(cls) + ")", table(rows), ""] if rows else []
    schemas, definitions = parameter_schemas(cls)
    parameters = []
    for name, schema in schemas.items():
        field = cls.model_fields[name]
        default = "required" if field.is_required() else _default(field.default)
        parameters.append((name, f"{_kind_text(schema, definitions)}, {default}"))
        if schema.get("description"):
            parameters.append(("", f"  {schema['description']}"))
    lines += ["Parameters", table(parameters), ""] if parameters else []
    outputs = [(name, str(kind)) for name, kind in signature.outputs.items()]
    lines += ["Outputs", table(outputs), ""] if outputs else ["It gives no value.", ""]
    return "\n".join(lines).rstrip()


def _plain_ports(cls: type[Node]) -> str:
    plain = any(port.type.kind in PLAIN_KINDS for port in cls.signature().inputs.values())
    return "; a plain value may stand in the file" if plain else ""


def _default(value: Any) -> str:
    if value is None:
        return "optional"
    return f"default {show(value)}"


def _kind_text(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Describe what a parameter may be: ``integer from 1 to 1000``, ``"png" or "webp"``."""
    if "$ref" in schema:
        schema = definitions.get(schema["$ref"].rpartition("/")[2], {})
    if "anyOf" in schema:
        kinds = [item for item in schema["anyOf"] if item.get("type") != "null"]
        return " or ".join(_kind_text(item, definitions) for item in kinds)
    if "enum" in schema or "const" in schema:
        return " or ".join(show(value) for value in schema.get("enum", [schema.get("const")]))
    kind = {"string": "text", "boolean": "true or false", "array": "list"}.get(schema.get("type", ""), "")
    text = kind or str(schema.get("type", "any value"))
    if "items" in schema:
        text += f" of {_kind_text(schema['items'], definitions)}"
    lower, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    upper, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if lower is not None and upper is not None:
        return f"{text} from {lower} to {upper}"
    bounds = [
        f"{word} {_bound(value)}"
        for word, value in (("at least", lower), ("above", above), ("at most", upper), ("below", below))
        if value is not None
    ]
    if "multipleOf" in schema:
        bounds.append(f"a multiple of {schema['multipleOf']}")
    return " ".join([text, " and ".join(bounds)]).rstrip()


def _bound(value: float) -> str:
    return "2^64" if value == 2**64 else str(value)


def _data(cls: type[Node]) -> dict[str, Any]:
    signature = cls.signature()
    parameters, definitions = parameter_schemas(cls)
    return {
        "type": cls.type_id,
        "version": cls.version,
        "module": cls.__module__,
        "summary": cls.summary(),
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "coarse": cls.coarse,
        "effect": cls.effect,
        "converts": cls.converts,
        "loads": cls.loads,
        "saves": cls.saves,
        "ports": [
            {
                "name": port.name,
                "type": type_name(port.type.kind),
                "required": port.required,
                **({} if port.default is REQUIRED else {"default": port.default}),
            }
            for port in signature.inputs.values()
        ],
        "parameters": [
            {"name": name, "required": cls.model_fields[name].is_required(), "schema": schema}
            for name, schema in parameters.items()
        ],
        **({"definitions": definitions} if definitions else {}),
        "outputs": [{"name": name, "type": type_name(kind.kind)} for name, kind in signature.outputs.items()],
    }
