"""A node whose Redis is watched by Sentinels: it moves to the primary that they name."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio.sentinel import Sentinel

from cluster_pool import BackplaneUnavailableError, Gap, Publisher, SendResult, Timing
from tests.backplane.stub_sentinel import StubSentinel
from tests.cli.commands import run
from tests.clusters import Backend, Pool
from tests.servers import BINARIES, PASSWORD, RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess
from tools.harness.ports import free_port
from tools.harness.redis_sentinel import RedisSentinel

pytestmark = pytest.mark.real

NOTICED = 3.5
"""Seconds within which a node must have left a former primary."""
HEALED = 5.0
"""Seconds after which everything must be as it was, once there is a primary."""
TIMEOUT = Timing().timeout


@pytest.fixture(params=list(BINARIES))
def watched(request: pytest.FixtureRequest) -> Iterator[RedisSentinel]:
    """A primary and its replica, under the shipped rights, and three Sentinels."""
    make = functools.partial(RedisServer, request.param)
    with RedisSentinel(make, program=BINARIES[request.param]) as redis:
        yield redis


@contextlib.asynccontextmanager
async def _two(redis: object) -> AsyncIterator[tuple[Pool, Pool]]:
    """Two nodes with the times that are the default."""
    async with contextlib.AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(Pool(redis, node_id=id, timing=Timing(close=1.0)))  # type: ignore[arg-type]
            for id in ("node-1", "node-2")
        ]
        yield pools[0], pools[1]


async def _whole(*pools: Pool) -> bool:
    """Whether each node is ready and the registry has all their members."""
    try:
        registered = {(one.id, one.node) async for one in pools[0].members("n", timeout=1)}
    except BackplaneUnavailableError:
        return False
    held = {(id, pool.node_id) for pool in pools for id in (pool._parts.table.namespace("n") or {})}
    return all(pool.ready for pool in pools) and registered == held


class Stream:
    """Numbered messages to one member, one after another; each is confirmed, or an error."""

    def __init__(self, pool: Pool, id: str) -> None:
        self.delivered: list[str] = []
        self.failed: list[float] = []
        self._pool = pool
        self._id = id
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        for number in range(100_000):
            began = time.monotonic()
            try:
                result = await self._pool.send("n", self._id, str(number), confirm=True)
            except BackplaneUnavailableError:
                self.failed.append(time.monotonic() - began)
            else:
                if result is SendResult.DELIVERED:
                    self.delivered.append(str(number))
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.slow
@async_test
async def test_a_failover_by_order_is_noticed_and_healed(watched: RedisSentinel) -> None:
    """Both servers live. No client is closed, confirmed messages have arrived, claims exist; there
    is no gap where nothing was missed."""
    async with _two(watched.url) as (one, two):
        assert one.address == watched.url.replace(PASSWORD, "***") + "/0"
        alice, bob = await one.host("n", "alice"), await two.host("n", "bob")
        gaps: list[Gap] = []
        for pool in (one, two):
            pool.on("gap", gaps.append)
        assert await one.broadcast_message("n", "counted") == 2
        stream = Stream(one, "bob")
        await eventually(lambda: len(stream.delivered) > 10)
        generations = [pool.statistics()["generations"] for pool in (one, two)]
        old = watched.primary
        began = time.monotonic()
        failover = asyncio.create_task(asyncio.to_thread(watched.failover))
        await eventually(
            lambda: generations < [pool.statistics()["generations"] for pool in (one, two)],
            seconds=20,
        )
        new = await failover
        promoted = time.monotonic()
        assert new is not old
        await eventually(lambda: _whole(one, two), seconds=20)
        healed = time.monotonic()
        assert healed - promoted < HEALED, (promoted - began, healed - promoted)
        before = len(stream.delivered)
        await eventually(lambda: len(stream.delivered) > before + 10)
        await stream.end()
        assert set(stream.delivered) <= set(bob.sent)
        assert all(seconds < 3 * TIMEOUT for seconds in stream.failed)
        assert alice.closed is None
        assert bob.closed is None
        await one.broadcast_message("n", "after")
        await alice.wait_sent()
        await eventually(lambda: alice.sent[-1] == bob.sent[-1] == "after")
        assert not any("n" in gap.namespaces for gap in gaps), "its broadcasts were all heard"


@pytest.mark.slow
@async_test
async def test_a_primary_that_dies_or_freezes_is_replaced(watched: RedisSentinel) -> None:
    """Operations fail in time until the Sentinels name another; then everything works again."""
    async with _two(watched.url) as (one, two):
        alice, bob = await one.host("n", "alice"), await two.host("n", "bob")
        for harm in ("kill", "freeze"):
            stream = Stream(one, "bob")
            await eventually(lambda: len(stream.delivered) > 10)  # noqa: B023
            old = watched.primary
            getattr(old.server, harm)()
            await asyncio.to_thread(watched.wait_for_another, old)
            promoted = time.monotonic()
            await eventually(lambda: _whole(one, two), seconds=20)
            assert time.monotonic() - promoted < HEALED
            before = len(stream.delivered)
            await eventually(lambda: len(stream.delivered) > before + 10)  # noqa: B023
            await stream.end()
            assert stream.failed
            assert all(seconds < 3 * TIMEOUT for seconds in stream.failed)
            assert set(stream.delivered) <= set(bob.sent)
            assert (alice.closed, bob.closed) == (None, None)
            if harm == "kill":
                await asyncio.to_thread(old.server.start)
                await asyncio.to_thread(watched.wait_until_whole)
            else:
                old.server.thaw()


@pytest.mark.slow
@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_a_former_primary_that_goes_on_is_left(flavour: str) -> None:
    """It answers, and its subscribers hear themselves: the Sentinels alone know of the other.

    What it held is asserted at the new one, which has never heard of it.
    """
    ports = [free_port(), free_port()]
    with (
        RedisServer(flavour, "--port", str(ports[0])) as old,
        RedisServer(flavour, "--port", str(ports[1])) as new,
    ):
        stubs = [StubSentinel(("127.0.0.1", ports[0]), 1) for _ in range(3)]
        async with contextlib.AsyncExitStack() as stack:
            for stub in stubs:
                await stack.enter_async_context(stub)
            places = ",".join(f"127.0.0.1:{stub.port}" for stub in stubs)
            url = f"redis+sentinel://cluster_pool:{PASSWORD}@{places}/main"
            one, two = await stack.enter_async_context(_two(url))
            alice, bob = await one.host("n", "alice"), await two.host("n", "bob")
            assert len(Backend(old).keys_of("members")) == 1
            began = time.monotonic()
            for stub in stubs[1:]:  # one does not know it yet
                stub.where, stub.epoch = ("127.0.0.1", ports[1]), 2
            await eventually(lambda: _whole(one, two) if Backend(new).keys() else False, seconds=20)
            assert time.monotonic() - began < NOTICED
            assert len(Backend(new).keys_of("members")) == 1
            assert await one.send("n", "bob", "hello", confirm=True) is SendResult.DELIVERED
            assert (alice.closed, bob.closed) == (None, None)


@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_a_client_that_asks_sentinels(flavour: str) -> None:
    """Its node lives on the primary that they name, also when the client is dropped."""
    make = functools.partial(RedisServer, flavour)
    with RedisSentinel(make, program=BINARIES[flavour]) as redis:
        places = [("localhost", one.port) for one in redis.sentinels]
        login = {"username": "cluster_pool", "password": PASSWORD}
        asking = Sentinel(places)
        client = asking.master_for(redis.service, **login)
        pool = Pool(client, node_id="node-1")
        del client
        async with pool:
            assert await pool.host("n", "a") is not None
            async with Publisher(asking.master_for(redis.service, **login)) as publisher:
                assert await publisher.count("n") == 1
                assert publisher.address == pool.address
            shown = ",".join(f"localhost:{port}" for _, port in places)
            where = f"redis+sentinel://cluster_pool:***@{shown}/{redis.service}/0"
            assert pool.address == where
        for one in asking.sentinels:
            await one.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("flavour", BINARIES)
@async_test
async def test_serve_and_the_command_line_under_sentinels(flavour: str) -> None:
    """A client stays connected over a failover, and is reached before and after it."""
    make = functools.partial(RedisServer, flavour)
    with RedisSentinel(make, program=BINARIES[flavour]) as redis, NodeProcess(redis.url) as node:
        assert node.listening["redis"] == redis.url.replace(PASSWORD, "***") + "/0"
        async with node.connect("n", "alice") as client:

            async def send(text: str) -> int:
                command = ("send", "n", "alice", text, "--confirm", "--timeout", "20")
                status, *_ = await asyncio.to_thread(run, *command, redis=redis.url)
                return status

            assert await send("before") == 0
            new = await asyncio.to_thread(redis.failover)
            await eventually(lambda: new.call("PUBSUB", "CHANNELS", "*}:start:*"), 20)
            await eventually(lambda: node.get("/readyz")[0] == 200, 20)
            assert await send("after") == 0
            assert [await client.recv(), await client.recv()] == ["before", "after"]
