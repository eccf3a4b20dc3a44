"""A contact sheet: the pictures of a sweep on one page, each with the values that made it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphflow.files import write_atomically
from graphflow.graph.sweep import Point, folders_of

__all__ = ["write_contact_sheets"]

_CELL = 256
"""Largest side of a picture on the sheet, pixels."""
_LARGEST = 12_000
"""Largest side of a sheet, pixels: with more pictures they get smaller."""
_MARGIN = 12
_LINE = 18
_READ = {".png", ".jpg", ".jpeg", ".webp"}


def write_contact_sheets(points: Sequence[Point], files: Sequence[Path], output_folder: Path, stem: str) -> list[Path]:
    """Write a sheet for each picture that a point saves, called ``stem``-sheet, into the output folder.

    ``files`` are the files of all points. Where two inputs are swept in all combinations, one goes down and the other
    to the right; else the pictures follow each other. Points without the picture stay empty. Returns the paths.
    """
    root = output_folder.resolve()
    folders = dict.fromkeys(folders_of(points))
    pictures: dict[str, dict[str, Path]] = {}
    for path in files:
        absolute = path.resolve()
        if absolute.is_relative_to(root) and absolute.suffix.lower() in _READ:
            folder, *rest = absolute.relative_to(root).parts
            if folder in folders and rest:
                pictures.setdefault("/".join(rest), {})[folder] = absolute
    several = len(pictures) > 1
    sheets = []
    for name, found in pictures.items():
        own = "-" + name.rpartition(".")[0].replace("/", "-") if several else ""
        data = _sheet(points, [found.get(folder) for folder in folders])
        sheets.append(write_atomically(output_folder / f"{stem}-sheet{own}.png", data))
    return sheets


def _sheet(points: Sequence[Point], paths: Sequence[Path | None]) -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    columns, rows = _grid(points)
    across = _LARGEST // max(columns, rows) - _MARGIN - 3 * _LINE
    loaded: list[Image.Image | None] = []
    for path in paths:
        if path is None:
            loaded.append(None)
            continue
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        side = min(_CELL, max(across, 16))
        scale = side / max(picture.size)
        size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
        loaded.append(picture.resize(size, Image.Resampling.LANCZOS))
    width = max((picture.width for picture in loaded if picture), default=_CELL)
    height = max((picture.height for picture in loaded if picture), default=_CELL)
    captions = [[f"{name} {_short(value)}" for name, value in point.items()] for point in points]
    lines = max(len(caption) for caption in captions)
    step_x, step_y = width + _MARGIN, height + _MARGIN + lines * _LINE
    page = Image.new("RGB", (_MARGIN + columns * step_x, _MARGIN + rows * step_y), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for index, (shown, caption) in enumerate(zip(loaded, captions, strict=True)):
        left, top = _MARGIN + index % columns * step_x, _MARGIN + index // columns * step_y
        if shown is None:
            pen.rectangle((left, top, left + width - 1, top + height - 1), outline="#bbb")
        else:
            page.paste(shown, (left, top))
        for line, text in enumerate(caption):
            while text and pen.textlength(text, font=font) > width:
                text = text[:-2].rstrip("…") + "…" if len(text) > 2 else ""
            pen.text((left, top + height + 2 + line * _LINE), text, fill="#333", font=font)
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _grid(points: Sequence[Point]) -> tuple[int, int]:
    """Columns and rows: the input that varies fastest goes to the right where the points are a product."""
    last = list(points[0])[-1]
    fastest = {_short(point[last]) for point in points}
    columns = len(fastest) if len(points) % len(fastest) == 0 and len(points[0]) > 1 else 0
    if not 1 < columns <= 24:
        columns = min(len(points), max(4, round(len(points) ** 0.5)))
    return columns, -(-len(points) // columns)


def _short(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float, bool, Path)) else type(value).__name__
