"""How the code is built: what imports what, and how much there is to read at once."""

import ast
import statistics
from pathlib import Path

import pytest

import drrepro

ROOT = Path(drrepro.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}
TREES = {path: ast.parse(path.read_text()) for path in FILES}
FUNCTIONS = {
    (path.relative_to(ROOT).as_posix(), node.name): node
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
}


def lines_of(node):
    """Return the lines of a function without its docstring."""
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    hidden = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
    return node.end_lineno - node.lineno + 1 - hidden


def package_of(module):
    """Return the package below drrepro of a dotted name, or for a module at the top its own name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "drrepro" else None


def imports():
    """Return which package, or module at the top, imports which, wherever in a file the import stands."""
    graph = {}
    for path, tree in TREES.items():
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "drrepro":
                names = [f"drrepro.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            graph.setdefault(own, set()).update({package_of(name) for name in names} - {None, own, "__version__"})
    return graph


def test_no_package_imports_one_that_imports_it():
    graph, done = imports(), set()

    def visit(node, way):
        assert node not in way, " -> ".join([*way[way.index(node) :], node])
        if node not in done:
            for other in sorted(graph.get(node, ())):
                visit(other, [*way, node])
            done.add(node)

    for node in sorted(graph):
        visit(node, [])
    assert {"losses", "models", "training", "report", "cli"} <= done


def test_functions_are_short():
    lengths = {name: lines_of(node) for name, node in FUNCTIONS.items()}
    assert statistics.median(lengths.values()) <= 10
    assert {name: length for name, length in lengths.items() if length > 40} == {}


def test_files_are_short():
    assert {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 220} == {}


@pytest.mark.parametrize("name", ["dr", "focal"])
def test_losses_are_named_where_they_are_and_where_the_paper_is(name):
    found = {
        path.relative_to(ROOT).as_posix()
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value == name
    }
    assert {path for path in found if not path.startswith("losses/")} == set()


def test_every_package_says_what_it_is():
    assert PACKAGES
    for path, tree in TREES.items():
        assert ast.get_docstring(tree), path
