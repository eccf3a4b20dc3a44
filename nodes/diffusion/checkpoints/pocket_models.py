"""The models that ship inside the package, with their default settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graphflow.nodes.diffusion.families.family import Defaults, Task

__all__ = ["POCKET", "POCKET_FOLDER", "PocketModel"]

POCKET_FOLDER = Path(__file__).parents[1] / "pocket"


@dataclass(frozen=True, slots=True)
class PocketModel:
    """An embedded model. Components that it shares with another one are stored once, in the folder of that one."""

    folder: str
    space: str | None = None
    """The latent space of a pipeline; None for a single network."""
    defaults: Mapping[Task, Defaults] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    """The folder that holds a component, for components that are stored with another model."""


_FROM_BASE = {"vae": "base", "text_encoder": "base", "tokenizer": "base"}

POCKET: Mapping[str, PocketModel] = {
    "pocket": PocketModel(
        "base",
        "pocket",
        {
            "text-to-image": Defaults(steps=20, guidance_scale=3.0),
            "image-to-image": Defaults(steps=20, guidance_scale=3.0, strength=0.6),
        },
    ),
    "pocket-x2": PocketModel("x2", "pocket", {"upscale": Defaults(steps=2, guidance_scale=1.0)}, _FROM_BASE),
    "pocket-x4": PocketModel("x4", "pocket", {"super-resolution": Defaults(steps=1, guidance_scale=1.0)}, _FROM_BASE),
    "pocket-controlnet-depth": PocketModel("controlnet-depth"),
    "pocket-depth": PocketModel("depth"),
}
