"""The command line: parse, call, print. Heavy imports are inside the commands, so that --help answers at once."""

from drrepro.cli.app import app
from drrepro.cli.options import state

__all__ = ["app", "state"]
