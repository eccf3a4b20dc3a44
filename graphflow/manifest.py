"""The manifest of a run: what ran, with what, and what came out, as one JSON object."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from graphflow.files import write_atomically
from graphflow.graph import Constant, Graph
from graphflow.plan import Plan, library_versions
from graphflow.scheduler import Outcome
from graphflow.version import __version__

__all__ = ["MANIFEST_VERSION", "Manifest"]

MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as JSON data, ready to be written."""

    data: dict[str, Any]

    @classmethod
    def of(cls, graph: Graph, plan: Plan, outcome: Outcome, inputs: Mapping[str, Any]) -> Manifest:
        """Describe a finished run."""
        steps = []
        for step, record in zip(plan.steps, outcome.records, strict=True):
            constants = {
                port: source.value
                for port, source in step.inputs.items()
                if isinstance(source, Constant) and isinstance(source.value, (str, int, float, bool))
            }
            steps.append(
                {
                    "name": step.name,
                    "type": step.node.type_id,
                    "version": step.node.version,
                    "parameters": step.node.model_dump(),
                    "constants": constants,
                    "identity": step.node.identity(),
                    "key": step.key,
                    "state": record.state,
                    "seconds": round(record.seconds, 4),
                }
            )
        return cls(
            {
                "graphflow_manifest": MANIFEST_VERSION,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "graphflow": __version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "libraries": dict(library_versions()),
                "environment": dict(plan.environment),
                "workflow": graph.document.to_dict(),
                "workflow_file": graph.document.name,
                "called": graph.called,
                "inputs": {
                    name: value if isinstance(value, (str, int, float, bool)) else repr(value)
                    for name, value in inputs.items()
                },
                "models": list(plan.models()),
                "seconds": round(outcome.seconds, 4),
                "warnings": outcome.warnings,
                "steps": steps,
                "files": [
                    {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
                    for path in outcome.files
                    if path.is_file()
                ],
            }
        )

    def dumps(self) -> str:
        """The manifest as indented JSON."""
        return orjson.dumps(self.data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()

    def save(self, path: str | Path) -> Path:
        """Write the manifest, whole or not at all."""
        return write_atomically(Path(path), self.dumps().encode())
