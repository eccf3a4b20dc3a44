"""The control groups of Linux around this process, which bound what a container may use of its machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["control_groups"]


def control_groups(controller: str, system: Path = Path("/")) -> Iterator[Path]:
    """The folders of the groups that bound this process, from its own outward, where ``controller`` tells of them.

    Both versions are looked at, for a machine may use both. ``system`` is where /proc and /sys lie.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    top = system / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            roots = [top, top / "unified"]
        elif controller in controllers.split(","):
            roots = [top / controllers] if controllers == controller else [top / controllers, top / controller]
        else:
            continue
        for root in roots:
            # inside of a container the path may be the one outside, which is not there; its own group is the root then
            folder = root / path.lstrip("/")
            while folder != root:
                yield folder
                folder = folder.parent
            yield root
