"""Nodes run through the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphflow as gf
from graphflow.nodes import Image2Image, Text2Image
from tests.helpers.numerics import difference

PROMPT = "a red ball and a blue cube on green grass"

_KINDS = {gf.Image: "image", gf.Latent: "latent", gf.DepthMap: "depth_map"}


def drawn(node: gf.Node, **values: Any) -> Any:
    """Run a node through the engine and return what it gives, as a picture where it gives latents."""
    workflow, given, fields = gf.Workflow(), {}, {}
    for name, value in values.items():
        fields[name] = value
        if not isinstance(value, str):
            fields[name] = workflow.input(name, _KINDS[type(value)])
            given[name] = value
    workflow.output("out", workflow.add("node", node, **fields))
    return workflow.run(**given)["out"]


def goes_through_pixels(model: Path, other: Path, steps: int) -> gf.Problem:
    """Check that ``model`` redraws latents of ``other`` from their picture, as its plan shows; return the warning."""
    workflow = gf.Workflow()
    first = workflow.add("first", Text2Image(model=str(other), width=64, height=64, steps=2, seed=1), prompt=PROMPT)
    second = workflow.add("second", Image2Image(model=str(model), steps=steps, seed=2), image=first, prompt=PROMPT)
    workflow.output("out", second)
    planned = workflow.plan()
    names = [step.node.type_id for step in planned.steps]
    assert names.index("DecodeLatent") < names.index("EncodeImage")
    assert [problem.code for problem in planned.warnings] == ["type.hop"]
    pixels = drawn(Text2Image(model=str(other), width=64, height=64, steps=2, seed=1), prompt=PROMPT)
    again = drawn(Image2Image(model=str(model), steps=steps, seed=2), image=pixels, prompt=PROMPT)
    assert difference(workflow.run()["out"].pixels, again.pixels) <= 1e-5
    return planned.warnings[0]
