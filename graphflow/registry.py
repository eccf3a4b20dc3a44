"""Node types, found through the entry-point group ``graphflow.nodes``.

A distribution offers nodes with::

    [project.entry-points."graphflow.nodes"]
    my_pack = "my_package.my_nodes"

Every concrete `Node` subclass that is an attribute of that module becomes a node type. Two classes with one id are an
error that names both; adding a pack is all or nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from graphflow.errors import NodeDefinitionError
from graphflow.node import Node
from graphflow.types import PortType, accepts

__all__ = ["ENTRY_POINT_GROUP", "Registry", "default_registry", "import_packs"]

ENTRY_POINT_GROUP = "graphflow.nodes"


class Registry(Mapping[str, type[Node]]):
    """A mapping from type id to node class."""

    def __init__(self, classes: Iterable[type[Node]] = ()) -> None:
        self._classes: dict[str, type[Node]] = {}
        self.add(*classes)

    def __getitem__(self, type_id: str) -> type[Node]:
        return self._classes[type_id]

    def get(self, type_id: str, default: Any = None) -> Any:
        """Return the class of that id, or ``default``; the mixin's would raise and catch for it."""
        return self._classes.get(type_id, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def add(self, *classes: type[Node]) -> None:
        """Add node classes; on a duplicate id or an ill-formed class nothing is added."""
        added: dict[str, type[Node]] = {}
        for cls in classes:
            known = self._classes.get(cls.type_id) or added.get(cls.type_id)
            if known is not None and known is not cls:
                raise NodeDefinitionError(
                    f"two node classes have the id '{cls.type_id}': {known.__module__}.{known.__qualname__} and "
                    f"{cls.__module__}.{cls.__qualname__}; give one of them another id in its class line: "
                    'id="pack.Name"'
                )
            if cls.type_id == "Workflow":
                raise NodeDefinitionError(
                    f"{cls.__module__}.{cls.__qualname__}: the id 'Workflow' means a called workflow"
                )
            signature = cls.signature()
            if (cls.converts or cls.loads) and len(signature.outputs) != 1:
                raise NodeDefinitionError(f"{cls.type_id}: converts or loads, so it needs exactly one output")
            if cls.converts and sum(port.required for port in signature.inputs.values()) != 1:
                raise NodeDefinitionError(f"{cls.type_id}: converts, so it needs exactly one required port")
            if cls.loads and len(signature.file_fields) != 1:
                raise NodeDefinitionError(f"{cls.type_id}: loads, so it needs exactly one InputFile parameter")
            if cls.saves and (
                not cls.effect
                or "name" not in signature.parameters
                or sum(port.required for port in signature.inputs.values()) != 1
            ):
                raise NodeDefinitionError(
                    f"{cls.type_id}: saves, so it needs effect=True, exactly one required port and a parameter 'name'"
                )
            added[cls.type_id] = cls
        self._classes.update(added)

    def collect(self, module: ModuleType) -> None:
        """Add every concrete Node subclass that is an attribute of ``module``."""
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Node) and not value.abstract
        ]
        self.add(*dict.fromkeys(found))

    def copy(self) -> Registry:
        """Return an independent registry with the same types."""
        return Registry(self.values())

    def route(self, source: PortType, target: PortType) -> tuple[Node, ...] | None:
        """Converters that turn ``source`` into ``target``, at most two of them; None where there is no way."""
        for first in self._converters(source, target):
            if accepts(target, _result(first, source)):
                return (first,)
        for cls in self._converter_classes:
            middle = next(iter(cls.signature().outputs.values()))
            if middle.kind is source.kind or middle.kind is target.kind:
                continue
            for first in self._converters(source, middle):
                between = _result(first, source)
                for second in self._converters(between, target):
                    if accepts(target, _result(second, between)):
                        return (first, second)
        return None

    def loader(self, kind: type) -> type[Node] | None:
        """Return the node class that makes a value of ``kind`` from a file, if there is one."""
        for cls in self._classes.values():
            if cls.loads and next(iter(cls.signature().outputs.values())).kind is kind:
                return cls
        return None

    def convertible_loader(self) -> type[Node] | None:
        """Return a node class that loads from a file something that can be converted, if there is one."""
        ports = [port for cls in self._converter_classes for port in cls.signature().inputs.values()]
        return next((cls for port in ports if (cls := self.loader(port.type.kind))), None)

    def saver(self, source: PortType) -> type[Node] | None:
        """Return the node class that writes a value of type ``source``, as it is or converted, if there is one."""
        wanted = {
            cls: next(port for port in cls.signature().inputs.values() if port.required).type
            for cls in self._classes.values()
            if cls.saves
        }
        as_it_is = (cls for cls, target in wanted.items() if accepts(target, source))
        converted = (cls for cls, target in wanted.items() if self.route(source, target) is not None)
        return next(as_it_is, None) or next(converted, None)

    @property
    def _converter_classes(self) -> list[type[Node]]:
        return [cls for cls in self._classes.values() if cls.converts]

    def _converters(self, source: PortType, target: PortType) -> Iterator[Node]:
        for cls in self._converter_classes:
            port = next(port for port in cls.signature().inputs.values() if port.required)
            if accepts(port.type, source) and next(iter(cls.signature().outputs.values())).kind is target.kind:
                instance = cls.convert(source, target)
                if instance is not None:
                    yield instance


def converter_port(node: Node) -> str:
    """Name of the one required port of a converter."""
    return next(port.name for port in node.signature().inputs.values() if port.required)


def _result(node: Node, source: PortType) -> PortType:
    return next(iter(node.output_types({converter_port(node): source}).values()))


@functools.cache
def default_registry() -> Registry:
    """Return the registry of everything installed, read once per process."""
    registry = Registry()
    for module in import_packs(ENTRY_POINT_GROUP, "the node pack"):
        registry.collect(module)
    return registry


def import_packs(group: str, what: str) -> Iterator[ModuleType]:
    """Import the modules of an entry point group; ``what`` says in errors what they are.

    Raises NodeDefinitionError for one that cannot be imported.
    """
    for entry in _entry_points().select(group=group):
        try:
            module = importlib.import_module(entry.module)
        except ImportError as error:
            owner = entry.dist.name if entry.dist else "an unknown distribution"
            raise NodeDefinitionError(
                f"{what} '{entry.name}' of {owner} cannot be imported from {entry.module}: {error}; "
                f"mend it or uninstall {owner}"
            ) from error
        yield module


@functools.cache
def _entry_points() -> Any:  # of another class in Python 3.11 than in later ones
    """Read the entry points of all installed distributions, once per process for all groups."""
    return importlib.metadata.entry_points()
