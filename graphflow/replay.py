"""Replay: run again what a manifest or a picture records, and compare the files with the recorded ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from graphflow.build import Workflow, workflow_in_record
from graphflow.document.workflow import FILE_INPUTS
from graphflow.errors import Problem, WorkflowError
from graphflow.files import file_record, recorded_name
from graphflow.planning.planner import Plan
from graphflow.record.manifest import Manifest
from graphflow.record.png_text import same_but_for_text
from graphflow.record.record import record_in_png, with_inputs
from graphflow.version import __version__

__all__ = ["CLOSE", "Comparison", "Original", "Replay", "compare", "differences", "provenance", "read_replay"]

CLOSE = 2
"""Largest difference, in steps of 8 bits, at which two pictures are close: what other processors and versions make."""

Verdict = Literal["bit-exact", "close", "different", "gone"]


@dataclass(frozen=True, slots=True)
class Original:
    """A recorded file: its name, SHA-256 where that is recorded, and its path, if it is still there."""

    name: str
    sha256: str | None
    path: Path | None
    saved_by: str | None = None
    """Name of the step and number of the picture, where only this one of the files of the run is compared."""
    item: int = 0


@dataclass(frozen=True, slots=True)
class Replay:
    """A run to be repeated, and the recorded files that its files are compared with."""

    workflow: Workflow
    inputs: Mapping[str, Any]
    points: Sequence[Mapping[str, Any]]
    originals: Sequence[Original]
    record: Mapping[str, Any]
    """The record in the original files, so that the new ones can hold the same."""
    environment: Mapping[str, str]
    """Settings and versions of libraries, as keys have them."""
    unrecorded: tuple[str, ...]
    """Inputs whose values are not in the record, because Python gave them."""
    identities: Mapping[str, Any]
    """Identities of what the recorded steps read from files, by name; empty where they are not recorded."""

    def with_values(self, values: Mapping[str, Any]) -> Replay:
        """Return the same with values that a person gives, such as a file that lies elsewhere now.

        Raises WorkflowError where a value is needed that is in no record, or one is given that is swept.
        """
        problems = [
            Problem("input.twice", f"found a value for '{name}', which is swept", hint="leave it out")
            for name in values
            if any(name in point for point in self.points)
        ]
        lost = [name for name in self.unrecorded if name not in values]
        if lost:
            message = (
                f"the record does not hold the value of {', '.join(lost)}: it was given from Python, not as a file"
            )
            hint = "give a file that holds it with --set, or run the workflow again from Python"
            problems.append(Problem("record.value", message, hint=hint))
        if problems:
            raise WorkflowError(problems)
        return replace(self, inputs={**self.inputs, **values})


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on a file, compared with the recorded one."""

    name: str
    verdict: Verdict
    detail: str = ""


def read_replay(path: Path, folder: Path | None = None) -> Replay:
    """Read a manifest or a PNG file. Raises WorkflowError for a file that is neither.

    ``folder`` is where paths that stand in the workflow start: by default where they started then, which a manifest
    knows, or in the folder of the picture, which may be another one. Paths among the inputs of a picture start there
    too, and none may lead out of it: a picture may be a stranger's.
    """
    record = record_in_png(path)
    if record is not None:
        workflow, inputs = workflow_in_record(record, name=str(path), folder=folder or path.resolve().parent)
        saved_by, item = record.get("saved_by"), record.get("item")
        if not isinstance(saved_by, str) or not isinstance(item, int) or item < 0:
            raise _damaged(path, "it does not say which node saved the picture")
        with_inputs(workflow, inputs)
        original = Original(path.name, None, path, saved_by, item)
        return Replay(workflow, {}, (), [original], record, _texts(path, record), _lost(inputs), {})
    if not path.is_file():
        raise WorkflowError.of([Problem("missing.file", f"there is no file {path}")])
    data = Manifest.load(path).data
    try:
        recorded = None if data["folder"] is None else Path(data["folder"])
        name = Path(data["workflow_file"]).name
        workflow, inputs = workflow_in_record(data["record"], name=name, folder=folder or recorded)
        working, saved_in = Path(data["working_folder"]), Path(data["output_folder"])
        identities = {step["name"]: step["identity"] for step in data["steps"]}
        beside = path.resolve().parent.parent
        originals = [_recorded(saved, beside, saved_in) for saved in data["files"]]
        points = [_rooted(workflow, point, working) for point in data["sweep"]]
        environment, state, lost = _texts(path, data), data["state"], _lost(inputs)
        values = _rooted(workflow, {name: value for name, value in inputs.items() if name not in lost}, working)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if state != "done":
        hint = "run the workflow again: what was finished is kept"
        message = f"{path}: found a manifest of a run that is {state}, expected one that is done"
        raise WorkflowError([Problem("manifest.unfinished", message, hint=hint)])
    return Replay(workflow, values, points, originals, data["record"], environment, lost, identities)


def provenance(replay: Replay, folders: Sequence[str], environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Make the records for files that are saved again, by the folder of each point."""
    record = {name: part for name, part in replay.record.items() if name not in ("saved_by", "item")}
    record["environment"] = dict(environment)
    points = replay.points or [{}]
    return {
        folder: {**record, "inputs": {**record["inputs"], **point}}
        for folder, point in zip(folders, points, strict=True)
    }


def differences(replay: Replay, plan: Plan) -> Iterator[str]:
    """Differences between the recorded environment and this one: versions, settings, files that steps read."""
    if replay.record.get("graphflow") != __version__:
        yield f"graphflow: then {replay.record.get('graphflow') or 'none'}, now {__version__}"
    for name in dict.fromkeys([*replay.environment, *plan.environment]):
        recorded, current = replay.environment.get(name), plan.environment.get(name)
        if recorded != current:
            yield f"{name}: then {recorded or 'none'}, now {current or 'none'}"
    for step in plan.steps:
        if step.name in replay.identities and replay.identities[step.name] != step.node.identity():
            what = f"the model {step.node.models()[0]}" if step.node.models() else "what it reads"
            yield f"{step.name}: {what} is another one than then"


def compare(replay: Replay, saved: Sequence[tuple[str, Path]], folder: Path) -> list[Comparison]:
    """Compare each recorded file with the new one; ``saved`` are those in ``folder`` with the names of their steps.

    Files of one name are a pair, in whatever order they were saved. The others, which had to take another name when
    they were recorded, are compared in order.
    """
    if len(replay.originals) == 1 and replay.originals[0].saved_by is not None:
        (original,) = replay.originals
        made = [path for step, path in saved if step == original.saved_by][original.item :][:1]
        return [_compared(original, made[0] if made else None)]
    made_now = {recorded_name(path, folder): path for _, path in saved}
    names = {original.name for original in replay.originals}
    rest = iter([(name, path) for name, path in made_now.items() if name not in names])
    comparisons = [
        _compared(original, made_now.get(original.name) or next(rest, (None, None))[1]) for original in replay.originals
    ]
    if len(saved) > len(comparisons):  # else they are files that several steps shared then
        comparisons += [Comparison(name, "different", "this file was not saved then") for name, _ in rest]
    return comparisons


def _compared(original: Original, path: Path | None) -> Comparison:
    def verdict(found: Verdict, detail: str = "") -> Comparison:
        return Comparison(original.name, found, detail)

    if path is None:
        return verdict("different", "this file was not saved again")
    if original.sha256 is not None and file_record(path, path.parent)["sha256"] == original.sha256:
        return verdict("bit-exact")
    if original.path is None or not original.path.is_file():
        return verdict("gone", "the file of then is not there to compare with, and its hash is another one")
    recorded, current = original.path.read_bytes(), path.read_bytes()
    changed = original.sha256 is not None and file_record(original.path, path.parent)["sha256"] != original.sha256
    note = "the file was changed since it was saved" if changed else ""
    if same_but_for_text(recorded, current):
        return verdict("bit-exact", note)
    largest, words = _picture_difference(original.path, path)
    words = words or f"{len(recorded)} bytes then, {len(current)} bytes now"
    detail = "; ".join(part for part in (words, note) if part)
    return verdict("close" if largest is not None and largest <= CLOSE else "different", detail)


def _picture_difference(recorded: Path, current: Path) -> tuple[float | None, str]:
    """Return the largest difference of two pictures in steps of 8 bits, and it in words.

    It is None where they cannot be compared, and there are no words where one is no picture.
    """
    import numpy as np
    import PIL.Image

    try:
        # Pillow knows formats that it has other programs read; a manifest may be a stranger's
        formats = ("PNG", "JPEG", "WEBP")
        with PIL.Image.open(recorded, formats=formats) as one, PIL.Image.open(current, formats=formats) as other:
            if one.size != other.size or one.mode != other.mode:
                shapes = " then, ".join(f"{each.width} x {each.height} {each.mode}" for each in (one, other))
                return None, f"{shapes} now"
            # what stands for a colour, and is none, is made one
            pictures = [each.convert("RGBA") if each.mode in ("1", "P") else each for each in (one, other)]
            before, after = (np.asarray(each).astype(np.float64) for each in pictures)
            scale = 257 if one.mode.startswith("I") else 1  # pictures of more than 8 bits have 16
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        return None, ""
    apart = np.abs(before - after) / scale
    return float(apart.max()), f"differs by at most {apart.max():.3g} of 255, {apart.mean():.2g} on average"


def _recorded(entry: Mapping[str, Any], beside: Path, saved_in: Path) -> Original:
    places = [folder / entry["path"] for folder in (beside, saved_in)]
    path = next((place for place in places if place.is_file()), None)
    return Original(str(entry["path"]), entry["sha256"], path)


def _lost(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Inputs of a record whose values are not in it."""
    return tuple(name for name, value in inputs.items() if isinstance(value, Mapping))


def _texts(path: Path, data: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings and versions in a record or manifest. Raises WorkflowError where they are none."""
    environment = data.get("environment")
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise _damaged(path, "it does not say with what was computed")
    return environment


def _damaged(path: Path, reason: str) -> WorkflowError:
    kind = "manifest" if path.suffix == ".json" else "record"
    return WorkflowError([Problem(f"{kind}.damaged", f"{path}: found a {kind} that is not whole: {reason}")])


def _rooted(workflow: Workflow, inputs: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Values of inputs with the paths among them made absolute, from the folder that they were given in."""
    rooted = dict(inputs)
    for name, value in inputs.items():
        declaration = workflow.inputs.get(name)
        kind = declaration.type if declaration else ""
        if kind in FILE_INPUTS and isinstance(value, str) and "://" not in value:
            rooted[name] = str(folder / Path(value).expanduser())
    return rooted
