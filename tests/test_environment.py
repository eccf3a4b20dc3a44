"""Environment variables that switch something on."""

from __future__ import annotations

import pytest

import graphflow as gf
from graphflow.environment import NO_CACHE_VARIABLE, OFFLINE_VARIABLE
from graphflow.nodes.web.address import ALLOW_VARIABLE, refusal
from graphflow.store.disk import default_store

OFF = ["", "0", "false", "False", "no", "off", " OFF "]
ON = ["1", "true", "yes", "on", "2"]


@pytest.mark.parametrize(("value", "on"), [*((value, False) for value in OFF), *((value, True) for value in ON)])
def test_every_switch_is_read_alike(value: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (NO_CACHE_VARIABLE, OFFLINE_VARIABLE):
        monkeypatch.setenv(name, value)
        assert gf.flag(name) is on
    assert gf.is_offline() is on
    assert (default_store() is None) is on


@pytest.mark.parametrize("value", [*OFF, *ON])
def test_a_guard_is_lowered_by_1_alone(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, value)
    assert gf.flag(ALLOW_VARIABLE, strict=True) is (value == "1")
    assert (refusal("printer", "192.168.0.7") is None) is (value == "1")


def test_what_is_not_set_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NO_CACHE_VARIABLE)
    assert not gf.flag(NO_CACHE_VARIABLE)
    assert default_store() is not None
