"""Defining node classes and collecting them: what is read off the class, and what is refused with a reason."""

from __future__ import annotations

import types
from typing import Any, ClassVar, NamedTuple

import pytest
from pydantic import ValidationError

import graphflow as gf
from graphflow import Expansion, Node, NodeDefinitionError
from graphflow.types import PortType, accepts
from tests.helpers.engine_pack import REGISTRY, Add, Number, Split


def test_ports_and_outputs_are_read_off_the_signature() -> None:
    signature = Add.signature()
    assert {name: (str(port.type), port.required) for name, port in signature.inputs.items()} == {
        "left": ("Int", True),
        "right": ("Int", False),
    }
    assert list(signature.outputs) == ["value"]
    assert list(Split.signature().outputs) == ["low", "high"]


def test_an_only_output_is_named_after_its_kind() -> None:
    class Depth(gf.Node, version=1):
        """Give a depth map."""

        def run(self) -> gf.DepthMap:
            raise NotImplementedError

    assert list(Depth.signature().outputs) == ["depth_map"]


def test_a_node_is_frozen_hashable_and_refuses_misspelt_parameters() -> None:
    assert hash(Number(value=1)) == hash(Number(value=1))
    with pytest.raises(ValidationError):
        Number(valeu=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Number(value=1).value = 2  # type: ignore[misc]


def test_a_class_without_version_is_refused() -> None:
    with pytest.raises(gf.NodeDefinitionError, match="no version"):

        class A(gf.Node):
            """No version."""

            def run(self) -> int:
                return 1


def test_a_class_with_neither_or_both_of_run_and_expand_is_refused() -> None:
    with pytest.raises(gf.NodeDefinitionError, match="neither run nor expand"):

        class A(gf.Node, version=1):
            """Nothing."""

    with pytest.raises(gf.NodeDefinitionError, match="both run and expand"):

        class B(gf.Node, version=1):
            """Too much."""

            def run(self) -> int:
                return 1

            def expand(self, g: gf.Expansion) -> int:
                return 1


def test_a_port_may_not_have_the_name_of_a_parameter_or_of_the_format() -> None:
    with pytest.raises(gf.NodeDefinitionError, match="'value' is taken"):

        class A(gf.Node, version=1):
            """Clash."""

            value: int = 0

            def run(self, *, value: int) -> int:
                return value

    with pytest.raises(gf.NodeDefinitionError, match="'type' is taken"):

        class B(gf.Node, version=1):
            """Clash with the format."""

            def run(self, *, type: int) -> int:
                return type


def test_an_id_is_a_dotted_name() -> None:
    with pytest.raises(gf.NodeDefinitionError, match="dotted name"):

        class A(gf.Node, version=1, id="my pack/A"):
            """Bad id."""

            def run(self) -> int:
                return 1


def test_a_port_has_one_type() -> None:
    class A(gf.Node, version=1):
        """Two types."""

        def run(self, *, value: int | str) -> int:
            return 1

    with pytest.raises(gf.NodeDefinitionError, match="a port has one type"):
        gf.Registry([A])


def test_positional_ports_are_refused() -> None:
    class A(gf.Node, version=1):
        """Positional."""

        def run(self, value: int) -> int:
            return value

    with pytest.raises(gf.NodeDefinitionError, match="keyword-only"):
        gf.Registry([A])


def test_a_failed_add_changes_nothing_and_names_both_classes() -> None:
    class Fresh(gf.Node, version=1):
        """New."""

        def run(self) -> int:
            return 1

    class Other(gf.Node, version=1, id="Add"):
        """Takes an id."""

        def run(self) -> int:
            return 1

    registry = REGISTRY.copy()
    with pytest.raises(gf.NodeDefinitionError, match=r"tests\.helpers\.engine_pack\.Add and .*Other"):
        registry.add(Fresh, Other)
    assert set(registry) == set(REGISTRY)
    registry.add(Add)  # the same class again is no duplicate


def test_a_module_gives_its_concrete_nodes() -> None:
    module = types.ModuleType("pack")
    vars(module).update(Add=Add, Node=gf.Node, number=3, alias=Add)
    registry = gf.Registry()
    registry.collect(module)
    assert list(registry) == ["Add"]


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        (PortType(int), PortType(int), True),
        (PortType(float), PortType(int), True),
        (PortType(int), PortType(float), False),
        (PortType(int), PortType(bool), False),
        (PortType(float), PortType(bool), False),
        (PortType(str), PortType(int), False),
        (PortType(gf.Latent), PortType(gf.Latent, "sd"), True),
        (PortType(gf.Latent, "sd"), PortType(gf.Latent, "sd"), True),
        (PortType(gf.Latent, "sd"), PortType(gf.Latent, "sdxl"), False),
        (PortType(gf.Image), PortType(gf.Latent, "sd"), False),
        (PortType(gf.Image), PortType(gf.Mask), False),
    ],
)
def test_the_rule_for_what_may_connect(target: PortType, source: PortType, expected: bool) -> None:
    assert accepts(target, source) is expected


def test_a_subclass_stands_for_its_base() -> None:
    class Sigmas:
        pass

    class Karras(Sigmas):
        pass

    assert accepts(PortType(Sigmas), PortType(Karras))
    assert not accepts(PortType(Karras), PortType(Sigmas))


def test_the_default_registry_holds_the_shipped_nodes() -> None:
    assert {"LoadImage", "SaveImage", "Text2Image", "Image2Image", "Denoise"} <= set(gf.default_registry())


def test_a_node_that_forgets_an_output_in_its_types_is_named() -> None:
    class Forgetful(gf.Node, version=1):
        """Declare one output, tell the type of another."""

        def output_types(self, inputs: object) -> dict[str, PortType]:
            return {"other": PortType(int)}

        def run(self) -> int:
            return 1

    workflow = gf.Workflow()
    workflow.add("a", Forgetful())
    with pytest.raises(gf.NodeDefinitionError, match=r"Forgetful.output_types gives other, expected value"):
        gf.bind(workflow, registry=gf.Registry([Forgetful]))


class Pair(NamedTuple):
    first: int
    second: str


def test_a_coarse_node_may_give_several_outputs() -> None:
    class Both(gf.Node, version=1):
        """Give two."""

        def expand(self, g: gf.Expansion, *, value: int) -> Pair:
            halves = g.add(Split(), value=value)
            return Pair(halves.low, halves.high)

    workflow = gf.Workflow()
    both = workflow.add("both", Both(), value=9)
    workflow.add("sum", Add(), left=both["first"])
    assert workflow.run(registry=gf.Registry([Both, *REGISTRY.values()]))["sum"] == 4


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ({"efect": True}, "did you mean 'effect'?"),
        ({"Version": 2}, "did you mean 'version'?"),
        ({"x": 1}, "known here"),
    ],
)
def test_a_class_line_is_checked_to_the_letter(words: dict[str, Any], hint: str) -> None:
    def body(namespace: dict[str, Any]) -> None:
        def run(self: Any) -> int:
            return 1

        namespace["run"] = run

    for more in ({"version": 1}, {"abstract": True}):
        with pytest.raises(NodeDefinitionError, match="unknown word") as error:
            types.new_class("Misspelt", (Node,), {**more, **words}, body)
        assert hint in str(error.value)


def test_a_base_class_may_have_words_of_its_own() -> None:
    class Priced(Node, abstract=True):
        price: ClassVar[int] = 0

        @classmethod
        def __pydantic_init_subclass__(cls, *, price: int = 0, **words: Any) -> None:
            super().__pydantic_init_subclass__(**words)
            cls.price = price

    class Cheap(Priced, version=1, price=2):
        def run(self) -> int:
            return 1

    assert Cheap.price == 2


def test_a_class_that_does_not_say_what_it_returns_is_refused() -> None:
    with pytest.raises(NodeDefinitionError, match=r"Silent.*run does not say what it returns; annotate it, -> None"):

        class Silent(Node, version=1):
            def run(self, *, value: int):  # type: ignore[no-untyped-def]
                return value

    with pytest.raises(NodeDefinitionError, match="expand does not say what it returns"):

        class SilentToo(Node, version=1):
            def expand(self, g: Expansion, *, value: int):  # type: ignore[no-untyped-def]
                return value

    class Says(Node, version=1, effect=True):
        def run(self, *, value: int) -> None:
            return

    assert Says.signature().outputs == {}
