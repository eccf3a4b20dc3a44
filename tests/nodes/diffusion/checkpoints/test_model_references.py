"""The string that names a model with another VAE and LoRAs."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphflow import Problem
from graphflow.nodes.diffusion.checkpoints.location import HubReference, hub_reference
from graphflow.nodes.diffusion.checkpoints.model_reference import LoraReference, ModelReference, parse_reference
from graphflow.nodes.diffusion.models.model_info import find_model, find_problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pocket", ModelReference("pocket")),
        ("a/b@v1", ModelReference("a/b@v1")),
        ("a+b", ModelReference("a+b")),
        (
            "a/b + lora:c/d*0.9 + vae:e/f",
            ModelReference("a/b", "e/f", (LoraReference("c/d", 0.9),)),
        ),
        (
            "a/b + vae:e/f + lora:c/d/x.safetensors + lora:./g.safetensors*-2",
            ModelReference("a/b", "e/f", (LoraReference("c/d/x.safetensors"), LoraReference("./g.safetensors", -2.0))),
        ),
        ("a/b + lora:c/d@v2*1e-1", ModelReference("a/b", None, (LoraReference("c/d@v2", 0.1),))),
    ],
)
def test_the_parts_of_a_reference(text: str, expected: ModelReference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a/b + lora:c*x", 'weight "x"'),
        ("a/b + lora:c*", 'weight ""'),
        ("a/b + lora:c*nan", 'weight "nan"'),
        ("a/b + lora:c*11", 'weight "11"'),
        ("a/b + lora:c*-10.5", 'weight "-10.5"'),
        ("a/b + lora:*2", "lora: without a name"),
        ("a/b + lora:", "lora: without a name"),
        ("a/b + vae:", "vae: without a name"),
        ("a/b + lore:c", 'the part "lore:c"'),
        ("a/b + c/d", 'the part "c/d"'),
        ("a/b + vae:c + vae:d", "2 VAEs, expected at most 1"),
        ("a/b + lora:c + lora:c*2", 'the LoRA "c" more than once'),
        (" + lora:c", "no model before"),
    ],
)
def test_a_fault_of_form_is_reported_with_what_to_do(text: str, found: str) -> None:
    problems = parse_reference(text)
    assert isinstance(problems, tuple)
    (problem,) = problems
    assert (problem.code, problem.field) == ("model.reference", "model")
    assert found in problem.message
    assert problem.hint


def test_all_faults_of_form_are_reported_at_once() -> None:
    problems = find_problems("a/b + lora:c*x + lore:d + vae:e + vae:f")
    assert [problem.code for problem in problems] == ["model.reference"] * 3


def test_every_part_that_is_missing_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    problems = find_problems("a/b + vae:c/d + lora:e/f*0.5 + lora:g.safetensors")
    assert {problem.code for problem in problems} == {"missing.model"}
    named = ('the model "a/b"', 'the VAE "c/d"', 'the LoRA "e/f"', '"g.safetensors"')
    assert [name in problem.message for name, problem in zip(named, problems, strict=True)] == [True] * 4
    assert 'graphflow models pull "e/f"' in problems[2].hint
    found = find_model("a/b + vae:c/d")
    assert isinstance(found, Problem)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", HubReference("a/b")),
        ("a/b@v1", HubReference("a/b", "v1")),
        ("a/b@refs/pr/1", HubReference("a/b", "refs/pr/1")),
        ("a/b/c.safetensors", HubReference("a/b", "main", "c.safetensors")),
        ("a/b@v1/c/d e.safetensors", HubReference("a/b", "v1", "c/d e.safetensors")),
        ("a/b@refs/pr/1/c.safetensors", HubReference("a/b", "refs/pr/1", "c.safetensors")),
        ("a/b/c", None),
        ("./a/b", None),
        ("/a/b", None),
        ("a/../b", None),
        ("a/b/../../c.safetensors", None),
        ("a.safetensors", None),
    ],
)
def test_what_a_reference_means_on_the_hub(text: str, expected: HubReference | None) -> None:
    assert hub_reference(text) == expected
