"""The content of a picture of a workflow, before it has any coordinates: boxes, arrows, frames."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow.document.inputs import Unbound
from graphflow.document.validation import show
from graphflow.document.workflow import INPUT_KINDS, Input, WorkflowDocument, parse_reference
from graphflow.errors import WorkflowError
from graphflow.graph.bound import BoundNode, Constant, Graph
from graphflow.graph.flatten import CALL, Edge, FlatNode
from graphflow.node import Node, Ref
from graphflow.planning.expand import snake
from graphflow.planning.planner import Plan, Step
from graphflow.types import PLAIN_KINDS, PortType, type_name

__all__ = ["EFFECT", "TONES", "Arrow", "Box", "Drawing", "Frame", "drawing_of_graph", "drawing_of_plan"]

EFFECT = "effect"
TONES = ("Latent", "Image", "Mask", "DepthMap", "Conditioning", "Text", "Number", "Model", EFFECT, "other")
"""Meanings of a colour: the kind of a value, or that a node has an effect."""

MAXIMUM_LINES = 4
TEXT_LENGTH = 34


@dataclass(frozen=True, slots=True)
class Box:
    """A node, or an input or output of the workflow ("node", "input", "output")."""

    id: str
    shape: str
    title: str
    subtitle: str = ""
    lines: tuple[str, ...] = ()
    tone: str = "other"
    frame: str | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """A value that goes from one box to another; ``dashed`` where the engine converts it on the way."""

    source: str
    target: str
    label: str = ""
    tone: str = "other"
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """A called workflow, or in a plan a coarse node: what is drawn around the boxes that belong to it."""

    id: str
    label: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture as data."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    frames: tuple[Frame, ...] = ()


def drawing_of_graph(graph: Graph) -> Drawing:
    """Draw the workflow as it is written: its nodes, those of called workflows in frames, its inputs and outputs."""
    frames = {name: Frame(name, f"{_last(name)} · {Path(file).stem}", None) for name, file in graph.called.items()}
    frames = {name: Frame(name, frame.label, _enclosing(name, frames)) for name, frame in frames.items()}
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    sources = _InputSources(graph)
    used: dict[str, list[Arrow]] = {}
    for bound in graph:
        fed = sources.of(bound.flat)
        boxes.append(_node_box(bound.name, bound.node, _known_values(bound), bound.output_types, frames, hidden=fed))
        for port, value in bound.inputs.items():
            if isinstance(value, Edge):
                source = graph.bound(value.source)
                arrows.append(
                    Arrow(
                        f"node:{value.source}",
                        f"node:{bound.name}",
                        _edge_label(value.output, port, len(source.output_types)),
                        _tone(source.output_types.get(value.output or "")),
                    )
                )
        for key, name in fed.items():
            label = "" if key == name else key
            declared = graph.document.inputs[name].type
            used.setdefault(name, []).append(Arrow(f"input:{name}", f"node:{bound.name}", label, _input_tone(declared)))
    pills = []
    for name, declaration in graph.document.inputs.items():
        default = "" if declaration.default is None else _short(show(declaration.default))
        pills.append(Box(f"input:{name}", "input", name, default, (), _input_tone(declaration.type)))
    known = set(graph.order)
    ends = []
    for name, edge in graph.outputs.items():
        if edge.source not in known:
            continue
        kind = graph.bound(edge.source).output_types.get(edge.output or "")
        ends.append(Box(f"output:{name}", "output", name, type_name(kind.kind) if kind else "", (), _tone(kind)))
        label = edge.output or "" if len(graph.bound(edge.source).output_types) > 1 else ""
        arrows.append(Arrow(f"node:{edge.source}", f"output:{name}", label, _tone(kind)))
    from_inputs = [arrow for name in graph.document.inputs for arrow in used.get(name, ())]
    title = _title(graph.document)
    return Drawing(title, (*pills, *boxes, *ends), (*from_inputs, *arrows), tuple(frames.values()))


def drawing_of_plan(planned: Plan, graph: Graph) -> Drawing:
    """Draw the fine steps that will run, in frames for the called workflows and coarse nodes that they stand for."""
    labels = {name: f"{_last(name)} · {Path(file).stem}" for name, file in graph.called.items()}
    labels |= {bound.name: f"{_last(bound.name)} · {bound.node.type_id}" for bound in graph if bound.node.coarse}
    labels = {name: labels[name] for name in sorted(labels)}
    frames = {name: Frame(name, label, _enclosing(name, labels)) for name, label in labels.items()}
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    open_inputs: dict[str, Box] = {}
    for step in planned.steps:
        constants = {
            port: value.value
            for port, value in step.inputs.items()
            if isinstance(value, Constant) and not isinstance(value.value, Unbound)
        }
        boxes.append(_node_box(step.name, step.node, constants, step.output_types, frames, number=step.index))
        for port, value in step.inputs.items():
            target = f"step:{step.index}"
            if isinstance(value, Ref):
                source = planned.steps[value.step]
                arrows.append(
                    Arrow(
                        f"step:{value.step}",
                        target,
                        _edge_label(value.output, port, len(source.output_types)),
                        _tone(source.output_types.get(value.output)),
                        dashed=_inserted(step) or _inserted(source),
                    )
                )
            elif isinstance(value.value, Unbound):
                name, tone = value.value.name, _tone(value.value.type)
                open_inputs.setdefault(name, Box(f"input:{name}", "input", name, "", (), tone))
                arrows.append(Arrow(f"input:{name}", target, "" if name == port else port, tone))
    ends = []
    for name, ref in planned.wanted.items():
        source = planned.steps[ref.step]
        kind = source.output_types.get(ref.output)
        ends.append(Box(f"output:{name}", "output", name, type_name(kind.kind) if kind else "", (), _tone(kind)))
        label = ref.output if len(source.output_types) > 1 else ""
        arrows.append(Arrow(f"step:{ref.step}", f"output:{name}", label, _tone(kind), dashed=_inserted(source)))
    occupied: set[str | None] = set()
    for box in boxes:
        around = box.frame
        while around is not None and around not in occupied:
            occupied.add(around)
            around = frames[around].parent
    shown = tuple(frame for frame in frames.values() if frame.id in occupied)
    return Drawing(_title(graph.document), (*open_inputs.values(), *boxes, *ends), tuple(arrows), shown)


def _title(document: WorkflowDocument) -> str:
    return document.description or Path(document.name).stem


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _enclosing(name: str, frames: Mapping[str, Any]) -> str | None:
    """Return the innermost frame around a name like ``call/inner/node``."""
    prefix = name.rpartition("/")[0]
    while prefix and prefix not in frames:
        prefix = prefix.rpartition("/")[0]
    return prefix or None


def _inserted(step: Step) -> bool:
    """Check whether the engine put the step on an edge: a converter named after its class below another name."""
    return step.node.converts and _last(step.name).partition("-")[0] == snake(step.node.type_id) and "/" in step.name


def _node_box(
    name: str,
    node: Node,
    values: Mapping[str, Any],
    outputs: Mapping[str, PortType],
    frames: Mapping[str, Frame],
    number: int | None = None,
    hidden: Collection[str] = (),
) -> Box:
    """``hidden`` are fields that an arrow already shows."""
    frame = _enclosing(name, frames)
    title = name.removeprefix(f"{frame}/") if frame else name
    tone = EFFECT if node.effect else _tone(next(iter(outputs.values()), None))
    key = f"node:{name}" if number is None else f"step:{number}"
    return Box(key, "node", title, node.type_id, tuple(_telling(node, values, hidden)), tone, frame)


def _known_values(bound: BoundNode) -> dict[str, Any]:
    return {
        port: value.value
        for port, value in bound.inputs.items()
        if isinstance(value, Constant) and not isinstance(value.value, Unbound)
    }


def _telling(node: Node, values: Mapping[str, Any], hidden: Collection[str]) -> Iterable[str]:
    """Choose what a person looks for first: the texts, then the parameters that differ from their defaults."""
    shown = {port: value for port, value in values.items() if port not in hidden}
    lines = [f"{port}: {_short(show(value))}" for port, value in shown.items() if isinstance(value, str) and value]
    lines += [f"{port}: {show(value)}" for port, value in shown.items() if isinstance(value, (int, float))]
    for key, field in type(node).model_fields.items():
        value = getattr(node, key)
        if key in hidden or key not in node.model_fields_set or value is None or value == field.default:
            continue
        text = Path(value).name if key in node.signature().file_fields else value
        lines.append(f"{key}: {_short(show(text) if isinstance(text, (str, int, float)) else str(text))}")
    return lines if len(lines) <= MAXIMUM_LINES else [*lines[: MAXIMUM_LINES - 1], "…"]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1].rstrip() + "…"


def _edge_label(output: str | None, port: str, outputs: int) -> str:
    return f"{output} → {port}" if outputs > 1 and output else port


def _tone(kind: PortType | None) -> str:
    if kind is None:
        return "other"
    name = type_name(kind.kind)
    if kind.kind in PLAIN_KINDS:
        return "Text" if kind.kind is str else "Number"
    return name if name in TONES else "other"


def _input_tone(declared: str) -> str:
    return "Model" if declared == "model" else _tone(PortType(INPUT_KINDS[declared]))


class _InputSources:
    """The fields that inputs of the outermost workflow feed, also through the inputs of called workflows."""

    def __init__(self, graph: Graph) -> None:
        self._called = graph.called
        self._documents: dict[str, WorkflowDocument | None] = {"": graph.document}
        self._library = graph.library

    def of(self, flat: FlatNode) -> dict[str, str]:
        """Name of the input behind each field of a node that has one."""
        prefix = flat.name.rpartition("/")[0]
        found = {}
        for key, value in flat.entry.fields.items():
            name = self._outermost(prefix, value)
            if name is not None:
                found[key] = name
        return found

    def _outermost(self, prefix: str, value: Any) -> str | None:
        while True:
            reference = parse_reference(value)
            document = self._document(prefix)
            if not isinstance(reference, Input) or document is None:
                return None
            if not prefix:
                return reference.name if reference.name in document.inputs else None
            outer, _, call = prefix.rpartition("/")
            caller = self._document(outer)
            entry = caller.nodes.get(call) if caller else None
            if entry is None or entry.type != CALL:
                return None
            prefix, value = outer, entry.fields.get(reference.name)

    def _document(self, prefix: str) -> WorkflowDocument | None:
        if prefix not in self._documents:
            try:
                self._documents[prefix] = self._library.load(Path(self._called[prefix]))
            except (KeyError, WorkflowError):
                self._documents[prefix] = None
        return self._documents[prefix]
