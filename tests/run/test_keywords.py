"""Values of inputs in Python: as keywords, or in a mapping where a name is that of an option too."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import graphflow as gf
from graphflow.cli.computing import add_switches
from graphflow.cli.parser import Parser
from graphflow.graph.bound import Constant
from graphflow.machine.switches import all_switches
from tests.helpers.engine_pack import REGISTRY, Join

OPTIONS = ["out", "keep", "switches", "cache", "metadata", "listeners", "cancel", "registry", "offline", "sweep"]
SWITCHES = ["device", "dtype", "attention", "offload", "channels_last", "compile", "memory_budget", "max_batch"]
NAMES = [*OPTIONS, *SWITCHES, "together", "inputs", "self"]


def echoing(*names: str) -> gf.Workflow:
    """A workflow that declares inputs of these names and gives each of them back."""
    w = gf.Workflow()
    said = [w.input(name, "text", default="by default") for name in names]
    for name, reference in zip(names, said, strict=True):
        node = w.add(f"say_{name}", Join(), left=reference, right="")
        w.output(f"said_{name}", node)
    return w


def code_of(error: pytest.ExceptionInfo[gf.WorkflowError]) -> list[str]:
    return [problem.code for problem in error.value.problems]


@pytest.mark.parametrize("name", NAMES)
def test_an_input_may_be_called_like_an_option(name: str) -> None:
    w = echoing(name)
    run = w.run({name: "given"}, registry=REGISTRY, cache=False)
    assert run[f"said_{name}"] == "given"
    assert run.manifest.data["inputs"] == {name: "given"}
    assert w.validate({name: "given"}, registry=REGISTRY) == []
    assert w.plan(inputs={name: "given"}, registry=REGISTRY).steps[0].inputs["left"] == Constant("given")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("inputs", "self")])
def test_a_keyword_that_is_an_option_and_an_input_is_refused(name: str) -> None:
    with pytest.raises(
        gf.WorkflowError, match=rf"an option of run\(\) and an input.*\n.*inputs={{'{name}': …}}"
    ) as error:
        keywords: dict[str, Any] = {"registry": REGISTRY, "cache": False, name: "given"}
        echoing(name).run(**keywords)
    assert code_of(error) == ["input.ambiguous"]


def test_beside_a_mapping_the_keyword_is_the_option() -> None:
    run = echoing("device").run({"device": "a lens"}, device="cpu", registry=REGISTRY, cache=False)
    assert run["said_device"] == "a lens"
    assert run.plan.compute.device == "cpu"
    assert echoing("offline").validate(inputs={}, registry=REGISTRY, offline=True) == []


def test_a_value_that_is_given_both_ways_is_refused() -> None:
    with pytest.raises(gf.WorkflowError, match="found a value for 'text' in inputs, and as a keyword too") as error:
        echoing("text").run({"text": "one"}, text="other", registry=REGISTRY)
    assert code_of(error) == ["input.twice"]


def test_both_ways_add_up() -> None:
    run = echoing("one", "other").run({"one": "1"}, other="2", registry=REGISTRY, cache=False)
    assert run["said_one"] + run["said_other"] == "12"


def test_inputs_that_are_no_mapping() -> None:
    with pytest.raises(gf.WorkflowError, match="found str as inputs, expected a mapping") as error:
        echoing("inputs").run(inputs="text", registry=REGISTRY)  # type: ignore[arg-type]
    assert "inputs={'inputs': …}" in str(error.value)


@pytest.mark.parametrize(
    ("count", "hint"), [(0, "has no inputs"), (2, "known here: in0, in1"), (20, "lists its inputs")]
)
def test_an_unknown_name_has_a_hint_that_is_true(count: int, hint: str) -> None:
    w = echoing(*(f"in{index}" for index in range(count)))
    w.add("some", Join(), left="", right="")
    with pytest.raises(gf.WorkflowError, match="no input 'zzzz'") as error:
        w.run({"zzzz": "text"}, registry=REGISTRY)
    assert hint in str(error.value)


@pytest.mark.parametrize(("count", "hint"), [(2, "known here: said_in0, said_in1"), (20, "list(run) has the names")])
def test_a_value_that_was_not_kept_has_a_hint_that_is_true(count: int, hint: str) -> None:
    run = echoing(*(f"in{index}" for index in range(count))).run(registry=REGISTRY, cache=False)
    with pytest.raises(KeyError) as error:
        run["zzzz"]
    assert hint in str(error.value)


def test_switches_are_given_one_by_one_or_at_once() -> None:
    w = echoing("text")
    one = w.plan(device="cpu", dtype="float16", registry=REGISTRY)
    all_of_them = w.plan(switches=gf.Switches(device="cpu", dtype="float16"), registry=REGISTRY)
    both = w.plan(switches=gf.Switches(device="cpu", dtype="bfloat16"), dtype="float16", registry=REGISTRY)
    assert one == all_of_them == both
    assert w.plan(together=3, registry=REGISTRY).compute.max_batch == 3


def test_run_and_plan_have_the_same_defaults() -> None:
    w = echoing("text")
    assert w.plan(registry=REGISTRY).compute == w.run(registry=REGISTRY, cache=False).plan.compute
    keywords = [inspect.signature(method).parameters for method in (w.run, w.plan)]
    for each in all_switches():
        assert [known[each.name].default for known in keywords] == [each.default] * 2


def test_every_switch_is_an_option_of_the_command_line() -> None:
    parser = Parser(prog="graphflow run", description=None)
    add_switches(parser)
    assert [action.dest for action in parser._actions[1:]] == [each.name for each in all_switches()] == SWITCHES


def test_validate_takes_a_registry() -> None:
    assert echoing("text").validate(registry=REGISTRY) == []
    assert [problem.code for problem in echoing("text").validate(registry=gf.Registry())] == ["node.unknown"]
