"""The options that say where and how to compute, and where results are kept."""

from __future__ import annotations

import argparse
from typing import Any

from graphflow.cli.parser import Options, Parser
from graphflow.machine.switches import Switch, Switches, all_switches
from graphflow.store.disk import default_store
from graphflow.store.interface import Store

__all__ = ["add_store", "add_switches", "given_switches", "store_for", "switches_for"]


def add_switches(parser: Parser) -> None:
    """Add an option for every switch, ``--device`` to ``--max-batch``."""
    for switch in all_switches():
        names = [f"--{spelling.replace('_', '-')}" for spelling in switch.spellings]
        parser.add_argument(*names, dest=switch.name, default=None, help=switch.help, **_form(switch))


def given_switches(options: Options) -> dict[str, Any]:
    """Return the switches on the command line, by the names of their fields."""
    values = {switch.name: getattr(options, switch.name) for switch in all_switches()}
    return {name: value for name, value in values.items() if value is not None}


def switches_for(options: Options) -> Switches:
    """Return the switches of a run: those on the command line, and for the rest the defaults."""
    return Switches(**given_switches(options))


def add_store(parser: Parser) -> None:
    """Add the option ``--no-cache``."""
    parser.add_argument(
        "--no-cache", action="store_true", help="neither use the results that earlier runs kept, nor keep any"
    )


def store_for(options: Options) -> Store | None:
    """Return the store in which results are looked up and kept; None for nowhere."""
    return None if options.no_cache else default_store()


def _form(switch: Switch) -> dict[str, Any]:
    """Keyword arguments with which argparse reads a switch."""
    if isinstance(switch.default, bool):
        return {"action": "store_true"}
    if switch.choices is not None:
        return {"choices": switch.choices}
    return {"metavar": switch.metavar, "type": _count if switch.metavar == "N" else str}


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"found '{word}', expected a whole number from 1 on")
    return int(word)
