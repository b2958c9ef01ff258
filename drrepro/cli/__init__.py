"""The command line: parse, call, print. What takes long to import is imported when it is used, see lazy.py."""

from drrepro.cli.app import app
from drrepro.cli.options import line

__all__ = ["app", "line"]
