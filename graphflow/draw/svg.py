"""A drawing as a standalone SVG, for light and dark surroundings.

Text is measured with the widths of a wide sans-serif (DejaVu Sans), so that it fits its box in any common one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

from graphflow.draw.drawing import EFFECT, TONES, Arrow, Box, Drawing
from graphflow.draw.layout import Link, Placed, Route, arrange

__all__ = ["svg", "text_width"]

_LIGHT = {
    "Latent": "#6d4aff",
    "Image": "#0a8f6c",
    "Mask": "#6f8200",
    "DepthMap": "#0e7c9b",
    "Conditioning": "#d9480f",
    "Text": "#a86b00",
    "Number": "#5b6b80",
    "Model": "#2563c9",
    EFFECT: "#c2255c",
    "other": "#5b6b80",
}
_DARK = {
    "Latent": "#a996ff",
    "Image": "#3ccf9f",
    "Mask": "#b9cc4a",
    "DepthMap": "#5cc3df",
    "Conditioning": "#ff9466",
    "Text": "#f0bd5a",
    "Number": "#9fb0c6",
    "Model": "#7ab0ff",
    EFFECT: "#ff7fab",
    "other": "#9fb0c6",
}
_NAMES = {EFFECT: "writes or shows", "Number": "number", "Model": "model", "other": "other", "DepthMap": "Depth map"}

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'
TITLE, SMALL, LABEL, HEAD = 13.0, 11.0, 10.5, 15.0
PADDING = 12.0
LINE = 15.0
PILL = 26.0
TEXT_LIMIT = 260.0
"""No text of a box is wider than this; what is longer is cut."""

# advance widths of DejaVu Sans in thousandths of the size, for the printable ASCII characters from the space on
_ADVANCES = (
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
    748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
    615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
    337, 636, 838,
)  # fmt: skip


def svg(drawing: Drawing) -> str:
    """Return the drawing as SVG text."""
    return "\n".join(_Canvas(drawing).lines()) + "\n"


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a line of text in pixels, at most."""
    total = 0
    for character in text:
        place = ord(character) - 32
        if 0 <= place < len(_ADVANCES):
            total += _ADVANCES[place]
        elif unicodedata.combining(character):
            continue
        else:
            total += 1050 if unicodedata.east_asian_width(character) in "WFA" else 800
    return total * size / 1000 * (1.1 if bold else 1.0)


def _cut(text: str, size: float, limit: float, *, bold: bool = False) -> str:
    """Return the text, or as much of its beginning as fits."""
    text = "".join(
        " " if unicodedata.category(character) in ("Cc", "Cs", "Cn", "Co") else character for character in text
    )
    if text_width(text, size, bold=bold) <= limit:
        return text
    room = limit - text_width("…", size, bold=bold)
    kept = ""
    for character in text:
        room -= text_width(character, size, bold=bold)
        if room < 0:
            break
        kept += character
    return kept.rstrip() + "…"


class _Card:
    """A box with its texts cut to size."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.title = _cut(box.title, TITLE, TEXT_LIMIT, bold=True)
        self.subtitle = _cut(box.subtitle, SMALL, TEXT_LIMIT)
        self.lines = [_cut(line, SMALL, TEXT_LIMIT) for line in box.lines]

    @property
    def size(self) -> tuple[float, float]:
        if self.box.shape != "node":
            width = text_width(self.title, TITLE, bold=True)
            if self.subtitle:
                width += 8 + text_width(self.subtitle, SMALL)
            return max(width + 2 * PILL / 2 + 6, 60.0), PILL
        widths = [text_width(self.title, TITLE, bold=True), text_width(self.subtitle, SMALL)]
        widths += [text_width(line, SMALL) for line in self.lines]
        height = (
            2 * PADDING + TITLE + (LINE if self.subtitle else 0) + len(self.lines) * LINE + (5 if self.lines else 0)
        )
        return max(max(widths) + 2 * PADDING + 4, 110.0), height


class _Canvas:
    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.cards = {box.id: _Card(box) for box in drawing.boxes}
        self.labels = [_cut(arrow.label, LABEL, 120.0) for arrow in drawing.arrows]
        self.frame_labels = {frame.id: _cut(frame.label, SMALL, TEXT_LIMIT, bold=True) for frame in drawing.frames}
        links = [
            Link(arrow.source, arrow.target, text_width(label, LABEL) if label else 0.0)
            for arrow, label in zip(drawing.arrows, self.labels, strict=True)
        ]
        self.sheet = arrange(
            {key: card.size for key, card in self.cards.items()},
            links,
            frame_of={box.id: box.frame for box in drawing.boxes},
            parents={frame.id: frame.parent for frame in drawing.frames},
            frame_label_widths={key: text_width(label, SMALL, bold=True) for key, label in self.frame_labels.items()},
        )

    def lines(self) -> Iterator[str]:
        sheet = self.sheet
        legend, legend_width = _legend(self.drawing)
        title_limit = max(sheet.width, legend_width, 360.0) - 36
        title = _cut(self.drawing.title, HEAD, title_limit, bold=True)
        head = 34.0 if title else 0.0
        width = max(sheet.width, legend_width, text_width(title, HEAD, bold=True) + 36)
        height = head + sheet.height + (30.0 if legend else 0.0)
        left = (width - sheet.width) / 2
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
            f'viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label="{_attribute(self.drawing.title)}">'
        )
        yield f"<style>{_style()}</style>"
        yield f'<rect class="paper" width="{_n(width)}" height="{_n(height)}" rx="10"/>'
        if title:
            yield f'<text class="head" x="18" y="29">{escape(title)}</text>'
        yield f'<g transform="translate({_n(left)} {_n(head)})">'
        for frame in self.drawing.frames:
            if frame.id in sheet.frames:
                yield _rectangle(sheet.frames[frame.id], "frame", 12)
        for arrow, route in zip(self.drawing.arrows, sheet.routes, strict=True):
            yield from _arrow(arrow, route)
        for frame in self.drawing.frames:
            if frame.id in sheet.frames:
                yield from self._frame_label(sheet.frames[frame.id], self.frame_labels[frame.id])
        for key, card in self.cards.items():
            yield from _card(card, sheet.boxes[key])
        for label, route in zip(self.labels, sheet.routes, strict=True):
            if label:
                x, y = route.points[-1]
                yield f'<text class="label" x="{_n(x + 6)}" y="{_n(y - 8)}">{escape(label)}</text>'
        yield "</g>"
        if legend:
            yield f'<g transform="translate(18 {_n(height - 16)})">'
            yield from legend
            yield "</g>"
        yield "</svg>"

    def _frame_label(self, place: Placed, label: str) -> Iterator[str]:
        """Yield the name of a frame in its upper edge, where no arrow comes in if there is such a place."""
        width = text_width(label, SMALL, bold=True) + 10
        entries = [
            x
            for route in self.sheet.routes
            for x, y in route.points
            if abs(y - place.y) < 0.5 and place.x < x < place.x + place.width
        ]
        starts = [place.x + 8, *(x + 6 for x in sorted(entries))]
        ends = [start for start in starts if start + width <= place.x + place.width - 8]
        free = (start for start in ends if not any(start - 3 < x < start + width + 3 for x in entries))
        x = next(free, place.x + 8)
        yield _rectangle(Placed(x, place.y + 5, width, 18), "frame-label", 4)
        yield f'<text class="frame-text" x="{_n(x + 5)}" y="{_n(place.y + 18)}">{escape(label)}</text>'


def _card(card: _Card, place: Placed) -> Iterator[str]:
    box = card.box
    tone = f"t-{box.tone.lower()}"
    yield f"<g><title>{escape(_tooltip(box))}</title>"
    if box.shape != "node":
        yield _rectangle(place, f"pill {tone} {box.shape}", place.height / 2)
        width = text_width(card.title, TITLE, bold=True)
        whole = width + (8 + text_width(card.subtitle, SMALL) if card.subtitle else 0)
        x = place.x + (place.width - whole) / 2
        y = place.y + place.height / 2 + 4.5
        if card.subtitle:
            yield f'<text class="title" x="{_n(x)}" y="{_n(y)}">{escape(card.title)}</text>'
            yield f'<text class="line" x="{_n(x + width + 8)}" y="{_n(y)}">{escape(card.subtitle)}</text>'
        else:
            middle = place.x + place.width / 2
            yield f'<text class="title" text-anchor="middle" x="{_n(middle)}" y="{_n(y)}">{escape(card.title)}</text>'
    else:
        yield _rectangle(place, f"box {tone}", 8)
        bar = Placed(place.x + 5, place.y + 8, 3, place.height - 16)
        yield _rectangle(bar, f"bar {tone}", 1.5)
        x, y = place.x + PADDING + 4, place.y + PADDING + TITLE - 2
        yield f'<text class="title" x="{_n(x)}" y="{_n(y)}">{escape(card.title)}</text>'
        if card.subtitle:
            y += LINE
            yield f'<text class="type {tone}" x="{_n(x)}" y="{_n(y)}">{escape(card.subtitle)}</text>'
        y += 5
        for line in card.lines:
            y += LINE
            yield f'<text class="line" x="{_n(x)}" y="{_n(y)}">{escape(line)}</text>'
    yield "</g>"


def _tooltip(box: Box) -> str:
    return _cut("\n".join([box.title, box.subtitle, *box.lines]).strip(), SMALL, 4000)


def _arrow(arrow: Arrow, route: Route) -> Iterator[str]:
    points = list(route.points)
    x, y = points[-1]
    points[-1] = (x, y - 5)  # the line ends inside of the arrow head
    parts = [f"M{_n(points[0][0])} {_n(points[0][1])}"]
    for (x1, y1), (x2, y2), bend in zip(points, points[1:], route.bends, strict=False):
        if bend == "line":
            parts.append(f"L{_n(x2)} {_n(y2)}")
            continue
        # vertical at both ends
        first, second = {"under": (30.0, 30.0), "over": (-30.0, -30.0)}.get(bend, ((y2 - y1) / 2, (y1 - y2) / 2))
        parts.append(f"C{_n(x1)} {_n(y1 + first)} {_n(x2)} {_n(y2 + second)} {_n(x2)} {_n(y2)}")
    tone = f"t-{arrow.tone.lower()}"
    dashed = " dashed" if arrow.dashed else ""
    yield f'<path class="edge {tone}{dashed}" d="{" ".join(parts)}"/>'
    yield f'<path class="tip {tone}" d="M{_n(x)} {_n(y)} l-4 -8 h8 z"/>'


def _legend(drawing: Drawing) -> tuple[list[str], float]:
    used = {arrow.tone for arrow in drawing.arrows} | {box.tone for box in drawing.boxes}
    lines: list[str] = []
    x = 0.0
    for tone in TONES:
        if tone in used and tone != "other":
            name = _NAMES.get(tone, tone)
            lines.append(f'<rect class="bar t-{tone.lower()}" x="{_n(x)}" y="-9" width="10" height="10" rx="3"/>')
            lines.append(f'<text class="label" x="{_n(x + 15)}" y="0">{escape(name)}</text>')
            x += 15 + text_width(name, LABEL) + 16
    if any(arrow.dashed for arrow in drawing.arrows):
        lines.append(f'<path class="edge dashed t-other" d="M{_n(x)} -4 h22"/>')
        lines.append(f'<text class="label" x="{_n(x + 28)}" y="0">conversion</text>')
        x += 28 + text_width("conversion", LABEL) + 16
    return lines, x + 20


def _rectangle(place: Placed, names: str, radius: float) -> str:
    return (
        f'<rect class="{names}" x="{_n(place.x)}" y="{_n(place.y)}" width="{_n(place.width)}" '
        f'height="{_n(place.height)}" rx="{_n(radius)}"/>'
    )


def _style() -> str:
    """Plain classes, twice: many viewers know no CSS variables."""
    common = [
        f"text{{font-family:{FONT}}}",
        f".head{{font-size:{HEAD}px;font-weight:600}}",
        f".title{{font-size:{TITLE}px;font-weight:600}}",
        f".type,.line{{font-size:{SMALL}px}}",
        f".label{{font-size:{LABEL}px}}",
        f".frame-text{{font-size:{SMALL}px;font-weight:600}}",
        ".box,.pill{stroke-width:1.3}.edge{fill:none;stroke-width:1.6}",
        ".dashed{stroke-dasharray:5 4}.frame{stroke-width:1;stroke-dasharray:2 3}",
    ]
    light = _colours("#ffffff", "#f6f7f9", "#1c2430", "#596575", "#b9c2cf", _LIGHT)
    dark = _colours("#12161c", "#1c222b", "#eef2f7", "#a6b2c2", "#4a5666", _DARK)
    return "".join([*common, *light]) + f"@media (prefers-color-scheme:dark){{{''.join(dark)}}}"


def _colours(paper: str, card: str, ink: str, faint: str, rim: str, tones: dict[str, str]) -> Iterable[str]:
    yield f".paper{{fill:{paper}}}.head,.title{{fill:{ink}}}.line,.label,.frame-text{{fill:{faint}}}"
    yield f".box,.pill{{fill:{card}}}.frame{{fill:{rim};fill-opacity:.13;stroke:{rim}}}"
    yield f".frame-label{{fill:{paper};fill-opacity:.85}}"
    for tone, colour in tones.items():
        name = tone.lower()
        yield f".edge.t-{name},.box.t-{name},.pill.t-{name}{{stroke:{colour}}}"
        yield f".bar.t-{name},.tip.t-{name},.type.t-{name}{{fill:{colour}}}"


def _attribute(text: str) -> str:
    return escape(_cut(text, SMALL, 4000), {'"': "&quot;"})


def _n(value: float) -> str:
    """Return a number with at most one decimal, so that equal drawings are equal text."""
    return (
        f"{value:.1f}".removesuffix(".0").replace("-0", "0") if abs(value) < 0.05 else f"{value:.1f}".removesuffix(".0")
    )
