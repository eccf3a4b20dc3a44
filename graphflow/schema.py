"""JSON Schema (draft 2020-12) of workflow files, from the installed node types, so that editors complete and check.

A schema sees one value at a time: what needs two of them (types along edges, cycles, names that do not exist) is left
to `graphflow validate`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from graphflow.document.workflow import FORMAT_VERSION, INPUT_KINDS, NAME, InputDeclaration, WorkflowDocument
from graphflow.node import Node, Port
from graphflow.registry import Registry
from graphflow.signature import REQUIRED
from graphflow.types import PLAIN_KINDS, type_name

__all__ = ["DIALECT", "parameter_schemas", "workflow_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_CALL = "Workflow"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
_LITERALS = {"text": str, "model": str, "file": str, "int": int, "seed": int, "float": float, "bool": bool}


def workflow_schema(registry: Registry) -> dict[str, Any]:
    """Return the schema of a workflow file whose nodes are of the types in ``registry``."""
    definitions: dict[str, Any] = {
        "from": {
            "type": "object",
            "description": "an output of another node: node, or node.output",
            "properties": {"from": {"type": "string", "pattern": rf"^{NAME}(\.{NAME})?$"}},
            "required": ["from"],
            "additionalProperties": False,
        },
        "input": {
            "type": "object",
            "description": "an input of the workflow",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": False,
        },
    }
    for type_id, cls in registry.items():
        definitions[f"node.{type_id}"] = _node_schema(cls, definitions)
    definitions[f"node.{_CALL}"] = _call_schema()
    summaries = {type_id: cls.summary() for type_id, cls in registry.items()} | {_CALL: "Call a saved workflow."}
    node = {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {
                "description": "a node type",
                "oneOf": [{"const": name, "description": summary} for name, summary in sorted(summaries.items())],
            }
        },
        "allOf": [
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {"$ref": f"#/$defs/node.{name}"},
            }
            for name in sorted(summaries)
        ],
    }
    described = {name: field.description or "" for name, field in WorkflowDocument.model_fields.items()}
    return {
        "$schema": DIALECT,
        "title": "GraphFlow workflow",
        "type": "object",
        "properties": {
            "$schema": {"type": "string", "description": described["schema_uri"]},
            "graphflow": {"const": FORMAT_VERSION, "description": described["graphflow"]},
            "description": {"type": "string", "description": described["description"]},
            "inputs": _named(described["inputs"], _input_schema()),
            "nodes": _named(described["nodes"], node),
            "outputs": _named(described["outputs"], {"$ref": "#/$defs/from"}),
            "sweep": _sweep_schema(described["sweep"]),
        },
        "required": ["graphflow", "nodes"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def parameter_schemas(cls: type[Node], reference: str = "#/$defs/{model}") -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schemas of the parameters of a node class, and the definitions they refer to."""
    schema = cls.model_json_schema(ref_template=reference)
    properties = {name: _untitled(field) for name, field in schema.get("properties", {}).items()}
    return properties, schema.get("$defs", {})


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove the title that pydantic makes of the name, which says nothing."""
    return {key: value for key, value in schema.items() if key != "title"}


def _named(description: str, item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": f"^{NAME}$", "maxLength": 100},
        "additionalProperties": item,
    }


def _input_schema() -> dict[str, Any]:
    """Describe an input: a default only where the type has literals, and one of that type."""
    fields = InputDeclaration.model_fields
    branches = []
    for kind in INPUT_KINDS:
        literal = _LITERALS.get(kind)
        kinds = [_PLAIN[literal], "null"] if literal else "null"
        default: Any = {"type": kinds, "description": fields["default"].description}
        if kind == "seed":
            default = {**default, "minimum": 0, "exclusiveMaximum": 2**64}
        branches.append({"if": {"properties": {"type": {"const": kind}}}, "then": {"properties": {"default": default}}})
    return {
        "type": "object",
        "properties": {
            "type": {"enum": list(INPUT_KINDS), "description": fields["type"].description},
            "description": {"type": "string", "description": fields["description"].description},
            "default": {"description": fields["default"].description},
        },
        "required": ["type"],
        "additionalProperties": False,
        "allOf": branches,
    }


def _node_schema(cls: type[Node], definitions: dict[str, Any]) -> dict[str, Any]:
    prefix = f"parameter.{cls.type_id}."
    parameters, extra = parameter_schemas(cls, f"#/$defs/{prefix}{{model}}")
    definitions.update({prefix + name: schema for name, schema in extra.items()})
    properties: dict[str, Any] = {"type": {"const": cls.type_id}}
    for name, schema in parameters.items():
        outer = {key: schema.pop(key) for key in ("description", "default") if key in schema}
        choices = schema["anyOf"] if set(schema) == {"anyOf"} else [schema]
        properties[name] = {**outer, "anyOf": [*choices, {"$ref": "#/$defs/input"}]}
    ports = cls.signature().inputs
    for port in ports.values():
        properties[port.name] = _port_schema(port)
    required = [name for name, field in cls.model_fields.items() if field.is_required()]
    return {
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "properties": properties,
        "required": ["type", *required, *(port.name for port in ports.values() if port.required)],
        "additionalProperties": False,
    }


def _port_schema(port: Port) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [{"$ref": "#/$defs/from"}, {"$ref": "#/$defs/input"}]
    schema: dict[str, Any] = {"description": f"port of type {type_name(port.type.kind)}"}
    if port.type.kind in PLAIN_KINDS:
        choices.insert(0, {"type": _PLAIN[port.type.kind]})
        if port.default is not REQUIRED and port.default is not None:
            schema["default"] = port.default
    return {**schema, "anyOf": choices}


def _sweep_schema(description: str) -> dict[str, Any]:
    value = {"type": ["string", "number", "boolean", "null"]}
    return {
        "description": description,
        "oneOf": [
            {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"type": "array", "minItems": 1, "items": value},
            },
            {"type": "array", "minItems": 1, "items": {"type": "object", "additionalProperties": value}},
        ],
    }


def _call_schema() -> Mapping[str, Any]:
    return {
        "description": "Call a saved workflow; its inputs are the further fields.",
        "properties": {
            "type": {"const": _CALL},
            "uses": {
                "type": "string",
                "description": 'name of a saved workflow or a relative file, perhaps pinned: "enlarge@sha256:…"',
                "pattern": "^[^@]+(@sha256:[0-9a-f]{8,64})?$",
            },
        },
        "required": ["type", "uses"],
        "additionalProperties": {
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                {"$ref": "#/$defs/from"},
                {"$ref": "#/$defs/input"},
            ]
        },
    }
