"""The Python on the pages is for pasting: each block passes a type check, and all are run."""

import ast
import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from cluster_pool import ClusterPool, Connection, Delivery, Request
from cluster_pool.server.run import Listening
from cluster_pool.server.run import run as run_node
from cluster_pool.testing import FakeWebSocket, fake_cluster
from tests.docs.pages import ROOT, Block, block_with, blocks
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tests.test_typing import check
from tools.harness.nodes import NodeProcess

PYTHON = blocks("python")
URL = "redis://localhost:6379"

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
"""The code around a fragment of a program."""


def is_fragment(block: Block) -> bool:
    """Whether it awaits outside of a function."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(block.text, str(block), "exec", flags)
    try:
        compile(tree, str(block), "exec")
    except SyntaxError:
        return True
    return False


def program(block: Block, name: str = "fragment") -> str:
    """A block as a module of its own, in a function if it is a fragment."""
    if not is_fragment(block):
        return block.text
    return SURROUNDINGS.format(name=name, body=textwrap.indent(block.text, "    "))


def run(text: str, url: str = URL, page: str | None = None) -> dict[str, Any]:
    """Run the module of the block with ``text``, with Redis at ``url``; gives its names."""
    block = block_with(text, page)
    defined: dict[str, Any] = {}
    source = program(block).replace(URL, url)
    exec(compile(source, str(block), "exec", dont_inherit=True), defined)
    return defined


@pytest.mark.real
def test_every_block_passes_a_type_check(tmp_path: Path) -> None:
    """Strict, except that examples need not annotate their own functions."""
    assert len(PYTHON) >= 12
    for number, block in enumerate(PYTHON):
        (tmp_path / f"block_{number}.py").write_text(program(block))
    everything = "\n".join(f"import block_{number}" for number in range(len(PYTHON)))
    examples = ("--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls")
    untyped = ("--disable-error-code=import-untyped", "--allow-subclassing-any")  # Django
    said = check(tmp_path, everything, *examples, *untyped, "--follow-imports=normal")
    assert not [line for line in said.splitlines() if line.startswith("block_")], said


@pytest.mark.real
def test_tests_on_the_pages_pass(tmp_path: Path) -> None:
    """Run as a user's first test: by pytest, with its plugin, without configuration."""
    tests = [block.text for block in PYTHON if "def test_" in block.text]
    for number, text in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )
    assert done.returncode == 0, done.stdout
    assert f"{''.join(tests).count('def test_')} passed" in done.stdout


def test_the_example_of_a_script_runs(own_server: RedisServer) -> None:
    """The namespace has no members, which the example handles."""
    run("with SyncPublisher", own_server.url)["publisher"].stop()


@async_test
async def test_the_example_with_websockets_runs(own_server: RedisServer) -> None:
    """A client is a member as long as it is connected."""
    example = run("a client that was refused has got its answer", own_server.url)
    pool: ClusterPool = example["pool"]
    async with pool, serve(example["handler"], "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}") as client:
            (member,) = await eventually(lambda: _members(pool))
            assert await pool.send("room", member.id, "hello", confirm=True)
            assert await client.recv() == "hello"


async def _members(pool: ClusterPool) -> list[Any]:
    return [member async for member in pool.members("room")]


@async_test
async def test_the_example_of_an_app_for_serve_runs(
    own_server: RedisServer, tmp_path: Path
) -> None:
    """The page's command line, with the block as the module that it names."""
    (tmp_path / "yourmodule.py").write_text(block_with("async def handler(pool:").text)
    command = block_with("--app yourmodule:handler").text
    arguments = command.removeprefix("$ cluster-pool serve").split()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with NodeProcess(
        own_server.url, *arguments, environment={"PYTHONPATH": path}, folder=ROOT
    ) as node:
        async with node.connect("room", "alice") as alice, node.connect("room", "bob") as bob:
            await alice.send("hello")
            assert await bob.recv() == "hello"


@async_test
async def test_the_example_of_a_node_in_a_program_runs(own_server: RedisServer) -> None:
    """Its app answers a client, on a free port here."""
    settings = replace(run("run(settings)", own_server.url)["settings"], port=0)
    where: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    node = asyncio.create_task(run_node(settings, on_listening=where.set_result))
    async with connect(f"{(await asyncio.wait_for(where, 20)).url}/ws/room?id=alice") as alice:
        await alice.send("hello")
        assert await alice.recv() == "hello"
    node.cancel()
    await asyncio.gather(node, return_exceptions=True)


@async_test
async def test_the_example_of_authentication_runs() -> None:
    """The session's user may be in the rooms that its identity names."""
    names = run("async def by_session(")
    alice = Request("/ws", "", "Cookie: session=random-session-id")
    identity = await names["by_cookie"].identify(alice)
    permitted = [identity.permits(name) for name in ("room:7", "app")]
    assert (identity.user, permitted) == ("42", [True, False])


@async_test
async def test_the_example_of_a_drain_runs() -> None:
    """Every client gets the message, and is closed."""
    async with fake_cluster() as cluster:
        _, alice = await cluster.connect(0, "room", "alice")
        report = await run("async def empty")["empty"](cluster[0])
        assert report.closed == 1
        assert alice.sent == ["moving on"]
        assert alice.closed is not None
        assert alice.closed[0] == 1012


@async_test
async def test_the_example_of_a_fakeredis_client_runs() -> None:
    """It is a pool that can be started."""
    async with run("FakeAsyncRedis(server=server)")["pool"] as pool:
        assert pool.ready


def fragment(text: str) -> Any:
    return run(text)["fragment"]


@async_test
async def test_the_example_of_many_sends_runs() -> None:
    """In order, and each with its result."""
    async with fake_cluster() as cluster:
        _, alice = await cluster.connect(1, "room", "alice")
        many = [("alice", "1"), ("bob", "2"), ("alice", "3")]
        locals_of = await fragment("asyncio.gather(*[pool.send(")(cluster[0], "room", None, many)
        assert [bool(result) for result in locals_of["results"]] == [True, False, True]
        assert await alice.wait_sent(2) == ["1", "3"]


@async_test
async def test_the_example_of_many_namespaces_runs() -> None:
    """Others in the room hear of it, and it was in both namespaces."""
    async with fake_cluster() as cluster:
        _, bob = await cluster.connect(1, "room", "bob")
        joined = fragment("connection.join")
        locals_of = await joined(cluster[0], "room", FakeWebSocket(), [])
        assert locals_of["namespaces"] == ("app", "room")
        assert await bob.wait_sent() == ["alice is here"]
        assert await cluster[0].count("room") == 1


@async_test
async def test_the_example_of_a_user_runs() -> None:
    """Every connection of the user gets the message, and is closed."""
    async with fake_cluster() as cluster:
        _, tab = await cluster.connect(1, "elsewhere", "tab", user="42")
        locals_of = await fragment("close_user")(cluster[0], "room", FakeWebSocket(), [])
        assert locals_of["told"] == Delivery(delivered=2)
        assert locals_of["online"] == {"42": 2, "43": 0}
        assert locals_of["nodes"] >= 1
        assert await tab.wait_closed() == (4401, "signed out")
        assert tab.sent == ["ready"]


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
    found = frame.f_locals if frame else {}
    connection, pool = found.get("connection"), found.get("pool")
    member = connection is not None and pool.get_connection("room", "alice") is connection
    return connection if member else None


@async_test
async def test_the_example_of_presence_runs() -> None:
    """A newcomer gets the infos of all members, and then those of the next ones."""
    async with fake_cluster() as cluster:
        websocket = FakeWebSocket()
        running = asyncio.create_task(fragment("pool.presence")(cluster[0], "room", websocket, []))
        assert await websocket.wait_sent() == ['[{"name":"Alice","typing":true}]']
        await cluster.connect(1, "room", "bob", info={"name": "Bob"})
        assert json.loads((await websocket.wait_sent(2))[1]) == {"joined": [{"name": "Bob"}]}
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@async_test
async def test_the_example_of_users_runs() -> None:
    """Each is told when another one comes."""
    async with fake_cluster() as cluster:
        _, alice = await cluster.connect(1, "room", "alice", user="42")
        running = asyncio.create_task(fragment("watch_users")(cluster[0], "room", None, []))
        await asyncio.sleep(0.2)
        await cluster.connect(0, "room", "bob", user="43")
        assert await alice.wait_sent() == ['{"join":"43"}']
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
