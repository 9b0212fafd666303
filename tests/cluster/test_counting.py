"""The counts of a node: sends, newcomers, closes, bytes and rejoins, by results and reasons."""

import json
from collections.abc import Awaitable

import pytest

from cluster_pool import BackplaneUnavailableError, ClusterPoolError
from cluster_pool.core.statistics import Counters
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, connection_of
from tests.servers import RedisServer
from tests.support import async_test, eventually


def told(counters: Counters, *names: str) -> list[int]:
    """Some of the counters."""
    return [counters.as_dict()[name] for name in names]


@async_test
async def test_sends_are_counted_by_their_first_answer() -> None:
    """Where they were called: at this node, at the owner's, at none."""
    names = [f"sends_{result}" for result in ("delivered", "routed", "absent", "refused")]
    async with Backend(None).pools(2) as (here, there):
        await here.host("room", "alice")
        await there.host("room", "bob")
        assert await here.send("room", "alice", "x")
        assert await here.send("room", "bob", "x")
        assert await here.send("room", "bob", "x", confirm=True)
        assert await here.close("room", "bob")
        assert not await here.send("room", "nobody", "x")
        assert told(here.counters, *names) == [1, 3, 1, 0]
        assert told(there.counters, *names) == [0, 0, 0, 0]
        await here.broadcast_message("room", "x")
        assert told(here.counters, "broadcasts", "broadcasts_failed") == [1, 0]


@async_test
async def test_bytes_and_messages_are_counted_in_both_directions() -> None:
    """The payloads of messages, those of a broadcast once for each member."""
    async with Backend(None).pools(1) as (pool,):
        members = [await pool.host("room", f"id-{number}") for number in range(3)]
        await pool.send("room", "id-0", "12345")
        await eventually(lambda: members[0].sent == ["12345"])
        assert told(pool.counters, "delivered", "delivered_bytes") == [1, 5]
        await pool.broadcast_message("room", "12345")
        await eventually(lambda: all(one.sent for one in members))
        assert told(pool.counters, "delivered", "delivered_bytes") == [4, 20]
        for message in ("abc", "äß", b"\x00\x01"):
            await connection_of(members[0]).feed(message)
        assert told(pool.counters, "received", "received_bytes") == [3, 3 + 4 + 2]


@async_test
async def test_closes_are_counted_by_code() -> None:
    """Each connection once, and the codes of an application together."""
    async with Backend(None).pools(1) as (pool,):
        codes = {"a": 1000, "b": 4409, "c": 4001, "d": 3999}
        for id, code in codes.items():
            await pool.host("room", id)
            await pool.close("room", id, code)
        await pool.host("room", "left")
        connection_of(await pool.host("room", "gone"))
    closes = {code: count for code, count in pool.counters.closes.items() if count}
    assert closes == {"1000": 1, "4409": 1, "other": 2, "1012": 2}
    json.dumps(pool.statistics())


async def refused(call: Awaitable[FakeWebSocket]) -> None:
    """A newcomer is refused."""
    with pytest.raises(ClusterPoolError):
        await call


@async_test
async def test_newcomers_are_counted_by_the_reason_of_their_refusal(
    own_server: RedisServer,
) -> None:
    """The id is another's; Redis is away; the node drains. A rejoin has its reason, too."""
    names = "ids_taken", "unserved", "draining_refused", "sends_failed", "broadcasts_failed"
    async with Backend(own_server).pools(1, on_conflict="reject") as (pool,):
        await pool.host("room", "alice")
        await refused(pool.host("room", "alice"))
        assert told(pool.counters, *names) == [1, 0, 0, 0, 0]
        own_server.kill()
        await eventually(lambda: not pool.ready)
        await refused(pool.host("room", "bob", timeout=0.1))
        with pytest.raises(BackplaneUnavailableError):
            await pool.send("room", "nobody", "x", timeout=0.1)
        with pytest.raises(BackplaneUnavailableError):
            await pool.broadcast_message("room", "x", timeout=0.1)
        assert told(pool.counters, *names) == [1, 1, 0, 1, 1]
        own_server.start()
        await eventually(lambda: pool.ready and pool.counters.rejoins)
        reasons = pool.counters.rejoin_reasons
        assert sum(reasons.values()) == pool.counters.rejoins
        await pool.drain_connections(max_per_second=100, force=True)
        await refused(pool.host("room", "carol"))
        assert told(pool.counters, *names) == [1, 1, 1, 1, 1]
