"""The command line. Each command is a module of this package, imported only when it is asked for."""

from graphflow.cli.main import main

__all__ = ["main"]
