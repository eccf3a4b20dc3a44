"""Nodes that the command line may add, and graphs in which an input has no value yet."""

from __future__ import annotations

import pytest

from graphflow import Context, Latent, Node, NodeDefinitionError, PortType, Registry, Workflow, default_registry, plan
from graphflow.cli.saving import bound_with_saved_outputs
from tests.helpers import cli_pack as pack
from tests.helpers.cli_pack import Page


class NoEffect(Node, version=1, saves=True):
    """Saves without an effect."""

    name: str = "a"

    def run(self, *, page: Page) -> None: ...


class NoName(Node, version=1, effect=True, saves=True):
    """Has no name to save under."""

    def run(self, *, page: Page) -> None: ...


class TwoPorts(Node, version=1, effect=True, saves=True):
    """Needs two values."""

    name: str = "a"

    def run(self, *, page: Page, other: Page, context: Context) -> None: ...


@pytest.mark.parametrize("cls", [NoEffect, NoName, TwoPorts])
def test_a_saver_has_an_effect_one_port_and_a_name(cls: type[Node]) -> None:
    with pytest.raises(NodeDefinitionError, match="saves, so it needs effect=True, exactly one required port"):
        Registry([cls])


def test_a_saver_takes_what_can_be_converted() -> None:
    registry = default_registry()
    saver = registry.saver(PortType(Latent, space="pocket", model="pocket"))
    assert saver is not None
    assert saver.type_id == "SaveImage"
    assert registry.saver(PortType(int)) is None
    assert Registry(pack.NODES).saver(PortType(Page)) is pack.SavePage


def test_the_document_itself_is_left_alone() -> None:
    workflow = Workflow()
    draw = default_registry()["Text2Image"]()
    workflow.output("picture", workflow.add("draw", draw, prompt="a red ball"))
    before = workflow.to_dict()
    graph = bound_with_saved_outputs(workflow, {})
    assert workflow.to_dict() == before
    assert [bound.node.type_id for bound in graph] == ["Text2Image", "SaveImage"]
    assert graph.document.to_dict()["nodes"]["save-picture"] == {
        "type": "SaveImage",
        "name": "python-picture",
        "image": {"from": "draw"},
    }


def test_what_waits_for_a_parameter_is_left_out_of_the_plan() -> None:
    workflow = Workflow()
    text, copies = workflow.input("text", "text"), workflow.input("copies", "int")
    first = workflow.add("first", pack.Print(), text=text)
    waiting = workflow.add("waiting", pack.Print(), text="a", copies=copies)
    behind = workflow.add("behind", pack.Copy(), page=waiting)
    workflow.output("first", first)
    workflow.output("behind", behind)
    graph = workflow.bind(checking=True, registry=Registry(pack.NODES))
    planned = plan(graph)
    assert [step.name for step in planned.steps] == ["first"]
    assert list(planned.results) == ["first"]
