"""Records of a run: the manifest while it goes, the workflow in pictures, and both replayed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import graphflow as gf
from graphflow.graph.sweep import bind_points
from graphflow.nodes import LoadImage, SaveImage
from graphflow.planning.planner import plan_graphs
from graphflow.record.manifest import ManifestWriter
from graphflow.record.png_text import same_but_for_text, with_text
from graphflow.record.record import record_in_png
from graphflow.replay import differences, read_replay
from tests.helpers.command_line import Command

EMPTY = {"record": 1, "workflow": {"graphflow": 1, "nodes": {}}, "called": {}, "inputs": {}}

Process = Callable[..., "subprocess.Popen[str]"]
Write = Callable[..., Path]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    PIL.Image.linear_gradient("L").resize((40, 20)).convert("RGB").save(path)
    return path


@pytest.fixture
def small(write: Write, photo: Path) -> Path:
    """A workflow that makes a picture smaller, through a workflow that it calls."""
    write(
        "shrink.json",
        inputs={"image": {"type": "image"}, "width": {"type": "int"}},
        nodes={
            "resize": {"type": "ResizeImage", "image": {"input": "image"}, "width": {"input": "width"}, "height": 10}
        },
        outputs={"image": {"from": "resize"}},
    )
    return write(
        "small.json",
        description="A smaller picture",
        inputs={"file": {"type": "file", "default": "photo.png"}, "width": {"type": "int", "default": 20}},
        nodes={
            "load": {"type": "LoadImage", "path": {"input": "file"}},
            "call": {"type": "Workflow", "uses": "shrink", "image": {"from": "load"}, "width": {"input": "width"}},
            "save": {"type": "SaveImage", "image": {"from": "call"}, "name": "small"},
        },
    )


def manifest_in(folder: Path) -> Path:
    (path,) = (folder / "manifests").iterdir()
    return path


def test_a_replayed_manifest_and_a_replayed_picture_are_bit_exact(
    graphflow: Command, small: Path, tmp_path: Path
) -> None:
    file = ["--set", f"file={tmp_path}/photo.png"]
    assert graphflow("run", small, "--set", "width=12", *file, "--out", tmp_path / "out").status == 0
    for words in ([manifest_in(tmp_path / "out")], [tmp_path / "out" / "small.png", *file]):
        done = graphflow("replay", *words, "--json")
        assert done.status == 0, done.err
        assert json.loads(done.out) == {"files": [{"file": "small.png", "verdict": "bit-exact", "detail": ""}]}


def test_a_record_holds_what_it_calls_as_it_was_then(graphflow: Command, small: Path, tmp_path: Path) -> None:
    graphflow("run", small, "--out", tmp_path / "out")
    shrink = tmp_path / "shrink.json"
    shrink.write_text(shrink.read_text().replace('"height": 10', '"height": 5'))
    (tmp_path / "small.json").unlink()
    assert graphflow("replay", manifest_in(tmp_path / "out")).status == 0
    picture = tmp_path / "out" / "small.png"
    assert "missing.file" in graphflow("replay", picture).err, "the photo lies in another folder"
    assert "bit-exact" in graphflow("replay", picture, "--quiet", "--folder", tmp_path).out


def test_every_point_of_a_sweep_is_replayed(graphflow: Command, small: Path, tmp_path: Path) -> None:
    graphflow("run", small, "--sweep", "width=8,9,10", "--out", tmp_path / "out")
    done = graphflow("replay", manifest_in(tmp_path / "out"), "--json", "--out", tmp_path / "again")
    assert [file["file"] for file in json.loads(done.out)["files"]] == [f"width={w}/small.png" for w in (8, 9, 10)]
    assert done.status == 0 and (tmp_path / "again" / "width=9" / "small.png").exists()
    assert "bit-exact" in graphflow("replay", tmp_path / "out" / "width=9" / "small.png", "--folder", tmp_path).out


def test_an_input_that_is_swept_is_not_given_a_value(graphflow: Command, small: Path, tmp_path: Path) -> None:
    graphflow("run", small, "--sweep", "width=8,9", "--out", tmp_path / "out")
    done = graphflow("replay", manifest_in(tmp_path / "out"), "--set", "width=7")
    assert done.status == 2 and "found a value for 'width', which is swept [input.twice]" in done.err


def changed(path: Path, by: int, size: tuple[int, int] | None = None) -> None:
    """The picture with one pixel changed, or another size, and the record as it was."""
    with PIL.Image.open(path) as opened:
        text, picture = opened.text["graphflow"], opened.convert("RGB")  # type: ignore[attr-defined]
    red, green, blue = picture.getpixel((3, 3))  # type: ignore[misc]
    picture.putpixel((3, 3), (red + by if red < 128 else red - by, green, blue))
    (picture.resize(size) if size else picture).save(path)
    path.write_bytes(with_text(path.read_bytes(), "graphflow", text))


@pytest.mark.parametrize(
    ("by", "size", "status", "verdict", "detail"),
    [
        (2, None, 0, "close", "differs by at most 2 of 255"),
        (3, None, 5, "different", "differs by at most 3 of 255"),
        (0, (4, 4), 5, "different", "4 x 4 RGB then, 20 x 10 RGB now"),
    ],
)
def test_how_near_a_picture_comes_is_told(
    by: int, size: Any, status: int, verdict: str, detail: str, graphflow: Command, small: Path, tmp_path: Path
) -> None:
    graphflow("run", small, "--out", tmp_path / "out")
    saved = tmp_path / "out" / "small.png"
    changed(saved, by, size)
    done = graphflow("replay", saved, "--json", "--folder", tmp_path)
    (told,) = json.loads(done.out)["files"]
    assert (done.status, told["verdict"]) == (status, verdict) and detail in told["detail"]
    # the manifest knows the file of then by its hash, whatever became of it
    assert "bit-exact" in graphflow("replay", manifest_in(tmp_path / "out")).out


def test_pictures_of_other_formats_and_depth_maps_are_compared_too(
    graphflow: Command, write: Write, photo: Path, tmp_path: Path
) -> None:
    load = {"type": "LoadImage", "path": "photo.png"}
    save = {"type": "SaveImage", "image": {"from": "load"}, "name": "a.webp", "quality": 100}
    depth = {"type": "LoadDepthMap", "path": "photo.png"}
    path = write(
        nodes={
            "load": load,
            "save": save,
            "depth": depth,
            "save_depth": {"type": "SaveDepthMap", "depth_map": {"from": "depth"}},
        }
    )
    graphflow("run", path, "--out", tmp_path / "out")
    webp, saved = tmp_path / "out" / "a.webp", tmp_path / "out" / "depth.png"
    with PIL.Image.open(webp) as opened:
        opened.save(webp, lossless=True, exact=True, method=0)
    with PIL.Image.open(saved) as opened:
        assert opened.mode.startswith("I")
        opened.putpixel((3, 3), int(opened.getpixel((3, 3))) + 257 * 2)  # type: ignore[arg-type]
        opened.save(saved)
    manifest = manifest_in(tmp_path / "out")
    data = json.loads(manifest.read_text())
    for file in data["files"]:
        file["sha256"] = "0" * 64
    manifest.write_text(json.dumps(data))
    done = graphflow("replay", manifest, "--json")
    told = {file["file"]: file for file in json.loads(done.out)["files"]}
    assert told["depth.png"]["verdict"] == "close" and "at most 2 of 255" in told["depth.png"]["detail"]
    assert told["a.webp"]["verdict"] == "close", told
    saved.write_bytes(b"no picture")
    done = graphflow("replay", manifest)
    assert done.status == 5 and "10 bytes then" in done.out


@pytest.fixture
def two(write: Write, tmp_path: Path) -> Path:
    """A workflow that saves two pictures."""
    nodes: dict[str, Any] = {}
    for colour in ("red", "blue"):
        PIL.Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}_square.png")
        nodes[f"load_{colour}"] = {"type": "LoadImage", "path": f"{colour}_square.png"}
        nodes[f"save_{colour}"] = {"type": "SaveImage", "image": {"from": f"load_{colour}"}, "name": colour}
    return write("two.json", nodes=nodes)


def test_files_of_one_name_belong_together_in_whatever_order_they_were_saved(
    graphflow: Command, two: Path, tmp_path: Path
) -> None:
    graphflow("run", two, "--out", tmp_path / "out")
    manifest = manifest_in(tmp_path / "out")
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, "files": data["files"][::-1]}))
    done = graphflow("replay", manifest, "--json")
    assert [(file["file"], file["verdict"]) for file in json.loads(done.out)["files"]] == [
        ("blue.png", "bit-exact"),
        ("red.png", "bit-exact"),
    ]
    manifest.write_text(json.dumps({**data, "files": data["files"][1:]}))
    done = graphflow("replay", manifest)
    assert done.status == 5 and "this file was not saved then" in done.out


def test_a_file_that_had_to_take_another_name_is_found(graphflow: Command, two: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    shutil.copy(tmp_path / "blue_square.png", tmp_path / "out" / "red.png")
    graphflow("run", two, "--out", tmp_path / "out")
    done = graphflow("replay", manifest_in(tmp_path / "out"), "--json")
    assert [(file["file"], file["verdict"]) for file in json.loads(done.out)["files"]] == [
        ("red-2.png", "bit-exact"),
        ("blue.png", "bit-exact"),
    ]


def test_one_file_of_two_nodes_is_compared_for_both(graphflow: Command, two: Path, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "red_square.png", tmp_path / "blue_square.png")
    two.write_text(two.read_text().replace('"name": "blue"', '"name": "red-2"'))
    (tmp_path / "out").mkdir()
    PIL.Image.new("RGB", (9, 9)).save(tmp_path / "out" / "red.png")
    graphflow("run", two, "--out", tmp_path / "out")
    done = graphflow("replay", manifest_in(tmp_path / "out"), "--json")
    assert json.loads(done.out)["files"] == [{"file": "red-2.png", "verdict": "bit-exact", "detail": ""}] * 2


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(
    graphflow: Command, two: Path, tmp_path: Path
) -> None:
    graphflow("run", two, "--out", tmp_path / "out")
    done = graphflow("replay", manifest_in(tmp_path / "out"), "--out", two)
    assert done.status == 2 and "file.unwritable" in done.err and "nothing was run" in done.err


def test_a_setting_of_then_that_this_machine_cannot_keep_is_told(
    graphflow: Command, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphflow("run", two, "--dtype", "bfloat16", "--out", tmp_path / "out")
    manifest = manifest_in(tmp_path / "out")
    data = json.loads(manifest.read_text())
    data["environment"]["compile"] = "on"
    manifest.write_text(json.dumps(data))
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = graphflow("replay", manifest)
    assert done.status == 0 and "warning: compile: then on, now none" in done.err, done.err
    assert graphflow("replay", manifest, "--compile").status == 2, "who asks for it is told that it cannot be"


def test_a_replay_computes_as_then_unless_it_is_told_otherwise(graphflow: Command, small: Path, tmp_path: Path) -> None:
    graphflow("run", small, "--dtype", "bfloat16", "--channels-last", "--out", tmp_path / "out")
    done = graphflow("replay", manifest_in(tmp_path / "out"))
    assert done.status == 0 and "warning" not in done.err
    done = graphflow("replay", manifest_in(tmp_path / "out"), "--dtype", "float32")
    assert "warning: dtype: then bfloat16, now float32" in done.err and "channels_last" not in done.err
    manifest = manifest_in(tmp_path / "out")
    data = json.loads(manifest.read_text())
    data["environment"] |= {"device": "mps", "dtype": "float16"}
    manifest.write_text(json.dumps(data))
    done = graphflow("replay", manifest)
    assert "warning: device: then mps, now cpu" in done.err and done.status == 0


def wrecks(data: Any, depth: int = 3) -> Iterator[Any]:
    """The data with each of its parts, down to some depth, gone or of another kind."""
    if not isinstance(data, (dict, list)) or depth == 0:
        return
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        part = data[key]
        for other in (None, 7, "x", ["x"], {"x": 7}):
            yield {**data, key: other} if isinstance(data, dict) else [*data[:key], other, *data[key + 1 :]]
        if isinstance(data, dict):
            yield {name: value for name, value in data.items() if name != key}
        for wreck in wrecks(part, depth - 1):
            yield {**data, key: wreck} if isinstance(data, dict) else [*data[:key], wreck, *data[key + 1 :]]


def test_no_damage_to_a_record_is_taken_for_a_bug(graphflow: Command, small: Path, photo: Path, tmp_path: Path) -> None:
    graphflow("run", small, "--set", "width=9", "--out", tmp_path)
    file, picture = tmp_path / "wreck.json", tmp_path / "wreck.png"
    data = json.loads(manifest_in(tmp_path).read_text())
    told = ("record", "files", "folder", "working_folder", "output_folder", "sweep", "steps", "state", "environment")
    manifest = {"graphflow_manifest": 2, "workflow_file": "w.json", **{name: data[name] for name in told}}
    manifest["steps"] = manifest["steps"][:1]
    record = record_in_png(tmp_path / "small.png")
    for path, whole, depth in ((file, manifest, 2), (picture, record, 3)):
        statuses = set()
        for wreck in wrecks(whole, depth):
            text = json.dumps(wreck)
            path.write_bytes(text.encode() if path is file else with_text(photo.read_bytes(), "graphflow", text))
            try:
                replay = read_replay(path).with_values({})
                graphs = bind_points(replay.points or [{}], replay.inputs, replay.workflow.bind)
                list(differences(replay, plan_graphs(graphs)))
                statuses.add(0)
            except gf.WorkflowError:
                statuses.add(2)
        assert statuses == {0, 2}


def test_a_file_that_is_gone_is_known_by_its_hash(graphflow: Command, small: Path, tmp_path: Path) -> None:
    graphflow("run", small, "--out", tmp_path / "out")
    manifest = manifest_in(tmp_path / "out")
    (tmp_path / "out" / "small.png").unlink()
    assert "bit-exact" in graphflow("replay", manifest).out
    data = json.loads(manifest.read_text())
    data["files"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(data))
    done = graphflow("replay", manifest)
    assert done.status == 5 and "gone" in done.out


def test_what_is_another_now_than_then_is_told(graphflow: Command, small: Path, photo: Path, tmp_path: Path) -> None:
    graphflow("run", small, "--out", tmp_path / "out")
    manifest = manifest_in(tmp_path / "out")
    data = json.loads(manifest.read_text())
    data["environment"]["torch"] = "1.0"
    manifest.write_text(json.dumps(data))
    PIL.Image.new("RGB", (40, 20), "blue").save(photo)
    done = graphflow("replay", manifest)
    assert "warning: torch: then 1.0, now 2." in done.err
    assert "warning: load: what it reads is another one than then" in done.err
    assert done.status == 5


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("text", "manifest.damaged"),
        ("[]", "manifest.version"),
        ('{"graphflow_manifest": 99}', "manifest.version"),
        ('{"graphflow_manifest": 2}', "manifest.damaged"),
    ],
)
def test_a_foreign_file_is_refused_in_a_line(content: str, code: str, graphflow: Command, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(content)
    done = graphflow("replay", file)
    assert (done.status, done.out) == (2, "") and f"[{code}]" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "record.missing"),
        ("no json", "record.damaged"),
        ('{"record": 99}', "record.version"),
        ('{"record": 1}', "record.damaged"),
        (json.dumps({**EMPTY, "saved_by": "save", "item": 0, "environment": {}}), "workflow.empty"),
    ],
)
def test_a_picture_without_a_whole_record_is_refused(
    text: str | None, code: str, graphflow: Command, photo: Path
) -> None:
    if text is not None:
        photo.write_bytes(with_text(photo.read_bytes(), "graphflow", text))
    for command in ("replay", "run"):
        done = graphflow(command, photo)
        assert (done.status, done.out) == (2, "") and f"[{code}]" in done.err, done.err


def test_a_picture_that_holds_no_workflow_by_its_kind_is_refused(graphflow: Command, photo: Path) -> None:
    with PIL.Image.open(photo) as opened:
        opened.save(photo.with_suffix(".jpg"))
    done = graphflow("run", photo.with_suffix(".jpg"))
    assert done.status == 2 and "found a JPEG picture, expected a workflow, or a PNG picture that holds one" in done.err


class TestPictures:
    def test_a_picture_is_a_workflow_file(self, graphflow: Command, small: Path, photo: Path, tmp_path: Path) -> None:
        graphflow("run", small, "--set", "width=12", "--out", tmp_path / "out")
        shutil.copy(photo, tmp_path / "out" / "photo.png")
        saved = tmp_path / "out" / "small.png"
        assert graphflow("validate", saved).status == 0
        assert "ResizeImage" in graphflow("plan", saved).out
        assert "default 12" in graphflow("workflows", saved).out
        done = graphflow("run", saved, "--set", "width=6", "--out", tmp_path / "other")
        assert done.status == 0, done.err
        with PIL.Image.open(tmp_path / "other" / "small.png") as opened:
            assert opened.size == (6, 10)
        with PIL.Image.open(graphflow("run", saved, "--out", tmp_path / "same").out.strip()) as opened:
            assert opened.size == (12, 10)

    def test_a_strangers_picture_reads_only_below_its_own_folder(
        self, graphflow: Command, small: Path, photo: Path, tmp_path: Path
    ) -> None:
        graphflow("run", small, "--set", f"file={photo}", "--out", tmp_path / "out")
        done = graphflow("run", tmp_path / "out" / "small.png", "--out", tmp_path / "other")
        assert done.status == 2 and "path.outside" in done.err

    def test_a_picture_that_was_given_is_read_again(
        self, graphflow: Command, small: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An input of a kind without a literal; its path starts in the folder of the picture and stays there."""
        monkeypatch.chdir(tmp_path)
        words = ["--set", "image=photo.png", "--set", "width=12", "--out", tmp_path]
        (saved,) = graphflow("run", tmp_path / "shrink.json", *words).out.split()
        monkeypatch.chdir("/")
        for command in ("validate", "plan", "draw"):
            assert graphflow(command, saved).status == 0
        (again,) = graphflow("run", saved, "--out", tmp_path / "again").out.split()
        assert same_but_for_text(Path(again).read_bytes(), Path(saved).read_bytes())
        assert record_in_png(Path(again))["inputs"] == {"image": "photo.png"}  # type: ignore[index]
        assert "bit-exact" in graphflow("replay", saved).out
        done = graphflow("run", again, "--out", tmp_path / "third")
        assert done.status == 3 and done.err.startswith(f"{again}: node 'resize', field 'image': there is no file")
        done = graphflow("run", again, "--set", f"image={photo}", "--out", tmp_path / "third")
        assert done.status == 0, done.err

    @pytest.mark.parametrize("command", ["run", "replay", "validate"])
    @pytest.mark.parametrize("path", ["../photo.png", "/photo.png"])
    def test_a_path_among_the_inputs_of_a_picture_does_not_lead_out_either(
        self, command: str, path: str, graphflow: Command, small: Path, photo: Path, tmp_path: Path
    ) -> None:
        for flow, name in (("shrink.json", "image"), ("small.json", "file")):
            words = ["--set", f"{name}={photo}", "--set", "width=12", "--out", tmp_path / "out"]
            (saved,) = graphflow("run", tmp_path / flow, *words).out.split()
            record: Any = record_in_png(Path(saved))
            record["inputs"][name] = path.replace("/photo", str(photo.parent) + "/photo") if path[0] == "/" else path
            Path(saved).write_bytes(with_text(Path(saved).read_bytes(), "graphflow", json.dumps(record)))
            done = graphflow(command, saved)
            assert done.status == 2 and "[path.outside]" in done.err, done.err
            Path(saved).unlink()

    def test_a_value_that_python_gave_has_to_be_given_again(
        self, graphflow: Command, small: Path, photo: Path, tmp_path: Path
    ) -> None:
        workflow = gf.load(tmp_path / "shrink.json")
        workflow.add("save", SaveImage(name="a"), image=gf.NodeHandle("resize"))
        picture = LoadImage(path=str(photo)).run(context=gf.Context())
        (saved,) = workflow.run(out=tmp_path, image=picture, width=12).files
        assert "[input.missing]" in graphflow("run", saved).err
        assert "[record.value]" in graphflow("replay", saved).err
        assert graphflow("run", saved, "--set", f"image={photo}", "--out", tmp_path / "out").status == 0
        assert "bit-exact" in graphflow("replay", saved, "--set", f"image={photo}").out

    def test_checking_one_imports_nothing_heavy(self, graphflow: Command, small: Path, tmp_path: Path) -> None:
        (saved,) = graphflow("run", small, "--out", tmp_path / "out").out.split()
        shutil.copy(tmp_path / "photo.png", tmp_path / "out" / "photo.png")
        program = (
            "import sys; from graphflow.cli import main; status = main(['validate', sys.argv[1]]); "
            "print(status, sorted({'torch', 'PIL', 'numpy'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", program, saved], capture_output=True, text=True, check=False)
        assert done.stdout == "0 []\n", done.stderr

    def test_who_wants_no_metadata_is_told_where_it_is_there_already(
        self, graphflow: Command, small: Path, tmp_path: Path
    ) -> None:
        graphflow("run", small, "--out", tmp_path / "out")
        told = f"{tmp_path / 'out' / 'small.png'} was there already, with the workflow in it"
        assert told in graphflow("run", small, "--no-metadata", "--out", tmp_path / "out").err
        small.write_text(small.read_text().replace('"name": "small"', '"name": "small", "metadata": false'))
        assert told in graphflow("run", small, "--out", tmp_path / "out").err
        (tmp_path / "out" / "small.png").unlink()
        assert told not in graphflow("run", small, "--out", tmp_path / "out").err

    def test_the_same_run_makes_the_same_bytes(self, graphflow: Command, small: Path, tmp_path: Path) -> None:
        for out in ("one", "two"):
            graphflow("run", small, "--out", tmp_path / out)
        assert (tmp_path / "one" / "small.png").read_bytes() == (tmp_path / "two" / "small.png").read_bytes()
        text = json.dumps(record_in_png(tmp_path / "one" / "small.png"))
        assert str(tmp_path) not in text

    def test_the_same_picture_of_another_workflow_is_left_alone(
        self, graphflow: Command, small: Path, tmp_path: Path
    ) -> None:
        graphflow("run", small, "--out", tmp_path / "out")
        before = (tmp_path / "out" / "small.png").read_bytes()
        small.write_text(small.read_text().replace("A smaller picture", "Another text"))
        graphflow("run", small, "--out", tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["small.png"]
        assert (tmp_path / "out" / "small.png").read_bytes() == before

    def test_it_is_drawn_with_what_it_calls(self, graphflow: Command, small: Path, photo: Path, tmp_path: Path) -> None:
        graphflow("run", small, "--out", tmp_path)
        assert graphflow("draw", tmp_path / "small.png").out.replace('"small.png"', "") == graphflow(
            "draw", small
        ).out.replace('"small.json"', "")

    @pytest.mark.parametrize("way", ["--no-metadata", "metadata"])
    def test_metadata_may_be_left_out(self, way: str, graphflow: Command, small: Path, tmp_path: Path) -> None:
        if way == "metadata":
            small.write_text(small.read_text().replace('"name": "small"', '"name": "small", "metadata": false'))
        graphflow("run", small, "--out", tmp_path / "out", *([way] if way.startswith("--") else []))
        with pytest.raises(gf.WorkflowError, match=r"record\.missing"):
            record_in_png(tmp_path / "out" / "small.png")

    def test_python_reads_it_too(self, graphflow: Command, small: Path, photo: Path, tmp_path: Path) -> None:
        graphflow("run", small, "--set", "width=7", "--out", tmp_path)
        workflow = gf.load(tmp_path / "small.png")
        assert workflow.inputs["width"].default == 7
        (again,) = workflow.run(out=tmp_path / "again").files
        assert same_but_for_text(again.read_bytes(), (tmp_path / "small.png").read_bytes())


class TestManifest:
    def test_it_is_there_while_the_run_goes_and_says_what_is_done(
        self, graphflow: Command, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Here every event is written; the bound on that is a matter of time."""
        monkeypatch.setattr("graphflow.record.manifest.ManifestWriter._pause", lambda self, cost: 0.0)
        seen: list[dict[str, Any]] = []
        original = gf.nodes.SaveImage.run

        def looking(self: Any, **arguments: Any) -> None:
            seen.append(json.loads(manifest_in(tmp_path / "out").read_text()))
            original(self, **arguments)

        monkeypatch.setattr("graphflow.nodes.save_image.SaveImage.run", looking)
        PIL.Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
        path = write(
            nodes={
                "load": {"type": "LoadImage", "path": "photo.png"},
                "save": {"type": "SaveImage", "image": {"from": "load"}},
            }
        )
        assert graphflow("run", path, "--out", tmp_path / "out").status == 0
        assert seen[0]["state"] == "running"
        assert [step["state"] for step in seen[0]["steps"]] == ["ran", "running"]
        done = json.loads(manifest_in(tmp_path / "out").read_text())
        assert done["state"] == "done" and done["error"] is None
        assert [step["state"] for step in done["steps"]] == ["ran", "ran"]
        assert done["files"][0]["path"] == "image.png" and len(done["files"][0]["sha256"]) == 64

    def test_a_killed_run_leaves_one_that_says_what_was_done(
        self, process: Process, write: Write, tmp_path: Path
    ) -> None:
        """Also of steps that ended just before one that takes long and tells nothing."""
        path = write(
            nodes={
                "print": {"type": "pack.Print", "text": "a"},
                "slow": {"type": "pack.Slow", "page": {"from": "print"}, "steps": 1, "pause": 60},
                "save": {"type": "pack.SavePage", "page": {"from": "slow"}},
            }
        )
        running = process("run", path, "--out", tmp_path / "out", stdout=subprocess.DEVNULL)
        try:
            states: list[str] = []
            ends = time.monotonic() + 30
            while "ran" not in states and time.monotonic() < ends:
                time.sleep(0.05)
                for found in (tmp_path / "out" / "manifests").glob("*.json"):
                    states = [step["state"] for step in json.loads(found.read_text())["steps"]]
        finally:
            running.kill()
            running.communicate(timeout=10)
        data = json.loads(manifest_in(tmp_path / "out").read_text())
        assert data["state"] == "running"
        assert [step["state"] for step in data["steps"]] == ["ran", "running", "not reached"]

    def test_it_holds_what_ran_whatever_becomes_of_the_files_meanwhile(self, small: Path, tmp_path: Path) -> None:
        workflow = gf.load(small)
        shrink = tmp_path / "shrink.json"

        def delete(event: Any) -> None:
            shrink.unlink(missing_ok=True)

        run = workflow.run(out=tmp_path / "out", listeners=[delete], cache=False)
        (called,) = run.manifest.data["record"]["called"].values()
        assert called["nodes"]["resize"]["height"] == 10 and not shrink.exists()

    def test_it_says_how_was_computed_and_with_what(self, graphflow: Command, write: Write, tmp_path: Path) -> None:
        path = write(nodes={"draw": {"type": "Text2Image", "prompt": "a red ball"}})
        workflow = gf.load(path)
        data = (
            ManifestWriter(Path(), {"": workflow.bind()}, workflow.plan(dtype="bfloat16"), {}, (), tmp_path)
            .manifest("done")
            .data
        )
        assert data["compute"]["dtype"] == "bfloat16" and data["compute"]["offload"] == "none"
        (digests,) = data["models"].values()
        assert list(data["models"]) == ["pocket"]
        assert digests and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)

    def test_a_failed_run_leaves_one_that_says_so_and_is_not_replayed(
        self, graphflow: Command, write: Write, tmp_path: Path
    ) -> None:
        path = write(
            nodes={
                "print": {"type": "pack.Print", "text": "a"},
                "fail": {"type": "pack.Fail", "page": {"from": "print"}},
            }
        )
        assert graphflow("run", path, "--out", tmp_path / "out").status == 4
        data = json.loads(manifest_in(tmp_path / "out").read_text())
        assert data["state"] == "failed" and data["error"]
        done = graphflow("replay", manifest_in(tmp_path / "out"))
        assert done.status == 2 and "manifest.unfinished" in done.err
