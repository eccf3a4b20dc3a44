"""Steps under construction: expansion of coarse nodes, conversions on edges, merging of equal steps.

Every fine node that is added gets its cache key at once, so that an equal one added before is found and used instead.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Mapping
from typing import Any

from graphflow.errors import NodeDefinitionError, WorkflowError
from graphflow.fetching import Fetcher
from graphflow.graph.bound import Constant, Loaded, type_of_constant
from graphflow.node import Node, Ref
from graphflow.planning.keys import CLASS_RECORD, KEY_RECORD, digest
from graphflow.planning.step import Step
from graphflow.registry import Registry, converter_port
from graphflow.types import PortType, accepts, digest_of

__all__ = ["Expansion", "StepBuilder"]

MAXIMUM_DEPTH = 32


class Value(Node, version=1, cached=False):
    """Give a value that is known before the run: what a coarse node passes on unchanged.

    A step that takes it takes the value itself, so this runs only where the value is a result.
    """

    def run(self, *, value: object) -> object:
        """Give the value."""
        return value


class StepBuilder:
    """Collects steps in the order in which they are added; the place where they are converted, keyed and merged."""

    def __init__(
        self, registry: Registry, environment: Mapping[str, str], fetcher: Fetcher, *, identities: bool = True
    ) -> None:
        self.registry = registry
        self._identities = identities
        self.fetcher = fetcher
        self.environment = dict(environment)
        self.steps: list[Step] = []
        self._class_digests: dict[type[Node], str] = {}
        self._by_key: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._passed_on: dict[Ref, Constant] = {}
        """Values that coarse nodes passed on unchanged, by the output that stands for each."""
        self.folder = self.prefix = ""

    def begin(self, folder: str, fetcher: Fetcher) -> None:
        """Begin with the steps of another graph, whose files go to ``folder``, and whose nodes used this fetcher."""
        self.folder, self.prefix = folder, f"{folder}/" if folder else ""
        self.fetcher = fetcher

    def type_of(self, value: Any) -> PortType:
        """Static type of a Ref, or of a value that is known."""
        if isinstance(value, Ref):
            return self.steps[value.step].output_types[value.output]
        return type_of_constant(value.value if isinstance(value, Constant) else value)

    def add(self, name: str, node: Node, inputs: Mapping[str, Any], depth: int = 0) -> Mapping[str, Ref]:
        """Add a node, coarse or fine, and return its outputs."""
        if node.coarse:
            return self._expand(name, node, inputs, depth)
        wanted = node.input_types()
        connected: dict[str, Ref | Constant] = {}
        types: dict[str, PortType] = {}
        refs: list[Ref] = []
        given: dict[str, Any] = {}
        steps = self.steps
        for port, value in inputs.items():
            if port not in wanted:
                raise NodeDefinitionError(f"{node.type_id} has no port '{port}', but '{name}' was given it")
            if isinstance(value, Constant) and isinstance(value.value, Loaded):
                value = self._loaded(name, port, value.value)
            elif self._passed_on and isinstance(value, Ref):
                value = self._passed_on.get(value, value)
            found = steps[value.step].output_types[value.output] if isinstance(value, Ref) else self.type_of(value)
            if not accepts(wanted[port], found):
                value = self.convert(name, value, found, wanted[port])
                found = self.type_of(value)
            if isinstance(value, Ref):
                refs.append(value)
                given[port] = steps[value.step].key, value.output
            else:
                value = value if isinstance(value, Constant) else Constant(value)
                given[port] = _plain(value)
            connected[port] = value
            types[port] = found
        signature = node.signature()
        for port in signature.required:
            if port not in connected:
                raise NodeDefinitionError(f"'{name}': the port '{port}' of {node.type_id} was given no value")
        if node.fetches:
            node = self._fetched(name, node)
        key = self._key(node, given)
        known = None if node.effect else self._by_key.get(key)
        if known is None:
            known = self._by_key[key] = len(steps)
            made = {output: Ref(known, output) for output in signature.outputs}
            steps.append(
                Step(
                    known, self._unique(name), node, connected, tuple(refs), types, made, node.output_types(types), key,
                    self.folder,
                )
            )  # fmt: skip
        return steps[known].outputs

    def pass_on(self, name: str, value: Any) -> Ref:
        """Add a step that gives a value which is known already."""
        node, constant = Value(), Constant(value)
        (output,) = node.signature().outputs
        key = self._key(node, {"value": _plain(constant)})
        known = self._by_key.get(key)
        if known is None:
            known = self._by_key[key] = len(self.steps)
            kind, made = self.type_of(constant), {output: Ref(known, output)}
            self.steps.append(
                Step(
                    known, self._unique(name), node, {"value": constant}, (), {"value": kind}, made, {output: kind},
                    key, self.folder,
                )
            )  # fmt: skip
            self._passed_on[made[output]] = constant
        return self.steps[known].outputs[output]

    def convert(self, name: str, value: Any, source: PortType, target: PortType) -> Ref:
        """Put converters on an edge; `graphflow.graph.edges.check_edge` has seen to it that there are some."""
        route = self.registry.route(source, target)
        if route is None:
            raise NodeDefinitionError(
                f"'{name}': found {source}, expected {target}, and nothing converts one into the other"
            )
        for node in route:
            value = self._only(self.add(f"{name}/{snake(node.type_id)}", node, {converter_port(node): value}))
        return value  # type: ignore[no-any-return]

    def _fetched(self, name: str, node: Node) -> Node:
        """Return the node with what it fetches: of use where a coarse node added it, the others were asked by bind."""
        node, problems = self.fetcher.fetch(node)
        if any(problem.severity == "error" for problem in problems):
            raise WorkflowError.of([problem.at(node=name) for problem in problems])
        return node

    def _loaded(self, name: str, port: str, loaded: Loaded) -> Ref:
        if loaded.node is None:
            raise NodeDefinitionError(f"'{name}': the file for '{port}' was not resolved")
        return self._only(self.add(f"{name}/{port}", loaded.node, {}))

    def _only(self, outputs: Mapping[str, Ref]) -> Ref:
        return next(iter(outputs.values()))

    def _expand(self, name: str, node: Node, inputs: Mapping[str, Any], depth: int) -> dict[str, Ref]:
        if depth >= MAXIMUM_DEPTH:
            raise NodeDefinitionError(
                f"'{name}': {node.type_id} expands into coarse nodes more than {MAXIMUM_DEPTH} deep; "
                "does it expand into itself?"
            )
        arguments: dict[str, Any] = {}
        for port, value in inputs.items():
            if isinstance(value, Constant):
                value = self._loaded(name, port, value.value) if isinstance(value.value, Loaded) else value.value
            arguments[port] = value
        result = node.expand(Expansion(self, name, depth), **arguments)
        signature = node.signature()
        refs = list(result) if signature.multiple else [result] if signature.outputs else []
        outputs: dict[str, Ref] = {}
        for (output, kind), value in zip(signature.outputs.items(), refs, strict=True):
            if not isinstance(value, Ref):
                if value is None or not accepts(kind, self.type_of(value)):
                    raise NodeDefinitionError(
                        f"'{name}': {node.type_id}.expand gave {type(value).__name__} for '{output}', "
                        "expected what g.add returned, or a value of its own argument"
                    )
                value = self.pass_on(f"{name}/{output}", value)
            outputs[output] = value
        return outputs

    def _key(self, node: Node, given: Mapping[str, Any]) -> str:
        """Return the key of a node whose inputs are ``given``: keys of steps with outputs, and constants."""
        cls = type(node)
        common = self._class_digests.get(cls) or self._class_digest(cls)
        # what model_dump gives, without what it does around it, which takes as long
        parameters = cls.__pydantic_serializer__.to_python(node)
        identity = node.identity() if self._identities else None
        return digest([KEY_RECORD, common, parameters, identity, given])

    def _class_digest(self, cls: type[Node]) -> str:
        """Digest what the keys of all nodes of a class have in common, once."""
        common = digest([CLASS_RECORD, cls.type_id, cls.version, cls.code(), self.environment])
        self._class_digests[cls] = common
        return common

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0) + 1
        self._names[name] = count
        return name if count == 1 else f"{name}-{count}"


class Expansion:
    """The place where a coarse node's ``expand`` adds the nodes that it stands for."""

    def __init__(self, builder: StepBuilder, name: str, depth: int) -> None:
        self._builder = builder
        self._name = name
        self._depth = depth

    def add(self, node: Node, **inputs: Any) -> Any:
        """Add a node and return what stands for its output, or a named tuple for several outputs.

        A port takes what `add` returned before, an argument of ``expand``, or a plain value; None leaves it open.
        """
        given = {
            port: value if isinstance(value, Ref) else Constant(value)
            for port, value in inputs.items()
            if value is not None
        }
        outputs = self._builder.add(f"{self._name}/{snake(node.type_id)}", node, given, self._depth + 1)
        if not node.signature().multiple:
            return next(iter(outputs.values()), None)
        return namedtuple(f"{node.type_id}Outputs", outputs)(**outputs)

    def type_of(self, value: Any) -> PortType:
        """Return the type of a value, known before the run: kind, space, size, batch."""
        return self._builder.type_of(value)


def _plain(constant: Constant) -> Any:
    """Return a constant as it stands in a key."""
    return constant.value if constant.plain else {"digest": digest_of(constant.value)}


def snake(type_id: str) -> str:
    """``Text2Image`` -> ``text2image``, ``EncodePrompt`` -> ``encode_prompt``, ``pack.Name`` -> ``name``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type_id.rpartition(".")[2]).lower()
