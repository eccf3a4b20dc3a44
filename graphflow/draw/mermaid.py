"""A drawing as Mermaid text, which GitHub and many editors show as a picture."""

from __future__ import annotations

import re

from graphflow.draw.drawing import EFFECT, Box, Drawing

__all__ = ["mermaid"]

COLOURS = {
    "Latent": "#7c5cff",
    "Image": "#0b9a74",
    "Mask": "#7a8f00",
    "DepthMap": "#0e7c9b",
    "Conditioning": "#d9480f",
    "Text": "#b7791f",
    "Number": "#64748b",
    "Model": "#2f6fd0",
    EFFECT: "#c2255c",
    "other": "#64748b",
}
"""Edge and border colours that show on white and on black."""

_SHAPES = {"node": ('["', '"]'), "input": ('(["', '"])'), "output": ('(["', '"])')}


def mermaid(drawing: Drawing) -> str:
    """Return the drawing as a Mermaid flowchart."""
    names = {box.id: f"n{index}" for index, box in enumerate(drawing.boxes)}
    inner: dict[str | None, list[Box]] = {}
    for box in drawing.boxes:
        inner.setdefault(box.frame, []).append(box)
    lines = ["---", f"title: {_yaml(drawing.title)}", "---", "flowchart TD"]
    lines += [f"    {_box(box, names)}" for box in inner.get(None, ())]
    # frames are opened and closed on a stack, so that nesting costs no recursion
    numbers = {frame.id: index for index, frame in enumerate(drawing.frames)}
    stack: list[tuple[str, int] | None] = [(frame.id, 1) for frame in reversed(drawing.frames) if frame.parent is None]
    labels = {frame.id: frame.label for frame in drawing.frames}
    depth = 0
    while stack:
        item = stack.pop()
        if item is None:
            lines.append("    " * depth + "end")
            depth -= 1
            continue
        name, depth = item
        indent = "    " * depth
        lines.append(f'{indent}subgraph f{numbers[name]}["{_text(labels[name])}"]')
        lines += [f"{indent}    {_box(box, names)}" for box in inner.get(name, ())]
        stack.append(None)
        stack += [(frame.id, depth + 1) for frame in reversed(drawing.frames) if frame.parent == name]
    for arrow in drawing.arrows:
        line = "-.->" if arrow.dashed else "-->"
        label = f'|"{_text(arrow.label)}"|' if arrow.label else ""
        lines.append(f"    {names[arrow.source]} {line}{label} {names[arrow.target]}")
    links: dict[str, list[str]] = {}
    for index, arrow in enumerate(drawing.arrows):
        links.setdefault(arrow.tone, []).append(str(index))
    lines += [f"    linkStyle {','.join(numbers_)} stroke:{COLOURS[tone]}" for tone, numbers_ in links.items()]
    members: dict[str, list[str]] = {}
    for box in drawing.boxes:
        members.setdefault(box.tone, []).append(names[box.id])
    for tone, boxes in members.items():
        lines.append(f"    classDef {tone.lower()} stroke:{COLOURS[tone]},stroke-width:2px")
        lines.append(f"    class {','.join(boxes)} {tone.lower()}")
    return "\n".join(lines) + "\n"


def _box(box: Box, names: dict[str, str]) -> str:
    opening, closing = _SHAPES[box.shape]
    parts = [f"<b>{_text(box.title)}</b>"]
    if box.subtitle:
        parts.append(f"<i>{_text(box.subtitle)}</i>" if box.shape == "node" else _text(box.subtitle))
    parts += [_text(line) for line in box.lines]
    return f"{names[box.id]}{opening}{'<br/>'.join(parts)}{closing}"


def _text(text: str) -> str:
    """Text inside of quotes: whatever Mermaid or HTML would read as its own becomes a numbered character."""
    return re.sub(r"[^\w .,:;!?()=+/…·→’-]|[\x00-\x1f]", lambda match: f"#{ord(match[0])};", text)


def _yaml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", " ", escaped) + '"'
