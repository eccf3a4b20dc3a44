"""Saved workflows by name: where they are looked for, what they are pinned to.

A name is looked for in the folder of the calling file, the folders of the environment variable ``GRAPHFLOW_PATH``, the
folder ``workflows`` below the current one, and the workflows that ship with GraphFlow, in this order.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from graphflow.document.workflow import WorkflowDocument
from graphflow.errors import Position, Problem, WorkflowError, nearest
from graphflow.files import is_file, real_path

__all__ = ["Library", "Uses", "parse_uses", "saved_workflows", "search_folders"]

_USES = re.compile(r"(?P<target>[^@\x00-\x1f\x7f]{1,1000})(@(?P<pin>sha256:[0-9a-f]{8,64}))?")


@dataclass(frozen=True, slots=True)
class Uses:
    """The ``uses`` of a node, read: a name or a relative file, and a hash it is pinned to (8 to 64 hex digits)."""

    target: str
    pin: str | None


def parse_uses(text: str) -> Uses | None:
    """Read ``name``, ``folder/file.json``, or either with ``@sha256:…``; None if it is none of these."""
    match = _USES.fullmatch(text)
    if match is None:
        return None
    pin = match["pin"]
    return Uses(match["target"], pin.removeprefix("sha256:") if pin else None)


def shipped_folder() -> Path:
    """Folder of the workflows that ship with GraphFlow: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(
        (folder for folder in (package / "workflows", package.parent / "workflows") if folder.is_dir()),
        package / "workflows",
    )


def search_folders(caller: Path | None = None) -> list[Path]:
    """Return the workflow path, nearest first."""
    listed = [Path(part) for part in os.environ.get("GRAPHFLOW_PATH", "").split(os.pathsep) if part]
    folders = [*([caller] if caller else []), *listed, Path("workflows"), shipped_folder()]
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def _shown(path: Path) -> str:
    """Return a file as messages call it: from the current folder where it is below that."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def saved_workflows(caller: Path | None = None) -> Iterator[tuple[str, Path]]:
    """Name and file of every workflow on the path; the nearest file of a name wins."""
    seen: set[str] = set()
    for folder in search_folders(caller):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            if path.stem not in seen and path.is_file():
                seen.add(path.stem)
                yield path.stem, path


class Library:
    """Loads workflows once each, and knows their content hashes."""

    def __init__(self) -> None:
        self._documents: dict[Path, WorkflowDocument] = {}
        self._hashes: dict[int, str] = {}
        self._found: dict[tuple[str, Path | None], Path] = {}

    def find(self, target: str, caller: Path | None, pin: str | None = None) -> Path | Problem:
        """Return the file that a name or a relative path means for a workflow in the folder ``caller``.

        Whether it is the one that it is pinned to is seen to by whoever asks. What was found once stays found, so that
        a record of a run holds what ran, whatever becomes of the files.
        """
        key = (target, caller)
        found = self._found.get(key) or self._find(target, caller)
        if isinstance(found, Path):
            self._found[key] = found
        return found

    def _find(self, target: str, caller: Path | None) -> Path | Problem:
        if target.endswith(".json") or "/" in target or "\\" in target:
            return self._relative(target, caller)
        for folder in search_folders(caller):
            path = folder / f"{target}.json"
            if is_file(path):
                return path
        known = [name for name, _ in saved_workflows(caller)]
        hint = nearest(target, known) or "`graphflow workflows` lists the saved workflows"
        return Problem("workflow.unknown", f"found no saved workflow '{target}' on the workflow path", hint=hint)

    def _relative(self, target: str, caller: Path | None) -> Path | Problem:
        if caller is None:
            message = f"'{target}' is a relative file, but this workflow is not in a folder"
            return Problem("uses.relative", message, hint="save the workflow first, or call a saved workflow by name")
        root = real_path(caller)
        path = real_path(root / target)
        if not path.is_relative_to(root) or "\\" in target:
            hint = "put it into that folder, or call it by name and set GRAPHFLOW_PATH"
            return Problem("path.outside", f"'{target}' is outside of the folder of the calling workflow", hint=hint)
        if not is_file(path):
            folder = Path(target).parent
            beside = [str(folder / item.name) for item in path.parent.glob("*.json") if is_file(item)]
            hint = nearest(target, beside)
            return Problem("workflow.unknown", f"found no file '{target}' beside the calling workflow", hint=hint)
        return path

    def load(self, path: Path) -> WorkflowDocument:
        """Read the document in a file. Raises WorkflowError for faults of form."""
        if path not in self._documents:
            self._documents[path] = WorkflowDocument.load(path, name=_shown(path))
        return self._documents[path]

    def hash(self, document: WorkflowDocument) -> str:
        """SHA-256 (hex) of what a workflow does: its content, and the content of every workflow it calls.

        Description texts do not count. Raises WorkflowError if a called workflow cannot be found or calls itself.
        """
        stack = [document]
        begun: set[int] = set()
        while stack:
            current = stack[-1]
            if id(current) in self._hashes:
                stack.pop()
                continue
            begun.add(id(current))
            called = self.called(current)
            waiting = [callee for callee in called.values() if id(callee) not in self._hashes]
            if any(id(callee) in begun for callee in waiting):
                position = Position(current.name)
                raise WorkflowError([Problem("workflow.recursive", "the workflow calls itself", position=position)])
            stack += waiting
            if not waiting:
                hashes = {name: self._hashes[id(callee)] for name, callee in called.items()}
                self._hashes[id(current)] = _content_hash(current, hashes)
        return self._hashes[id(document)]

    def called(self, document: WorkflowDocument) -> dict[str, WorkflowDocument]:
        """Return the documents that the nodes of a workflow call, by the name of the node."""
        called = {}
        for name, entry in document.nodes.items():
            uses = parse_uses(entry.uses) if entry.uses is not None else None
            if uses is not None:
                found = self.find(uses.target, document.folder, uses.pin)
                if isinstance(found, Problem):
                    raise WorkflowError.of([found.at(position=Position(document.name))])
                called[name] = self.load(found)
        return called


def _content_hash(document: WorkflowDocument, called: dict[str, str]) -> str:
    data = document.to_dict()
    for name in ("$schema", "description", "sweep"):
        data.pop(name, None)
    for declaration in data.get("inputs", {}).values():
        declaration.pop("description", None)
    for name, digest in called.items():
        data["nodes"][name]["uses"] = digest
    return hashlib.sha256(b"workflow\n" + orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()
