"""The README's Python is what its users paste: each block passes a type check, and most are run."""

import ast
import asyncio
import re
import textwrap
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from cluster_pool import ClusterPool, Connection
from cluster_pool.testing import FakeWebSocket, fake_cluster
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tests.test_typing import check

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)

SURROUNDINGS = """
import asyncio
import contextlib
from cluster_pool import *


async def {name}(
    pool: ClusterPool, room: str, websocket: object, many: list[tuple[str, str]]
) -> object:
    async def handler(message: str | bytes) -> None: ...
    async def last_one() -> None: ...

{body}
    return locals()
"""
"""What a fragment of a program stands in."""


def is_fragment(block: str) -> bool:
    """Whether it awaits outside of a function."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(block, "README", "exec", flags)
    try:
        compile(tree, "README", "exec")
    except SyntaxError:
        return True
    return False


def program(block: str, name: str = "fragment") -> str:
    """A block as a module of its own, in a function if it is a fragment."""
    if not is_fragment(block):
        return block
    return SURROUNDINGS.format(name=name, body=textwrap.indent(block, "    "))


def block_with(text: str) -> str:
    """The one block in which this stands."""
    (block,) = [block for block in BLOCKS if text in block]
    return block


def run(block: str) -> dict[str, Any]:
    """What a module of this block has defined."""
    defined: dict[str, Any] = {}
    exec(compile(program(block), "README", "exec", dont_inherit=True), defined)
    return defined


def test_every_block_passes_a_type_check(tmp_path: Path) -> None:
    """Strict, but that examples need not say what their own functions take."""
    assert len(BLOCKS) >= 6
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"block_{number}.py").write_text(program(block))
    everything = "\n".join(f"import block_{number}" for number in range(len(BLOCKS)))
    examples = ("--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls")
    said = check(tmp_path, everything, *examples, "--follow-imports=normal")
    assert not [line for line in said.splitlines() if line.startswith("block_")], said


def test_the_example_of_a_test_passes() -> None:
    """As somebody's first test."""
    asyncio.run(run(block_with("async def test_greeting"))["test_greeting"]())


def test_the_example_of_a_script_runs(own_server: RedisServer) -> None:
    """Nobody is there, which the example has a place for."""
    block = block_with("with SyncPublisher").replace("redis://localhost:6379", own_server.url)
    run(block)["publisher"].stop()


def fragment(text: str) -> Any:
    return run(block_with(text))["fragment"]


@async_test
async def test_the_example_of_many_sends_runs() -> None:
    """In order, and each with its result."""
    async with fake_cluster() as cluster:
        _, alice = await cluster.connect(1, "room", "alice")
        many = [("alice", "1"), ("bob", "2"), ("alice", "3")]
        locals_of = await fragment("send_nowait")(cluster[0], "room", None, many)
        assert [bool(result) for result in locals_of["results"]] == [True, False, True]
        assert await alice.wait_sent(2) == ["1", "3"]


@async_test
async def test_the_example_of_a_connection_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its claim to its release."""
    from fakeredis import FakeAsyncRedis

    class OnFakeredis(ClusterPool):
        def __init__(self, redis: str, **options: Any) -> None:
            assert redis == "redis://…"
            super().__init__(FakeAsyncRedis(), **options)

    monkeypatch.setattr("cluster_pool.ClusterPool", OnFakeredis)
    websocket = FakeWebSocket()
    running = asyncio.create_task(fragment("last_one()")(None, "room", websocket, []))
    connection: Connection = await eventually(lambda: _claimed(running))
    await connection.close()
    locals_of = await running
    assert locals_of["pool"].statistics()["connections"] == 0


def _claimed(running: "asyncio.Task[Any]") -> Connection | None:
    """The connection of the example, once it is a member."""
    coroutine = running.get_coro()
    assert isinstance(coroutine, Coroutine)
    frame = coroutine.cr_frame
    connection = frame.f_locals.get("connection") if frame else None
    return connection if connection is not None and connection.claim is not None else None


@async_test
async def test_the_example_of_a_list_of_members_runs() -> None:
    """It is right after each join and leave."""
    async with fake_cluster() as cluster:
        watching = asyncio.create_task(fragment("pool.watching")(cluster[0], "room", None, []))
        coroutine: Any = watching.get_coro()

        def members() -> object:
            return coroutine.cr_frame.f_locals.get("members")

        await eventually(lambda: members() == {})
        connection, _ = await cluster.connect(1, "room", "alice")
        await eventually(lambda: members() == {"alice": "node-2"})
        await cluster[1].remove_connection(connection)
        await eventually(lambda: members() == {})
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
