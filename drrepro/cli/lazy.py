"""Imports that are carried out when they are first used: --help and a typing error need no torch, which takes seconds.

    with lazily():
        from drrepro.experiments import sweep

binds ``sweep`` to a stand-in, which becomes the module when an attribute of it is asked for. Only modules of drrepro
are imported so, not what is in them; the type checker sees plain imports.
"""

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


class _Module:
    """Stands for a module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self.__dict__["_name"] = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


class _Package:
    """What ``from package import module`` takes modules from."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> _Module:
        return _Module(f"{self._name}.{attribute}")


@contextmanager
def lazily() -> Iterator[None]:
    """Let ``from drrepro... import module`` in this context import the modules at their first use."""
    eager = builtins.__import__

    def importing(name: str, *rest: Any, **named: Any) -> Any:
        return _Package(name) if name.partition(".")[0] == "drrepro" else eager(name, *rest, **named)

    builtins.__import__ = importing
    try:
        yield
    finally:
        builtins.__import__ = eager
