from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch

from graphflow import Image
from graphflow.nodes import SaveImage
from graphflow.nodes.files.image_header import ImageHeader, inspect_image
from tests.helpers.image_files import names, opened
from tests.helpers.recorder import Recorder


def image(value: float = 0.5, batch: int = 1) -> Image:
    return Image(torch.full((batch, 3, 8, 8), value))


def test_formats(context: Recorder) -> None:
    SaveImage(name="a").run(image=image(), context=context)
    SaveImage(name="b", format="jpeg").run(image=image(), context=context)
    SaveImage(name="c", format="webp").run(image=image(), context=context)
    SaveImage(name="d.JPG").run(image=image(), context=context)
    SaveImage(name="v1.5").run(image=image(), context=context)
    SaveImage(name="deep/er/e.webp").run(image=image(), context=context)
    found = names(context.output_folder)
    assert found == ["a.png", "b.jpg", "c.webp", "d.JPG", "deep/er/e.webp", "v1.5.png"]
    headers = [inspect_image(str(context.output_folder / name)) for name in found]
    formats = [header.format for header in headers if isinstance(header, ImageHeader)]
    assert formats == ["PNG", "JPEG", "WebP", "JPEG", "WebP", "PNG"]
    assert [path.relative_to(context.output_folder.resolve()) for path in context.files][:2] == [
        Path("a.png"),
        Path("b.jpg"),
    ]


def test_values_are_rounded_to_eight_bits(context: Recorder) -> None:
    levels = torch.arange(256, dtype=torch.float32).reshape(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    SaveImage(name="a").run(image=Image(levels), context=context)
    saved = opened(context.files[0]).getchannel("R")
    assert list(saved.tobytes()) == list(range(256))


def test_nothing_is_lost(context: Recorder) -> None:
    for value in (0.1, 0.2, 0.1, 0.3, 0.2):
        SaveImage(name="a").run(image=image(value), context=context)
    assert names(context.output_folder) == ["a-2.png", "a-3.png", "a.png"]
    assert [path.name for path in context.files] == ["a.png", "a-2.png", "a.png", "a-3.png", "a-2.png"]


def test_overwrite(context: Recorder) -> None:
    for value in (0.1, 0.9):
        SaveImage(name="a", overwrite=True).run(image=image(value), context=context)
    assert names(context.output_folder) == ["a.png"]
    assert opened(context.output_folder / "a.png").getpixel((0, 0)) == (230, 230, 230)


def test_a_batch(context: Recorder) -> None:
    SaveImage(name="a").run(image=Image(torch.rand(3, 3, 8, 8)), context=context)
    assert names(context.output_folder) == ["a-0.png", "a-1.png", "a-2.png"]


def test_many_at_once(context: Recorder) -> None:
    pictures = [image(index / 40) for index in range(20)]
    threads = [
        threading.Thread(target=lambda one=one: SaveImage(name="a").run(image=one, context=context)) for one in pictures
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {opened(context.output_folder / name).getpixel((0, 0)) for name in names(context.output_folder)}
    assert len(names(context.output_folder)) == len(found) == 20


def test_without_hard_links(context: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    for value in (0.1, 0.2, 0.1):
        SaveImage(name="a").run(image=image(value), context=context)
    assert names(context.output_folder) == ["a-2.png", "a.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes among files here")
def test_what_is_there_and_no_file_is_not_waited_for(context: Recorder) -> None:
    os.mkfifo(context.output_folder / "a.png")
    SaveImage(name="a").run(image=image(), context=context)
    assert [path.name for path in context.files] == ["a-2.png"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "path.form"),
        ("/etc/a", "path.outside"),
        ("../a", "path.outside"),
        ("a/../../b", "path.outside"),
        ("a\\b", "path.outside"),
        ("C:a", "path.outside"),
        ("a//b", "path.form"),
        ("./a", "path.form"),
        ("a/", "path.form"),
        ("nul", "path.form"),
        ("a/Com1.png", "path.form"),
        ("a.", "path.form"),
        (" a", "path.form"),
        ("a?", "path.form"),
        ("a\nb", "path.form"),
        ("x" * 201, "path.form"),
        ("a\u202eb", "path.form"),
    ],
)
def test_names_that_are_refused(name: str, code: str, context: Recorder) -> None:
    node = SaveImage(name=name)
    (problem,) = node.check({})
    assert (problem.code, problem.field) == (code, "name")
    with pytest.raises(ValueError, match=r"\[" + code):
        node.run(image=image(), context=context)
    assert names(context.output_folder) == []


def test_a_link_out_of_the_folder_is_not_followed(context: Recorder, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (context.output_folder / "way").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="leads out of the output folder"):
        SaveImage(name="way/a").run(image=image(), context=context)
    assert names(elsewhere) == []


def test_format_against_suffix() -> None:
    (problem,) = SaveImage(name="a.jpg", format="png").check({})
    assert (problem.code, problem.field) == ("value.format", "format")
    assert list(SaveImage(name="a.jpeg", format="jpeg").check({})) == []


def test_claims() -> None:
    assert SaveImage(name="a/b").claims() == ("a/b.png",)
    assert SaveImage(name="a.webp").claims() == ("a.webp",)
