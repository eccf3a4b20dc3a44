"""Parameters that several nodes share, with their ranges and descriptions.

A node with a narrower meaning overrides the description and keeps the range::

    width: PictureSide = Field(None, description="pixels, without an image")
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from graphflow import ModelRef, Seed

__all__ = [
    "AfterEncoding",
    "BatchSize",
    "ConditioningScale",
    "ControlEnd",
    "ControlNetRef",
    "ControlStart",
    "DenoisingEnd",
    "GuidanceScale",
    "NoiseSeed",
    "PictureSide",
    "ScheduleSteps",
    "Steps",
    "Strength",
    "TileOverlap",
    "TileSize",
    "VaeTileSize",
]

# Denoising -----------------------------------------------------------------------------------------------------------

Steps = Annotated[int | None, Field(ge=1, le=1000, description="denoise steps; default: the model's own")]
ScheduleSteps = Annotated[
    Steps, Field(description="length of the noise schedule; default: the model's own, or the latents'")
]
"""The `Steps` of a node that can run a part of the noise schedule only."""
GuidanceScale = Annotated[
    float | None,
    Field(
        ge=0,
        le=100,
        description="how strictly the prompt is followed, off up to 1 (some families: at 0); default: the model's own",
    ),
]
Strength = Annotated[
    float | None,
    Field(gt=0, le=1, description="share of the noise schedule that is run again; default: the model's own"),
]
DenoisingEnd = Annotated[
    float | None,
    Field(gt=0, lt=1, description="share of the noise schedule after which another model takes over (SDXL)"),
]
NoiseSeed = Annotated[Seed, Field(description="where noise comes from; item i of a batch uses seed + i")]
AfterEncoding = Annotated[
    bool,
    Field(
        description="the latents were sampled by EncodeImage with the same seed: take the noise that follows that draw"
    ),
]

# A ControlNet --------------------------------------------------------------------------------------------------------

ControlNetRef = Annotated[
    ModelRef, Field(description="ControlNet for depth: a hub id with optional @revision, or a folder")
]
ConditioningScale = Annotated[float, Field(ge=0, le=2, description="how strictly the depth map is followed; 0 is off")]
ControlStart = Annotated[float, Field(ge=0, le=1, description="share of the steps after which it sets in")]
ControlEnd = Annotated[float, Field(ge=0, le=1, description="share of the steps after which it ends")]

# Sizes ---------------------------------------------------------------------------------------------------------------

PictureSide = Annotated[
    int | None, Field(ge=8, le=16384, description="pixels; default: the size the model was trained at")
]
BatchSize = Annotated[int, Field(ge=1, le=4096, description="number of pictures")]
VaeTileSize = Annotated[
    int,
    Field(
        ge=64,
        le=16384,
        description="pixels; a larger picture goes through the VAE in overlapping tiles: less memory",
    ),
]
TileSize = Annotated[
    int, Field(ge=32, le=4096, description="pixels; larger pictures are computed in tiles of this size")
]
TileOverlap = Annotated[int, Field(ge=0, le=1024, description="pixels by which tiles overlap; there they are mixed")]
