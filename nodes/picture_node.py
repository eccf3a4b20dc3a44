"""Base of the nodes that read a picture: its file or URL, and its size and digest before the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from graphflow import Field, InputFile, Node, PortType, Problem, WorkflowError, is_offline
from graphflow.nodes.files.file_digest import file_digest
from graphflow.nodes.files.picture_file import check_picture, read_picture, type_of_picture
from graphflow.nodes.web.url import is_url

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["PictureNode"]


class PictureNode(Node, abstract=True):
    """A node with the parameter ``path``: a file, or an https URL whose content is downloaded to a cache."""

    path: InputFile = Field(
        description="the file, or an https:// URL of one; in a workflow a path is relative to the workflow's folder"
    )

    _fetched: Any = PrivateAttr(None)
    """The Picture that was fetched for the URL: a run reads the one that it was planned with."""

    def fetch(self, *, offline: bool) -> Iterable[Problem]:
        """Download the content of a URL, unless it is in the cache and unchanged."""
        if self._fetched is not None or not is_url(self.path) or self._fault() is not None:
            return
        from graphflow.nodes.web.picture import fetch_picture

        found = fetch_picture(self.path, offline=offline)
        if isinstance(found, Problem):
            yield replace(found, field="path")
            return
        self._fetched = found
        if found.warning is not None:
            yield replace(found.warning, field="path")

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Report a file that is missing, no image, cut short or too large, and a URL that cannot be asked for."""
        if not is_url(self.path):
            return check_picture(self.path)
        fault = self._fault()
        return [] if fault is None else [replace(fault, field="path")]

    def identity(self) -> str | None:
        """Return the SHA-256 of the file; None for a URL whose content is not on this machine."""
        if not is_url(self.path):
            return file_digest(Path(self.path))
        found = self._known()
        return None if found is None else str(found.digest)

    def type_of_result(self, kind: type) -> PortType:
        """One picture of the size in the file's header, where the file is on this machine."""
        if not is_url(self.path):
            return type_of_picture(self.path, kind)
        found = self._known()
        return PortType(kind) if found is None else type_of_picture(str(found.path), kind)

    def read(self) -> PIL.Image.Image:
        """Read the picture. Raises ValueError for one that cannot be decoded, WorkflowError where there is none."""
        if not is_url(self.path):
            return read_picture(self.path)
        problems = [*self.fetch(offline=is_offline())] if self._fetched is None else []
        fault = self._fault()
        if self._fetched is None:
            raise WorkflowError.of([fault] if fault is not None else problems)
        return read_picture(str(self._fetched.path))

    def _fault(self) -> Problem | None:
        from graphflow.nodes.web.picture import check_url

        return check_url(self.path)

    def _known(self) -> Any:
        """Return the fetched Picture, or the one that is in the cache; None where there is none."""
        from graphflow.nodes.web.picture import cached_picture

        return self._fetched or cached_picture(self.path)
