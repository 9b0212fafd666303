"""Starts and stops: the stop wins at every tick, ends by itself, and leaves nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPool,
    ClusterPoolError,
    Connection,
    NodeIdTakenError,
    NodeState,
    PoolClosedError,
    Publisher,
    SendResult,
)
from cluster_pool.backplane.command_connection import Argument
from cluster_pool.backplane.generation import Generations
from cluster_pool.cluster.life import Life, in_turn
from cluster_pool.testing import FAST, FakeWebSocket
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually

MAX_TICKS = 200_000
"""A tick may be so short that a busy machine makes thousands of them before Redis answers."""


def pool_of(backend: Backend) -> Pool:
    """Not started."""
    return Pool(backend.redis(), node_id="node-1", prefix=backend.prefix, timing=FAST)


def ours() -> list[str]:
    """Tasks of a pool or publisher."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return sorted(name for name in names if name.startswith("cluster_pool"))


@pytest.mark.parametrize("make", [pool_of, Backend.publisher])
@async_test
async def test_a_stop_wins_at_every_tick_of_a_start(
    backend: Backend, make: Callable[[Backend], Any]
) -> None:
    """The start raises PoolClosedError; no task, no lease, no key; then it can be started again."""
    one = make(backend)
    ticks = 0
    while True:
        start = asyncio.create_task(one.start())
        for _ in range(ticks):
            await asyncio.sleep(0)
        done = start.done()
        await one.stop()
        assert ours() == []
        assert backend.leaked() == []
        if done:
            break
        with pytest.raises(PoolClosedError):
            await start
        ticks += 1 if ticks < 20 else max(7, ticks // 20)
        assert ticks < MAX_TICKS
    await start
    async with one:
        assert await one.count("n") == 0
    assert backend.leaked() == []


@pytest.mark.parametrize("wait", [None, 60])
@async_test
async def test_a_stop_ends_a_start_that_waits_for_a_silent_redis(
    own_server: RedisServer, wait: float | None
) -> None:
    """Long before its connect time-out, with ``wait`` or without."""
    async with own_server.network() as proxy:
        proxy.hold()
        for one in (ClusterPool(proxy.url), Publisher("redis://127.0.0.1:1")):
            start = asyncio.create_task(one.start(wait=wait or 60))
            await eventually(lambda: "cluster_pool shard" in ours())
            await asyncio.wait_for(one.stop(), 5)
            with pytest.raises(PoolClosedError):
                await asyncio.wait_for(start, 5)
            assert ours() == []


def calls(pool: Pool, member: Connection) -> dict[str, Any]:
    """One call of each kind that waits, with more time than any test has."""

    async def read(items: AsyncIterator[object]) -> None:
        async for _ in items:
            pass

    newcomer = Connection("new", "n", FakeWebSocket())
    return {
        "send": pool.send("n", "bob", "x", timeout=600),
        "confirmed": pool.send("n", "bob", "x", confirm=True, timeout=600),
        "broadcast": pool.broadcast_message("n", "x", timeout=600),
        "close_all": pool.close_all("other", timeout=600),
        "count": pool.count("n", timeout=600),
        "members": read(pool.members("n", timeout=600)),
        "nodes": pool.nodes(timeout=600),
        "namespaces": pool.namespaces(timeout=600),
        "locate": pool.locate("n", "bob", timeout=600),
        "join": pool.new_connection(newcomer, timeout=600),
        "leave": pool.remove_connection(member, timeout=600),
        "order": pool.cancel_drain("node-1", timeout=600),
        "drains": pool.drains(timeout=600),
        "watch": read(pool.watch("n")),
        "ready": pool.wait_ready(),
        "drain": pool.drain_connections(1, force=True),
        "inbound": pool.publish_inbound(member, "x"),
    }


@pytest.mark.parametrize("trouble", ["none", "mute", "silent", "away"])
@async_test
async def test_a_stop_ends_every_call_that_is_under_way(
    own_server: RedisServer, trouble: str
) -> None:
    """Each gets an answer or our error: none waits on, and none is cancelled."""
    backend = Backend(own_server)
    async with own_server.network() as proxy, backend.pools(1) as (two,):
        one = Pool(proxy.url, node_id="one", timing=FAST)
        await one.start()
        alice = await one.host("n", "alice")
        await two.host("n", "bob")
        events = asyncio.create_task(anext(one.watch("quiet")))
        if trouble == "mute":
            await two._parts.dispatcher.stop()
        if trouble in ("silent", "away"):
            proxy.hold()
        if trouble == "away":
            await eventually(lambda: not one._parts.backplane.shard.up)
        tasks = {
            name: asyncio.ensure_future(call) for name, call in calls(one, alice.connection).items()
        }
        tasks["events"] = events
        await asyncio.sleep(0.1)
        await one.stop()
        await asyncio.wait(tasks.values(), timeout=5)
        assert [name for name, task in tasks.items() if not task.done()] == []
        for task in tasks.values():
            assert not task.cancelled()
            assert isinstance(task.exception(), ClusterPoolError | None)
        if trouble == "mute":  # it was handed over: "stopped" would say that it was not
            assert tasks["confirmed"].result() is SendResult.TIMED_OUT
        proxy.heal()


@async_test
async def test_a_cancelled_start_leaves_nothing(backend: Backend) -> None:
    """At every tenth tick; one that another call waits for goes on."""
    one = pool_of(backend)
    ticks = 0
    while True:
        start = asyncio.create_task(one.start())
        for _ in range(ticks):
            await asyncio.sleep(0)
        if start.done():
            break
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        assert (ours(), backend.leaked()) == ([], [])
        assert one.state is NodeState.STOPPED
        ticks += 10
    await one.stop()
    first, second = asyncio.create_task(one.start()), asyncio.create_task(one.start())
    await asyncio.sleep(0)
    first.cancel()
    assert await second is one
    assert one.ready
    await one.stop()


@async_test
async def test_a_cancelled_stop_goes_on_by_itself(backend: Backend) -> None:
    """A second one waits for it; a third does nothing; then it can be started again."""

    class Stubborn(FakeWebSocket):
        async def close(self, code: int = 1000, reason: str = "") -> None:
            await asyncio.sleep(3600)

    one = pool_of(backend)
    await one.start()
    await one.new_connection(Connection("alice", "n", Stubborn()))
    stop = asyncio.create_task(one.stop())
    await asyncio.sleep(0.05)
    with pytest.raises(PoolClosedError, match="being stopped"):
        await one.start()
    stop.cancel()
    await asyncio.gather(stop, return_exceptions=True)
    assert "cluster_pool stop" in ours()
    await one.stop()
    assert (ours(), backend.leaked()) == ([], [])
    await one.stop()
    async with one:
        assert one.ready


@async_test
async def test_a_body_that_is_cancelled_leaves_the_cluster(backend: Backend) -> None:
    """``async with`` stops to the end, whatever ended its body."""
    entered = asyncio.Event()

    async def main() -> None:
        async with pool_of(backend) as one:
            await one.host("n", "alice")
            entered.set()
            await asyncio.sleep(3600)

    task = asyncio.create_task(main())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ours(), backend.leaked()) == ([], [])


@async_test
async def test_a_failed_start_leaves_nothing_behind(
    own_server: RedisServer,
) -> None:
    """For everybody who waited for it; and it can be tried again."""
    backend = Backend(own_server)
    one = pool_of(backend)
    own_server.kill()
    results = await asyncio.gather(*[one.start() for _ in range(3)], return_exceptions=True)
    assert [type(result) for result in results] == [BackplaneUnavailableError] * 3
    assert ours() == []
    own_server.start()
    async with one, one:
        assert one.ready
    assert backend.leaked() == []


@async_test
async def test_a_start_that_found_its_node_id_taken_takes_nothing_from_the_other(
    backend: Backend,
) -> None:
    """Its end removes no key of the node that has the id."""
    async with backend.pools(1) as (one,):
        before = set(backend.keys())
        with pytest.raises(NodeIdTakenError):
            await pool_of(backend).start()
        assert set(backend.keys()) == before
        assert one.node_id == "node-1"


@async_test
async def test_made_up_node_ids_are_of_the_start(backend: Backend) -> None:
    """None before the first start, another at each, and the last one's after the stop."""
    one = ClusterPool(backend.redis(), prefix=backend.prefix, timing=FAST)
    assert one.node_id == ""
    ids = []
    for _ in range(2):
        async with one:
            ids.append(one.node_id)
            assert [node.id for node in await one.nodes()] == [one.node_id]
    assert len(set(ids)) == 2
    assert one.node_id == ids[-1]
    assert pool_of(backend).node_id == "node-1"


def test_a_pool_lives_in_one_loop_after_another(own_server: RedisServer) -> None:
    """Also when the first loop was closed without a stop."""
    one = pool_of(Backend(own_server))
    asyncio.run(one.start())

    async def again() -> None:
        async with one:
            assert one.ready

    asyncio.run(again())


@async_test
async def test_every_step_of_a_stop_is_executed() -> None:
    """A step that fails does not skip later ones; its error is raised; a new start works."""
    done = []

    async def fail() -> None:
        raise ValueError("first")

    async def later() -> None:
        done.append(1)

    async def end() -> None:
        await in_turn(fail, later)

    life = Life(end)
    await life.start(later)
    for stop in (asyncio.create_task(life.stop()), asyncio.create_task(life.stop())):
        with pytest.raises(ValueError, match="first"):
            await stop
    assert done == [1, 1]
    await life.stop()
    await life.start(later)
    with pytest.raises(ValueError, match="first"):
        await life.stop()


@async_test
async def test_nodes_that_start_together_on_a_new_redis_keep_their_leases(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them takes the epoch of another, which is a moment old, for a restored one."""
    whole, held = Generations.call, asyncio.Event()

    async def slow_to_mark(generations: Generations, deadline: float, *words: Argument) -> Any:
        if words[:2] == ("SCRIPT", "LOAD") and not held.is_set():
            held.set()
            await asyncio.sleep(0.5)
        return await whole(generations, deadline, *words)

    monkeypatch.setattr(Generations, "call", slow_to_mark)
    first, second = (Pool(own_server.url, node_id=name, timing=FAST) for name in ("a", "b"))
    starting = asyncio.create_task(first.start())
    await held.wait()
    async with second:
        await starting
        renewed = [pool._parts.lease.renewed_at for pool in (first, second)]
        await eventually(
            lambda: all(
                pool._parts.lease.renewed_at > at
                for pool, at in zip((first, second), renewed, strict=True)
            )
        )
        assert [pool.statistics()["rejoins"] for pool in (first, second)] == [0, 0]
        await first.stop()
