"""Publishers: sending without connections, with and without an event loop."""

import asyncio
import threading

import pytest

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPool,
    Member,
    NodeUnreachableError,
    PoolClosedError,
    Publisher,
    SendResult,
    SyncPublisher,
)
from tests.clusters import Backend
from tests.servers import RedisServer
from tests.support import async_test


@async_test
async def test_a_publisher_reaches_members(backend: Backend) -> None:
    """Targeted with and without confirm, broadcast, close; it is not listed as a node."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        alice = await one.host("n", "alice")
        bob = await two.host("n", "bob")
        assert await publisher.send("n", "alice", "1") is SendResult.ROUTED
        assert await publisher.send("n", "bob", b"2", confirm=True) is SendResult.DELIVERED
        assert await publisher.broadcast_message("n", "3", exclude="alice") == 2
        assert await bob.wait_sent(2) == [b"2", "3"]
        assert await alice.wait_sent() == ["1"]
        assert await publisher.close("n", "bob", confirm=True) is SendResult.DELIVERED
        assert (await bob.wait_closed())[0] == 1000
        assert [node.id for node in await publisher.nodes()] == ["node-1", "node-2"]


@async_test
async def test_a_publisher_sends_without_waiting(backend: Backend) -> None:
    """In the order of the calls, as a pool does; the futures give the results."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        alice = await one.host("n", "alice")
        futures = [publisher.send_nowait("n", id, "hi") for id in ("alice", "nobody", "alice")]
        results = await asyncio.gather(*futures)
        assert results == [SendResult.ROUTED, SendResult.ABSENT, SendResult.ROUTED]
        assert await alice.wait_sent(2) == ["hi", "hi"]


@pytest.mark.parametrize("kind", [Publisher, ClusterPool])
@async_test
async def test_nothing_works_before_the_start(kind: type[Publisher] | type[ClusterPool]) -> None:
    """All calls raise PoolClosedError; a stop does nothing."""
    one = kind("redis://127.0.0.1:1")
    with pytest.raises(PoolClosedError):
        one.send_nowait("n", "i", "x")
    asked = (
        one.send("n", "i", "x"),
        one.send("n", "i", "x", confirm=True),
        one.broadcast_message("n", "x"),
        one.close("n", "i"),
        one.count("n"),
        one.nodes(),
        one.namespaces(),
        one.drains(),
    )
    for call in asked:
        with pytest.raises(PoolClosedError):
            await call
    with pytest.raises(PoolClosedError):
        await anext(one.members("n"))
    await one.stop()


@async_test
async def test_publishers_leave_nothing_in_redis(own_server: RedisServer) -> None:
    """Thousands a day may come and go: no key, and no script except the shared ones."""
    backend = Backend(own_server)

    def scripts() -> str:
        told = own_server.command("INFO", "memory")
        return next(line for line in told.splitlines() if line.startswith("number_of_cached"))

    async with backend.publisher():
        pass
    before = scripts()
    for _ in range(5):
        async with backend.publisher() as publisher:
            await publisher.broadcast_message("n", "x")
    assert scripts() == before
    assert backend.leaked() == []


@async_test
async def test_a_node_that_does_not_answer_times_out(own_server: RedisServer) -> None:
    """Redis delivered the message, but the owner does not answer."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        await one.host("n", "alice")
        await one._parts.dispatcher.stop()
        result = await publisher.send("n", "alice", "x", confirm=True, timeout=1.5)
        assert result is SendResult.TIMED_OUT
        assert not result


@async_test
async def test_an_unreachable_redis_is_named_without_its_password() -> None:
    """The error has its address."""
    with pytest.raises(BackplaneUnavailableError, match=r"redis://user:\*\*\*@127\.0\.0\.1:1/0"):
        await Publisher("redis://user:s3cret@127.0.0.1:1/0").start()


def test_a_sync_publisher(own_server: RedisServer) -> None:
    """The same from a thread without a loop; it ends its own."""
    backend = Backend(own_server)
    done = asyncio.Event()
    ready: list[asyncio.AbstractEventLoop] = []

    async def node() -> None:
        async with backend.pools(1) as (one,):
            alice = await one.host("n", "alice")
            ready.append(asyncio.get_running_loop())
            assert await alice.wait_sent(3, 20) == ["a", '{"b":1}', "c"]
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(node()))
    thread.start()
    try:
        while not ready:
            thread.join(0.01)
        with SyncPublisher(own_server.url) as publisher:
            assert publisher.send("n", "alice", "a", confirm=True) is SendResult.DELIVERED
            assert publisher.send_json("n", "alice", {"b": 1}) is SendResult.ROUTED
            assert publisher.broadcast_message("n", "c") == 1
            assert publisher.count("n") == 1
            assert list(publisher.members("n")) == [Member("alice", "node-1")]
            assert publisher.locate("n", "alice") == Member("alice", "node-1")
            assert publisher.namespaces() == ["n"]
            assert publisher.close("n", "nobody") is SendResult.ABSENT
            publisher.set_drain_budget(7)
            assert publisher.drain_budget() == 7
            publisher.set_drain_budget(None)
            publisher.drain_node("node-1", 0.001, announce=0, force=True)
            publisher.pause_drain("node-1")
            publisher.resume_drain("node-1")
            assert {drain.node for drain in publisher.drains()} <= {"node-1"}
            publisher.cancel_drain("node-1")
            with pytest.raises(NodeUnreachableError):
                publisher.activate("nobody")
        with pytest.raises(PoolClosedError):
            publisher.count("n")
    finally:
        ready[0].call_soon_threadsafe(done.set)
        thread.join()
    assert not [one for one in threading.enumerate() if one.name.startswith("cluster_pool")]


def test_a_sync_publisher_without_redis() -> None:
    """The caller gets the error, and nothing is left behind."""
    publisher = SyncPublisher("redis://127.0.0.1:1/0")
    with pytest.raises(BackplaneUnavailableError):
        publisher.count("n")
    publisher.stop()
    assert not [one for one in threading.enumerate() if one.name.startswith("cluster_pool")]
