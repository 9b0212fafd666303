"""A node that a Python program runs: without the command line, and without its libraries."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from cluster_pool import BackplaneUnavailableError, ClusterPool, Connection, Publisher
from cluster_pool.server.run import Listening, run
from cluster_pool.server.settings import NodeSettings
from cluster_pool.testing import FAST
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import close_code, in_thread

PROGRAM = """
import asyncio, json, sys
from cluster_pool.server.run import run, serve_forever
from cluster_pool.server.settings import NodeSettings

async def echo(pool, connection):
    async for message in connection:
        await connection.send(message)

def listening(where):
    loaded = [name for name in ("typer", "rich", "cluster_pool.cli") if name in sys.modules]
    print(json.dumps({"url": where.url, "node": where.node_id, "loaded": loaded}), flush=True)

settings = NodeSettings(redis=sys.argv[1], node_id="mine", port=0, app=echo)
if sys.argv[2] == "run":
    asyncio.run(run(settings, on_listening=listening))
else:
    serve_forever(settings, on_listening=listening)
print("ended", flush=True)
"""


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program above as a process of its own, killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def running(settings: NodeSettings) -> AsyncIterator[tuple[Listening, ClusterPool]]:
    """A node as a task of this loop, cancelled at the end."""
    where: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
    pools: list[ClusterPool] = []
    node = asyncio.create_task(run(settings, on_pool=pools.append, on_listening=where.set_result))
    try:
        await asyncio.wait((node, where), timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if node.done():
            await node
        yield where.result(), pools[0]
    finally:
        node.cancel()
        await asyncio.gather(node, return_exceptions=True)


@pytest.mark.parametrize("how", ["run", "serve_forever"])
@async_test
async def test_a_program_runs_a_node_until_a_signal_without_loading_typer(
    own_server: RedisServer, how: str
) -> None:
    """It serves its app, drains on SIGTERM, leaves nothing behind, and the program goes on."""
    with program(own_server.url, how) as process:
        assert process.stdout is not None
        said = json.loads(await in_thread(process.stdout.readline))
        assert (said["node"], said["loaded"]) == ("mine", [])
        async with connect(f"{said['url']}/ws/room?id=alice") as alice:
            await alice.send("echo")
            assert await alice.recv() == "echo"
            process.send_signal(signal.SIGTERM)
            assert await close_code(alice) == 1012
        assert await in_thread(process.wait, 30) == 0
        assert process.stdout.read() == "ended\n"
    async with Publisher(own_server.url) as publisher:
        assert await publisher.nodes() == []


@async_test
async def test_a_cancelled_run_closes_its_clients_and_leaves_the_cluster(
    own_server: RedisServer,
) -> None:
    """They are closed with 1012 at once, without a drain."""
    settings = NodeSettings(redis=own_server.url, node_id="a", port=0, timing=FAST)
    async with running(settings) as (where, pool):
        assert (where.node_id, where.admin_port, where.embedded) == ("a", None, None)
        assert pool.ready
        alice = await connect(f"{where.url}/ws/room?id=alice")
        assert await pool.send("room", "alice", "hi")
        assert await alice.recv() == "hi"
    assert await close_code(alice) == 1012
    assert pool.state.value == "stopped"
    async with Publisher(own_server.url) as publisher:
        assert await publisher.nodes() == []
        assert await publisher.count("room") == 0


@async_test
async def test_the_pool_is_given_to_the_program_before_it_joins(own_server: RedisServer) -> None:
    """The program can register its hooks before the first state."""
    states: list[str] = []

    def watch(pool: ClusterPool) -> None:
        pool.on("state", lambda state: states.append(state.value))

    settings = NodeSettings(redis=own_server.url, port=0, timing=FAST)
    up = asyncio.Event()
    node = asyncio.create_task(run(settings, on_pool=watch, on_listening=lambda _: up.set()))
    await asyncio.wait_for(up.wait(), 20)
    node.cancel()
    await asyncio.gather(node, return_exceptions=True)
    assert states[:2] == ["starting", "active"]


@async_test
async def test_outside_the_main_thread_a_node_runs_until_it_is_cancelled(
    own_server: RedisServer,
) -> None:
    """Signals cannot be taken there; all else works."""
    settings = NodeSettings(redis=own_server.url, port=0, timing=FAST)
    here = asyncio.get_running_loop()
    where: asyncio.Future[Listening] = here.create_future()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def node() -> None:
        work = asyncio.ensure_future(
            run(
                settings,
                on_listening=lambda found: here.call_soon_threadsafe(where.set_result, found),
            )
        )
        loops.append((asyncio.get_running_loop(), work))
        await asyncio.gather(work, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(node()))
    thread.start()
    found = await asyncio.wait_for(where, 20)
    async with connect(f"{found.url}/ws/room?id=alice") as alice:
        ((loop, work),) = loops
        loop.call_soon_threadsafe(work.cancel)
        assert await close_code(alice) == 1012
    await in_thread(thread.join, 20)
    assert not thread.is_alive()


@async_test
async def test_an_embedded_redis_lives_as_long_as_its_node() -> None:
    """Other programs can use it meanwhile, and it leaves no folder behind."""
    async with running(NodeSettings(redis="embedded", port=0, timing=FAST)) as (where, _):
        assert where.embedded is not None
        socket = Path(where.embedded.path)
        async with Publisher(where.embedded.url) as publisher:
            assert [node.id for node in await publisher.nodes()] == [where.node_id]
    assert not socket.parent.exists()


@async_test
async def test_a_start_that_fails_raises_and_leaves_no_task() -> None:
    """Redis is away: the pool's error is raised, and no port stays open."""
    with pytest.raises(BackplaneUnavailableError):
        await run(NodeSettings(redis="redis://127.0.0.1:1", port=0))


@async_test
async def test_every_listener_reports_its_address(own_server: RedisServer) -> None:
    """Free ports are named; an IPv6 host is in brackets."""

    async def app(pool: ClusterPool, connection: Connection) -> None:
        await connection.wait_closed()

    settings = NodeSettings(
        redis=own_server.url, port=0, admin_port=0, agent_port=0, host="::1", app=app, timing=FAST
    )
    async with running(settings) as (where, _):
        assert where.url == f"ws://[::1]:{where.port}"
        assert where.admin_port
        assert where.agent_port
        assert len({where.port, where.admin_port, where.agent_port}) == 3
        async with connect(f"{where.url}/ws/room?id=alice"):
            pass
