"""A call in the wrong thread or loop is refused at once, and does no harm."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cluster_pool import (
    ClusterPool,
    Connection,
    ConnectionsPool,
    PoolClosedError,
    Publisher,
    SendResult,
    WrongLoopError,
)
from cluster_pool.core.results import NodeState
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test, eventually

Calls = dict[str, Callable[[], Any]]


def sending_calls(pool: Any) -> Calls:
    """Calls of both pools and of a publisher."""
    return {
        "send": lambda: pool.send("n", "alice", "x"),
        "send_json": lambda: pool.send_json("n", "alice", 1),
        "send_then_close": lambda: pool.send_then_close("n", "alice", "x"),
        "send_json_then_close": lambda: pool.send_json_then_close("n", "alice", 1),
        "broadcast_message": lambda: pool.broadcast_message("n", "x"),
        "broadcast_json_message": lambda: pool.broadcast_json_message("n", 1),
        "close": lambda: pool.close("n", "alice"),
        "close_all": lambda: pool.close_all("n"),
    }


def reading_calls(pool: Any) -> Calls:
    """Calls of a ClusterPool and of a publisher."""
    return {
        "count": lambda: pool.count("n"),
        "members": lambda: anext(pool.members("n")),
        "namespaces": pool.namespaces,
        "nodes": pool.nodes,
        "locate": lambda: pool.locate("n", "alice"),
        "watching": lambda: pool.watching("n").__aenter__(),
        "watch": lambda: anext(pool.watch("n")),
        "drain_node": lambda: pool.drain_node("node-2"),
        "pause_drain": lambda: pool.pause_drain("node-2"),
        "resume_drain": lambda: pool.resume_drain("node-2"),
        "cancel_drain": lambda: pool.cancel_drain("node-2"),
        "activate": lambda: pool.activate("node-2"),
        "drains": pool.drains,
        "drain_budget": pool.drain_budget,
        "set_drain_budget": lambda: pool.set_drain_budget(5),
        "start": pool.start,
        "stop": pool.stop,
    }


def holding_calls(pool: Any, member: Connection) -> Calls:
    """Calls about connections, of both pools."""
    return {
        "new_connection": lambda: pool.new_connection(Connection("b", "n", FakeWebSocket())),
        "remove_connection": lambda: pool.remove_connection(member),
        "drain_connections": pool.drain_connections,
    }


def node_calls(pool: ClusterPool, member: Connection) -> Calls:
    """Calls of a ClusterPool alone."""
    return {
        "accept": lambda: pool.accept(FakeWebSocket(), namespace="n", id="c").__aenter__(),
        "wait_ready": pool.wait_ready,
        "publish_inbound": lambda: pool.publish_inbound(member, "x"),
        "publish_from": lambda: pool.publish_from(member, "n", "x"),
        "alone": pool.alone,
        "hurry_drain": pool.hurry_drain,
        "send_nowait": lambda: pool.send_nowait("n", "alice", "x"),
    }


def connection_calls(member: Connection) -> Calls:
    """Calls of users on a connection."""
    return {
        "send": lambda: member.send("x"),
        "send_json": lambda: member.send_json(1),
        "send_then_close": lambda: member.send_then_close("x"),
        "send_json_then_close": lambda: member.send_json_then_close(1),
        "close": member.close,
        "feed": lambda: member.feed("x"),
        "run": member.run,
        "wait_closed": member.wait_closed,
        "iteration": lambda: anext(aiter(member)),
    }


async def refused_everywhere(calls: Calls) -> None:
    """Check them in a thread without a loop, where nothing can be awaited, and in another loop."""
    for name, call in calls.items():

        async def in_own_loop(call: Callable[[], Any] = call) -> None:
            made = call()
            if isinstance(made, Awaitable):
                await made

        (outcome,) = await asyncio.gather(
            asyncio.to_thread(asyncio.run, in_own_loop()), return_exceptions=True
        )
        assert isinstance(outcome, WrongLoopError), f"{name}: {outcome!r}"
        assert "run_coroutine_threadsafe" in str(outcome)
        assert "SyncPublisher" in str(outcome)


@async_test
async def test_a_cluster_pool_refuses_and_goes_on() -> None:
    """Each public call; afterwards all works as before."""
    async with Backend(None).pools() as (one, two):
        alice = await one.host("n", "alice")
        bob = await two.host("n", "bob")
        member = alice.connection  # type: ignore[attr-defined]
        await refused_everywhere(
            sending_calls(one)
            | reading_calls(one)
            | holding_calls(one, member)
            | node_calls(one, member)
        )
        await refused_everywhere(connection_calls(member))
        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(one.send_nowait, "n", "alice", "x")
        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(one.hurry_drain)
        assert (alice.sent, bob.sent, alice.closed) == ([], [], None)
        assert await one.send("n", "alice", "1") is SendResult.DELIVERED
        assert await one.send("n", "bob", "2", confirm=True) is SendResult.DELIVERED
        assert await two.send("n", "alice", "3", confirm=True) is SendResult.DELIVERED
        assert await one.broadcast_message("n", "4") == 2
        await alice.wait_sent(3)
        await bob.wait_sent(2)
        assert one.ready
        assert one.statistics()["pending"] == 0


@async_test
async def test_a_publisher_refuses_and_goes_on() -> None:
    """The same without connections."""
    backend = Backend(None)
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        alice = await one.host("n", "alice")
        await refused_everywhere(sending_calls(publisher) | reading_calls(publisher))
        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(publisher.send_nowait, "n", "alice", "x")
        assert await publisher.send("n", "alice", "1", confirm=True) is SendResult.DELIVERED
        assert await alice.wait_sent() == ["1"]


@async_test
async def test_a_local_pool_refuses_and_goes_on() -> None:
    """Its loop is the one in which its connections came."""
    async with ConnectionsPool() as pool:
        alice = FakeWebSocket()
        member = Connection("alice", "n", alice)
        await pool.new_connection(member)
        await refused_everywhere(sending_calls(pool) | holding_calls(pool, member))
        await refused_everywhere({"pause_drain": pool.pause_drain, "cancel": pool.cancel_drain})
        await refused_everywhere(connection_calls(member))
        assert await pool.send("n", "alice", "1") is SendResult.DELIVERED
        assert await alice.wait_sent() == ["1"]


def test_an_empty_local_pool_may_be_used_in_one_loop_after_another() -> None:
    """Tests of a program use a module's pool in this way."""
    pool = ConnectionsPool()

    async def use() -> None:
        alice = FakeWebSocket()
        member = Connection("alice", "n", alice)
        await pool.new_connection(member)
        assert await pool.send("n", "alice", "1")
        assert await alice.wait_sent() == ["1"]
        await pool.remove_connection(member)

    for _ in range(2):
        asyncio.run(use())


def test_a_loop_that_ended_with_unwritten_messages_does_not_block_others() -> None:
    """Connections without a pool: messages that one loop left unwritten do not delay the next."""
    late = FakeWebSocket()

    async def leave() -> None:
        await Connection("a", "n", FakeWebSocket()).send("never written")
        asyncio.get_running_loop().stop()

    async def use() -> None:
        assert await Connection("b", "n", late).send("x") is SendResult.DELIVERED
        assert await late.wait_sent() == ["x"]

    loop = asyncio.new_event_loop()
    leaving = loop.create_task(leave())
    loop.run_forever()
    assert leaving.done()
    loop.close()
    asyncio.run(use())


@async_test
async def test_calls_that_only_read_work_in_any_thread() -> None:
    """``ready``, ``statistics``, ``has_namespace``, ``on``, ``closed`` and ``metadata``."""
    async with Backend(None).pools(1) as (one,):
        alice = await one.host("n", "alice")
        member = alice.connection  # type: ignore[attr-defined]

        def look() -> tuple[Any, ...]:
            one.on("state", lambda state: None)
            member.on("close", lambda code, reason: None)
            return (
                one.ready,
                one.statistics()["connections"],
                one.has_namespace("n"),
                one.has_namespace("m"),
                member.closed,
                member.metadata,
                one.get_connection("n", "alice") is member,
            )

        assert await asyncio.to_thread(look) == (True, 1, True, False, False, {}, True)
        draining = asyncio.create_task(one.drain_connections(1, announce=30, grace=60))
        await eventually(lambda: one.state is NodeState.ANNOUNCING)
        assert (await asyncio.to_thread(one.statistics))["drain"] is not None
        await one.cancel_drain()
        await draining


def test_calls_that_only_read_work_before_the_start() -> None:
    """They report nothing; all other calls raise that the pool was not started."""
    pool = ClusterPool("redis://localhost:1", node_id="a")
    pool.on("gap", print)
    assert pool.ready is False
    assert pool.has_namespace("n") is False
    assert pool.statistics()["connections"] == 0
    assert pool.statistics()["state"] == "stopped"
    with pytest.raises(PoolClosedError):
        pool.get_connection("n", "alice")
    with pytest.raises(PoolClosedError):
        pool.send_nowait("n", "alice", "x")
    with pytest.raises(PoolClosedError):
        Publisher("redis://localhost:1").send_nowait("n", "alice", "x")


@async_test
async def test_statistics_have_the_same_fields_before_during_and_after() -> None:
    """A reader need not know whether the node runs."""
    pool = ClusterPool(Backend(None).redis(), node_id="a")
    before = pool.statistics()
    async with pool:
        during = pool.statistics()
    assert set(before) == set(during) == set(pool.statistics())
