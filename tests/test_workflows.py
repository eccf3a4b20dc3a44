"""Every workflow that ships, whatever is added to the folder: sound, stable, and it runs."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

import graphflow as gf

FOLDER = Path(__file__).parents[1] / "workflows"
PATHS = sorted(FOLDER.glob("*.json"))
FEW = 4
"""Denoise steps: the least that leaves a strength of 0.3 one step."""

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def test_it_has_no_fault_and_tells_what_it_does(path: Path) -> None:
    workflow = gf.load(path)
    assert [problem for problem in workflow.validate() if problem.severity == "error"] == []
    assert workflow.description
    assert workflow.outputs


def test_reading_and_writing_it_changes_nothing(path: Path, tmp_path: Path) -> None:
    workflow = gf.load(path)
    assert workflow.to_dict() == json.loads(path.read_bytes())
    written = workflow.save(tmp_path / "written.json")
    assert gf.load(written).dumps() == workflow.dumps() == written.read_text()


def test_the_schema_accepts_it(path: Path) -> None:
    import jsonschema

    from graphflow.schema import workflow_schema

    jsonschema.validate(json.loads(path.read_bytes()), workflow_schema(gf.default_registry()))


def test_it_runs_and_gives_its_outputs(path: Path, tmp_path: Path) -> None:
    workflow = gf.load(path)
    values: dict[str, Any] = {}
    for name, declaration in workflow.inputs.items():
        if name == "steps":
            values[name] = FEW
        elif declaration.required:
            values[name] = a_value(declaration.type, tmp_path)
    registry = gf.default_registry()
    for entry in workflow.nodes.values():
        cls = registry.get(entry.type)
        if cls is not None and "steps" in cls.model_fields and "steps" not in entry.fields:
            entry.fields["steps"] = FEW
    run = workflow.run(out=tmp_path / "out", device="cpu", **values)
    assert set(workflow.outputs) <= set(run)
    assert all(isinstance(run[name], gf.Image) for name in workflow.outputs)
    assert all(file.stat().st_size for file in run.files)


def a_value(kind: str, folder: Path) -> Any:
    """Something for an input without a default."""
    if kind in ("image", "mask", "depth_map", "file"):
        file = folder / "picture.png"
        file.write_bytes(picture(64, 64))
        return str(file)
    return {"text": "a red ball on green grass", "int": 1, "seed": 1, "float": 0.5, "bool": True, "model": "pocket"}[
        kind
    ]


def picture(width: int, height: int) -> bytes:
    """A small PNG with a gradient in it."""
    rows = b"".join(b"\0" + bytes(part for x in range(width) for part in (4 * x, 3 * y, 90)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
