"""A third-party node pack for the tests of the command line: numbers, pages of text, slow and failing nodes.

It stands alone, so that a copy of this file can be installed into a folder for tests in a fresh process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from graphflow import Context, Expansion, Field, InputFile, Node, PortType, Problem


@dataclass
class Page:
    """A value that only this pack knows."""

    text: str


class Print(Node, version=1, id="pack.Print"):
    """Print a page."""

    copies: int = Field(1, ge=1, le=9, description="how many")
    size: float = Field(1.0, gt=0, description="how large")
    bold: bool = Field(False, description="whether it is bold")

    def run(self, *, text: str) -> Page:
        return Page(text * self.copies)


class PrintTwice(Node, version=1, id="pack.PrintTwice"):
    """Print, and print again.

    It stands for two fine nodes.
    """

    def expand(self, g: Expansion, *, text: str, again: str = "again") -> Page:
        g.add(Print(), text=text)
        page: Page = g.add(Print(), text=again)
        return page


class Copy(Node, version=1, id="pack.Copy"):
    """Copy a page."""

    def run(self, *, page: Page) -> Page:
        return page


class ReadPage(Node, version=1, id="pack.ReadPage", loads=True):
    """Read a page from a file."""

    path: InputFile = Field(description="the file")

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        if not Path(self.path).is_file():
            yield Problem("missing.file", f"found no file {self.path}", "path")

    def run(self) -> Page:
        return Page(Path(self.path).read_text())


class SavePage(Node, version=1, id="pack.SavePage", effect=True, saves=True):
    """Save a page."""

    name: str = Field("page", description="file name")

    def claims(self) -> tuple[str, ...]:
        return (f"{self.name}.txt",)

    def run(self, *, page: Page, context: Context) -> None:
        context.output_folder.mkdir(parents=True, exist_ok=True)
        path = context.output_folder / f"{self.name}.txt"
        path.write_text(page.text)
        context.saved(path)


class SlowSave(Node, version=1, id="pack.SlowSave", effect=True):
    """Save a page in two parts, with a pause between them."""

    def run(self, *, page: Page, context: Context) -> None:
        context.output_folder.mkdir(parents=True, exist_ok=True)
        path = context.output_folder / "slow.txt"
        with path.open("w") as file:
            file.write("first ")
            file.flush()
            time.sleep(0.7)
            file.write("second")
        context.saved(path)


class Slow(Node, version=1, id="pack.Slow"):
    """Count slowly."""

    steps: int = 100
    pause: float = 0.05

    def progress_steps(self, inputs: Mapping[str, PortType]) -> int:
        return self.steps

    def run(self, *, page: Page, context: Context) -> Page:
        for done in range(self.steps):
            time.sleep(self.pause)
            context.step(done + 1, self.steps)
        return page


class Warn(Node, version=1, id="pack.Warn"):
    """Warn before the run and while it runs."""

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        yield Problem("pack.surprise", "this is surprising", hint="look again", severity="warning")

    def run(self, *, page: Page, context: Context) -> Page:
        context.warn("mind the step")
        return page


class Fail(Node, version=1, id="pack.Fail"):
    """Raise."""

    def run(self, *, page: Page) -> Page:
        raise ValueError("the press is broken")


class Count(Node, version=1, id="pack.Count"):
    """Count letters."""

    def run(self, *, page: Page) -> int:
        return len(page.text)


NODES = (Print, PrintTwice, Copy, ReadPage, SavePage, SlowSave, Slow, Warn, Fail, Count)
