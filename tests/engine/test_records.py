"""Records of runs that Python started."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphflow as gf
from graphflow.replay import read_replay
from tests.engine.pack import REGISTRY, Decode


def test_a_value_that_python_gave_cannot_be_replayed_and_that_is_told(tmp_path: Path) -> None:
    workflow = gf.Workflow()
    latent = workflow.input("latent", "latent")
    workflow.output("image", workflow.add("decode", Decode(model="sd-model"), latent=latent))
    given = gf.Latent(None, "sd", "sd-model")  # type: ignore[arg-type]
    run = workflow.run(registry=REGISTRY, latent=given, out=tmp_path)
    manifest = run.manifest.save(tmp_path / "manifest.json")
    with pytest.raises(gf.WorkflowError, match=r"does not hold the value of latent.*\n?.*record\.value"):
        read_replay(manifest).with_values({})
