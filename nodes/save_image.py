from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Literal

from graphflow import Context, Field, Image, Node, PortType, Problem
from graphflow.nodes.files.output_file import check_name, save_files

__all__ = ["SaveImage"]

_SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_OWN_SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


class SaveImage(Node, version=1, effect=True, saves=True):
    """Write pictures into the output folder.

    A file appears whole or not at all, and nothing is ever lost: where the same picture is there already it is left
    alone, where another one is, the next free name is taken (``sketch-2.png``), also by two runs at once. The pictures
    of a batch are ``name-0``, ``name-1`` and so on.
    """

    name: str = Field("image", description="path in the output folder; the suffix may be left out")
    format: Literal["png", "jpeg", "webp"] | None = Field(None, description="default: by the suffix, or png")
    quality: int = Field(95, ge=1, le=100, description="of JPEG and WebP; PNG is lossless")
    overwrite: bool = Field(False, description="replace another picture of this name")
    metadata: bool = Field(
        True, description="whether PNG files hold the workflow and inputs that made them; others never do"
    )

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Report a name that is no plain path inside of the output folder, or that does not fit the format."""
        return list(check_name(self.name)) or _check_format(self.name, self.format)

    def claims(self) -> tuple[str, ...]:
        """Return the file, as it is called for a single picture."""
        stem, suffix = self._split()
        return (stem + suffix,)

    def run(self, *, image: Image, context: Context) -> None:
        """Write each picture and report its path. Raises ValueError for a name outside of the output folder."""
        for problem in self.check({}):
            raise ValueError(f"{problem.message} [{problem.code}]")
        stem, suffix = self._split()
        contents = [self._encoded(image, index) for index in range(len(image))]
        save_files(contents, stem, suffix, overwrite=self.overwrite, metadata=self.metadata, context=context)

    def _split(self) -> tuple[str, str]:
        """Path without suffix, and suffix."""
        suffix = PurePosixPath(self.name).suffix
        if suffix.lower() in _SUFFIXES:
            return self.name.removesuffix(suffix), suffix
        return self.name, _OWN_SUFFIX[self.format or "png"]

    def _encoded(self, image: Image, index: int) -> bytes:
        import io

        kind = _SUFFIXES[self._split()[1].lower()]
        buffer = io.BytesIO()
        image.to_pil(index).save(buffer, format=kind.upper(), **({} if kind == "png" else {"quality": self.quality}))
        return buffer.getvalue()


def _check_format(name: str, format: str | None) -> Iterator[Problem]:
    suffix = PurePosixPath(name).suffix.lower()
    if format and _SUFFIXES.get(suffix, format) != format:
        message = f'found the format {format} for the name "{name}", expected {_SUFFIXES[suffix]}'
        yield Problem("value.format", message, field="format", hint="leave out the suffix or the format")
