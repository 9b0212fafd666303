"""No file and no function grows too long to be read at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

import cluster_pool

ROOT = Path(cluster_pool.__file__).parent
FILE = 400
FUNCTION = 40
"""Lines, without the docstring: a public one is often longer than its code."""

TABLES = {"cli/serving.py:serve", "cli/draining.py:drain"}
"""Lists of command line options, with little code below."""

# Exceptions, with their length when they were measured. A number may only become smaller.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Every function of a file, as ``folder/file.py:Class.name``."""
    where = path.relative_to(ROOT).as_posix()
    waiting: list[tuple[str, ast.AST]] = [("", ast.parse(path.read_text()))]
    while waiting:
        prefix, parent = waiting.pop()
        for node in ast.iter_child_nodes(parent):
            named = isinstance(node, Function | ast.ClassDef)
            waiting.append((f"{prefix}{node.name}." if named else prefix, node))
            if isinstance(node, Function):
                yield f"{where}:{prefix}{node.name}", node


def lines_of(function: Function, *, body_only: bool = False) -> int:
    """The lines of a function, without its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    begin = first.lineno if body_only else function.lineno
    return (function.end_lineno or 0) - begin + 1 - docstring


def test_no_file_is_longer_than_400_lines() -> None:
    """A longer file is two things; the exceptions do not grow."""
    for path in ROOT.rglob("*.py"):
        where = path.relative_to(ROOT).as_posix()
        length = len(path.read_text().splitlines())
        assert length <= LONG_FILES.get(where, FILE), f"{where} has {length} lines"


def test_the_client_for_browsers_is_short() -> None:
    """It is for reading, too: 150 lines, which fit into a window."""
    lines = (ROOT / "static" / "cluster-socket.js").read_text().splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 110


def test_no_function_is_longer_than_40_lines() -> None:
    """Except the tables of options, of which only the code counts."""
    for path in ROOT.rglob("*.py"):
        for name, function in functions(path):
            length = lines_of(function, body_only=name in TABLES)
            assert length <= LONG_FUNCTIONS.get(name, FUNCTION), f"{name} has {length} lines"


def test_exceptions_from_the_sizes_are_needed() -> None:
    """An exception that has become short is to be removed."""
    for where in LONG_FILES:
        path = ROOT / where
        assert path.exists(), f"{where} is gone: take it out of the list"
        assert len(path.read_text().splitlines()) > FILE, f"{where} is short: take it out"
    there = dict(pair for path in ROOT.rglob("*.py") for pair in functions(path))
    for name in LONG_FUNCTIONS:
        assert name in there, f"{name} is gone: take it out of the list"
        assert lines_of(there[name]) > FUNCTION, f"{name} is short: take it out"
