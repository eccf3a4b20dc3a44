"""Make the page of all problems: ``python -m docs.problems_page``.

What a problem means is said here; the example is the shortest one in ``tests/bad_workflows``, or, of a problem that no
workflow file can show, the message in the source with … for what varies. A test holds the page against both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.test_bad_workflows import FOLDER, NAMES, SOURCES, codes_in_source

PAGE = Path(__file__).with_name("problems.md")

FAMILIES = {
    "json": "The text of the file",
    "format": "The format of the file",
    "field": "Fields",
    "name": "Names",
    "workflow": "Workflows",
    "uses": "Calls of saved workflows",
    "node": "Node types",
    "reference": "References between nodes",
    "graph": "The graph as a whole",
    "port": "Ports",
    "parameter": "Parameters",
    "type": "Types along edges",
    "input": "Inputs of a workflow",
    "output": "Outputs of a workflow",
    "value": "Values",
    "path": "Paths",
    "file": "Files that are read and written",
    "url": "Pictures from URLs",
    "missing": "Absent from this machine (exit status 3)",
    "model": "Models",
    "sweep": "Sweeps",
    "keep": "Kept values",
    "device": "Devices",
    "dtype": "Precision",
    "attention": "Attention",
    "offload": "Offloading",
    "compile": "Compilation",
    "memory": "Memory",
    "together": "Batches",
    "manifest": "Manifests",
    "record": "Records in pictures",
}
"""The heading of each family of codes, in the order of the page: as a file is read, then as a run goes."""

MEANINGS = {
    "attention.device": "A way of computing attention does not work on the device. Leave `--attention` out.",
    "attention.missing": "The package for a way of computing attention is not installed. Leave `--attention` out, or "
    "install it.",
    "attention.unknown": "`--attention` names no way of computing attention.",
    "compile.missing": "torch.compile has nothing to compile with: it needs Triton on CUDA, a C++ compiler on the CPU.",
    "compile.offload": "Compilation needs weights that stay in place. Use `--offload model` with it.",
    "device.missing": "The device is not on this machine. Use `--device auto` or `cpu`.",
    "device.mixed": "A run was given devices of several kinds, whose results differ in their last digits.",
    "device.twice": "A device was named twice.",
    "device.unknown": "`--device` names no device.",
    "dtype.unknown": "`--dtype` names no precision.",
    "field.missing": "A field that every workflow or node must have is not there. Add it.",
    "field.unknown": "A field is neither a parameter nor a port of the node, nor part of the format; most often it is "
    "misspelt.",
    "file.claimed_twice": "Two nodes would write one file. Give one of them another name.",
    "file.damaged": "A picture could not be decoded although its header is whole. Copy or download it again.",
    "file.not_an_image": "A file, or what a URL gave, is no PNG, JPEG, WebP, GIF or BMP picture.",
    "file.too_large": "A picture has more pixels than are read: a small file may be made to fill the memory.",
    "file.truncated": "A picture ends before its format does. Copy or download it again.",
    "file.unwritable": "A file or folder cannot be written. Nothing was computed for it.",
    "format.kind": "The file is JSON, but no workflow: a list, or the file of another program.",
    "format.version": 'The number under `"graphflow"` is absent, no number, or one that this version does not read.',
    "graph.cycle": "Nodes wait for one another in a circle. Connect one of them to something else.",
    "input.ambiguous": "In Python, a keyword is the name of an option and of an input. Give the input in `inputs={…}`.",
    "input.default": "An input has a default that its type does not allow.",
    "input.form": "In Python, `inputs` is no mapping of values by name.",
    "input.loader": "An input takes a file of a kind that no installed node reads.",
    "input.missing": "An input without a default was given no value. Give it with `--set`, or in Python.",
    "input.twice": "One input is declared, or given, twice.",
    "input.unknown": "A value was given for an input that the workflow does not declare.",
    "input.unused": "A warning: an input is declared and nothing uses it.",
    "json.duplicate_key": "A key stands twice in one object, of which JSON readers would silently ignore one.",
    "json.encoding": "The file is no UTF-8 text.",
    "json.number": "A number is none that JSON can hold everywhere: NaN, infinite, too large or of too many digits.",
    "json.syntax": "The text is no JSON. The place is where reading stopped; the fault may be just before it.",
    "json.text": "A text holds half a character, from an escape that was cut.",
    "json.too_deep": "Objects and lists are nested more deeply than can be read.",
    "keep.unknown": "`keep` names no node or output of the workflow.",
    "manifest.damaged": "A file is no manifest, or is not whole.",
    "manifest.unfinished": "A run that did not finish cannot be replayed. Run the workflow again: what was finished is "
    "kept.",
    "manifest.version": "A manifest was written by another version of GraphFlow than this one reads.",
    "memory.budget": "A step needs more memory than the device has, or than the budget allows. The hint says what "
    "would make it smaller, and how small.",
    "memory.unreadable": "A size of memory is written in a way that is not understood.",
    "missing.answer": "A server did not answer in time. Try again later, or with a local copy.",
    "missing.connection": "A server or proxy was not reached, or a download broke off.",
    "missing.download": "A picture was never downloaded, and the network may not be asked (`--offline`).",
    "missing.file": "A file is not there. A path in a workflow starts in the folder of the workflow.",
    "missing.host": "The name of a server was not found.",
    "missing.model": "A model is not on this machine. The hint has the command that downloads it.",
    "missing.model_file": "A model is there, but lacks files that are needed.",
    "missing.package": "An optional package is not installed. The hint has the command.",
    "missing.peft": "LoRAs need the package peft, which is not installed.",
    "missing.repository": "A repository cannot be had from the Hugging Face Hub: it is not there, or access is needed.",
    "missing.status": "A server answered with an error instead of a picture.",
    "missing.tokenizer": "A checkpoint of one file holds no vocabulary, and none is in the local cache.",
    "model.choice": "A repository holds several checkpoints of one file. Name one of them.",
    "model.controlnet": "A ControlNet was made for a model of another kind.",
    "model.damaged": "A file of a model is cut off or not what it should be. Download or copy it again.",
    "model.lora": "A LoRA was made for a model of another kind, or is no LoRA.",
    "model.not_diffusers": "A folder is no model in the layout of diffusers.",
    "model.pickle_only": "Weights are there as a pickle only, which can run code when it is read.",
    "model.prior": "A Kandinsky decoder is guided by a prior, and nothing says where it is.",
    "model.reference": "The text that names a model with its VAE and LoRAs cannot be read.",
    "model.shape": "The tensors of a checkpoint do not fit its configuration.",
    "model.unsafe": "A .pth file asks for more than tensors. Nothing of it was used.",
    "model.unsupported": "A model is of a kind that the node, or GraphFlow, does not run.",
    "model.vae": "A VAE does not fit the model, or is none.",
    "model.variant": "A warning: only some components of a model have half-precision files.",
    "name.form": "A name has characters that names may not have.",
    "node.twice": "Two nodes were given one name.",
    "node.unknown": "No installed node type has this name. `graphflow nodes` lists them.",
    "offload.device": "On the CPU there is nothing to offload from.",
    "offload.unknown": "`--offload` names no way of offloading.",
    "output.twice": "Two outputs were given one name.",
    "parameter.edge": "A parameter was given an edge. Parameters are known before the run; only ports take edges.",
    "parameter.missing": "A parameter without a default was left out.",
    "path.empty": "A path is an empty text.",
    "path.form": "A path, or the name of a file to save, has a form that is not portable.",
    "path.outside": "A path leads out of the folder that it must stay in. Another one is given by a person, with "
    "`--set`.",
    "path.url": "A URL stands where only the path of a file can.",
    "port.missing": "A port that must have a value is not connected.",
    "record.damaged": "The record in a picture is not whole.",
    "record.missing": "A picture holds no workflow: another program wrote it, or it was saved without.",
    "record.value": "A value was given from Python when the picture was made, and is not in the record. Give it again.",
    "record.version": "A record was written by another version of GraphFlow than this one reads.",
    "reference.form": 'A reference has another form than `{"from": "node"}`, `{"from": "node.output"}` or '
    '`{"input": "name"}`.',
    "reference.node": "A reference names a node that is not there.",
    "reference.output": "A reference names an output that the node does not have.",
    "sweep.empty": "A sweep has no values for an input.",
    "sweep.form": "A sweep is neither lists of values by input nor a list of objects with equal inputs.",
    "sweep.too_large": "A sweep has more points than one run takes. Split it.",
    "sweep.twice": "A point of a sweep stands there twice.",
    "together.range": "A batch has at least one step.",
    "type.hop": "A warning: an edge leads from one latent space to another, through pixels.",
    "type.mismatch": "A value of one type arrives where another one is wanted, and nothing converts it.",
    "url.address": "A URL leads to an address that is not of the public internet.",
    "url.certificate": "The certificate of a server is not trusted.",
    "url.form": "A URL cannot be read.",
    "url.proxy": "The proxy in the environment cannot be used.",
    "url.redirects": "A URL is redirected too often.",
    "url.scheme": "A URL is not https.",
    "url.stale": "A warning: a server did not answer, so the copy of an earlier download is used.",
    "url.too_large": "What a URL gives is larger than a picture may be.",
    "uses.form": "`uses` is neither a name nor a relative file, with a pin or without.",
    "uses.relative": "`uses` names a relative file in a workflow that is in no folder.",
    "value.choice": "A value is none of those that the parameter may have.",
    "value.clip_skip": "`clip_skip` leaves out more layers than the text encoder has.",
    "value.control_batch": "There are several depth maps, and not as many pictures.",
    "value.control_range": "A ControlNet would stop before it starts.",
    "value.control_size": "A size, or a number of pictures, was given beside an image that has its own.",
    "value.form": "A text has another form than the parameter asks for.",
    "value.format": "The suffix of a name and the format of a picture disagree.",
    "value.hand_over": "A model was asked to stop early, or to go on, that cannot share a noise schedule.",
    "value.hand_over_steps": "Two models share a noise schedule with different numbers of steps.",
    "value.ignored": "A parameter was given that the model would not look at.",
    "value.image_size": "A picture is smaller than the model can take.",
    "value.invalid": "A value breaks a rule of its parameter.",
    "value.length": "A text or list is longer or shorter than allowed.",
    "value.noise_level": "A noise level is beyond what the model was trained for.",
    "value.noisy_latent": "Latents still have noise in them where clean ones are wanted, or the other way round.",
    "value.prompt": "A prompt with weights cannot be read, or asks for more than weights.",
    "value.range": "A number is outside of its range.",
    "value.sampler": "A sampler is unknown, or one that the model cannot work with.",
    "value.sampler_steps": "A sampler has fewer steps to give than were asked for.",
    "value.size_floored": "A warning: a picture is cut down to a size that the model can take.",
    "value.size_multiple": "A width or height is none that the model can make.",
    "value.strength_noise": "A strength below 1 was given for pure noise, in which there is no picture to keep.",
    "value.strength_share": "A warning: the steps that run are another share of the schedule than the strength says.",
    "value.strength_steps": "A strength leaves no step to run.",
    "value.tiles": "Tiles overlap by more than half.",
    "value.type": "A value is of another type than the field. Nothing is converted.",
    "value.unwritable": "A value that was given in Python cannot stand in a workflow.",
    "workflow.empty": "A workflow has no nodes.",
    "workflow.pin": "A called workflow is another one than the pin says. Look at the change, then pin it anew.",
    "workflow.recursive": "Workflows call one another in a circle.",
    "workflow.unknown": "A called workflow was not found.",
}
"""Meaning of each code, and what to do where the example's hint does not say it."""

RAISED = {"file.damaged": "… cannot be decoded: … [file.damaged]; copy or download it again"}
"""Messages that are no `Problem`, because they are raised while a node runs."""

_CODED = re.compile(r"(?P<text>.*) \[(?P<code>[a-z_]+\.[a-z_]+)\]")
_FIRST = """# Problems

Every problem that GraphFlow reports has a code that stays the same when words change. A message says where (file,
line, column, node, field), what was found and what was expected; the indented line below it says what to do. Warnings
do not keep a workflow from running. With `--json`, `graphflow validate` writes the same as data.

*Made by `python -m docs.problems_page` from the messages that the tests expect; where no workflow file shows a problem,
… stands for what varies.*
"""


class Example(NamedTuple):
    """A message with its hint, and the broken workflow that shows it."""

    message: str
    hint: str
    file: str = ""


def examples_in_files() -> dict[str, Example]:
    """The shortest message of each code in the texts of the broken workflows."""
    found: dict[str, Example] = {}
    for name in NAMES:
        lines = (FOLDER / f"{name}.txt").read_text().splitlines()
        for number, line in enumerate(lines):
            match = _CODED.fullmatch(line)
            if match is None:
                continue
            hint = lines[number + 1].strip() if lines[number + 1 :] and lines[number + 1].startswith("    ") else ""
            best = found.get(match["code"])
            if best is None or len(line) < len(best.message):
                found[match["code"]] = Example(line, hint, name)
    return found


def examples_in_source() -> dict[str, Example]:
    """The longest message of each code in the source, with … for what varies."""
    found: dict[str, Example] = {}
    for folder in SOURCES:
        for path in sorted(folder.rglob("*.py")):
            for code, example in _problems_in(ast.parse(path.read_text())):
                if code not in found or len(example.message) > len(found[code].message):
                    found[code] = example
    return found


def _problems_in(module: ast.Module) -> Iterator[tuple[str, Example]]:
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or len(call.args) < 2:
                continue
            message = _text(call.args[1], function)
            named = {keyword.arg: keyword.value for keyword in call.keywords}
            last = 3 if getattr(call.func, "id", "") == "Problem" else 2
            given = named.get("hint") or (call.args[last] if len(call.args) > last else None)
            hint = _text(given, function) if given is not None else ""
            for part in ast.walk(call.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and "." in part.value:
                    yield part.value, Example(f"{message} [{part.value}]", hint)


def _text(part: ast.expr, function: ast.FunctionDef) -> str:
    """A text in the source as a reader sees it, with … for what is known only later."""
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        return part.value
    if isinstance(part, ast.JoinedStr):
        return re.sub("…+", "…", "".join(_text(value, function) for value in part.values))
    if isinstance(part, ast.FormattedValue):
        return _text(part.value, function)
    if isinstance(part, ast.BinOp):
        return _text(part.left, function) + _text(part.right, function)
    if isinstance(part, ast.IfExp):
        return _text(part.body, function)
    if isinstance(part, ast.Name):
        values = [value for name, value in _assigned(function, before=part.lineno) if name == part.id]
        return _text(values[-1], function) if values else "…"
    return "…"


def _assigned(function: ast.FunctionDef, *, before: int) -> Iterator[tuple[str, ast.expr]]:
    """The names in a function that are given a value above a line, with the value, in the order of the lines."""
    above = [part for part in ast.walk(function) if isinstance(part, ast.Assign) and part.lineno < before]
    for statement in sorted(above, key=lambda part: part.lineno):
        for target in statement.targets:
            pairs = [(target, statement.value)]
            if isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                pairs = list(zip(target.elts, statement.value.elts, strict=True))
            yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


def page() -> str:
    """The text of the page. Raises ValueError where a code has no meaning here, or a meaning no code."""
    codes = sorted(set(codes_in_source()))
    unsaid = [code for code in codes if code not in MEANINGS or code.partition(".")[0] not in FAMILIES]
    if unsaid:
        raise ValueError(f"docs/problems_page.py does not say what these mean: {', '.join(unsaid)}")
    gone = sorted(MEANINGS.keys() - set(codes))
    if gone:
        raise ValueError(f"docs/problems_page.py says what these mean, which are gone: {', '.join(gone)}")
    raised = {code: Example(message, "") for code, message in RAISED.items()}
    shown = raised | examples_in_source() | examples_in_files()
    parts = [_FIRST]
    for family, heading in FAMILIES.items():
        members = [code for code in codes if code.partition(".")[0] == family]
        if members:
            parts.append(f"\n## {heading}\n")
        parts += [_entry(code, shown[code]) for code in members]
    return "".join(parts)


def _entry(code: str, example: Example) -> str:
    hint = f"\n    {example.hint}" if example.hint.strip("…") else ""
    source = (
        f"\n*Shown by [{example.file}.json](../tests/bad_workflows/{example.file}.json).*\n" if example.file else ""
    )
    return f"\n### {code}\n\n{MEANINGS[code]}\n\n```none\n{example.message}{hint}\n```\n{source}"


if __name__ == "__main__":
    PAGE.write_text(page())
