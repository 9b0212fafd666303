"""Foreign content in our keys: the fault stays within its namespace, and is repaired."""

import logging

import pytest

from cluster_pool import BackplaneUnavailableError, Member, SendResult
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually

LONG = b"s.0:1795412345678901:" + b"z" * 300
CLAIMS = [b"garbage", b"a:b:c", b"", LONG, b"\xff\xfe:1:a", b"s.0:99999999999999999999:a"]
INSIDE = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: repr(claim[:12]))


async def lose_lease(backend: Backend, pool: Pool) -> None:
    """Make a node rejoin, which asserts all that it holds."""
    async with backend.client() as client:
        await client.zrem(f"{backend.prefix}:{{~}}:leases", pool.statistics()["incarnation"])


async def right(one: Pool, two: Pool) -> bool:
    """Whether both namespaces are what the nodes hold, and every call about them answers."""
    try:
        everyone = [
            [member async for member in two.members(namespace)] for namespace in ("room", "poor")
        ]
    except BackplaneUnavailableError:  # WRONGTYPE: not mended yet
        return False
    return (
        one.ready
        and everyone == [[Member("alice", "node-1")], [Member("x", "node-1")]]
        and [await two.count(namespace) for namespace in ("room", "poor")] == [1, 1]
        and await two.locate("poor", "x") == Member("x", "node-1")
        and await two.namespaces() == ["poor", "room"]
        and [node.id for node in await two.nodes()] == ["node-1", "node-2"]
        and await two.send("poor", "x", "hello", confirm=True) is SendResult.DELIVERED
    )


@INSIDE
@async_test
async def test_a_malformed_claim_does_not_keep_its_node_from_rejoining(
    backend: Backend, claim: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads skip it, the rejoin writes it anew, and one line of the log reports it."""
    async with backend.pools() as (one, two), backend.client() as client:
        alice, x = await one.host("room", "alice"), await one.host("poor", "x")
        await client.hset(f"{backend.prefix}:{{poor}}:members", "x", claim)
        assert await two.locate("poor", "x") is None
        assert [member async for member in two.members("poor")] == []
        assert await two.count("poor") == 1
        with caplog.at_level(logging.WARNING):
            await lose_lease(backend, one)
            await eventually(lambda: right(one, two), 9)
        said = [text for text in caplog.messages if "not as this library" in text]
        assert len(said) <= 1
        assert said or any("drifted" in text for text in caplog.messages)
        assert one.statistics()["rejoins"] == 1
        assert alice.closed is None
        assert x.closed is None


@INSIDE
@async_test
async def test_a_claim_overwrites_a_malformed_one(backend: Backend, claim: bytes) -> None:
    """Under ``reject``, too: the id counts as free."""
    async with backend.pools() as (one, two), backend.client() as client:
        await client.hset(f"{backend.prefix}:{{poor}}:members", "x", claim)
        await two.host("poor", "x", on_conflict="reject")
        assert await one.locate("poor", "x") == Member("x", "node-2")
        assert await one.count("poor") == 1


@pytest.mark.parametrize("key", ["members", "owners", "emptied", "numbers"])
@async_test
async def test_a_key_of_a_wrong_type_does_not_keep_its_node_from_rejoining(
    backend: Backend, key: str
) -> None:
    """The script that needs it deletes it; a broadcast's numbers begin anew."""
    async with backend.pools() as (one, two), backend.client() as client:
        alice, x = await one.host("room", "alice"), await one.host("poor", "x")
        name = f"{backend.prefix}:{{poor}}:{key}"
        await client.delete(name)
        await client.rpush(name, "oops")
        await lose_lease(backend, one)
        await eventually(lambda: right(one, two), 9)
        assert await two.broadcast_message("poor", "all") == 1
        await x.wait_sent(2)
        assert alice.closed is None
        await one.remove_connection(x.connection)  # type: ignore[attr-defined]
        assert await two.count("poor") == 0


@async_test
async def test_owners_counts_that_are_not_numbers_are_counted_anew(backend: Backend) -> None:
    """A claim's script finds them half-way, and is executed completely all the same."""
    async with backend.pools() as (one, two), backend.client() as client:
        await one.host("poor", "x")
        name = f"{backend.prefix}:{{poor}}:"
        await client.hset(f"{name}owners", one.statistics()["incarnation"], "many")
        await one.host("poor", "y")
        await one.broadcast_message("poor", "counted")
        await client.hset(f"{name}numbers", mapping={"last": "x", "epoch": "y"})
        assert await two.broadcast_message("poor", "counted") == 1
        await eventually(lambda: _counts(two, 2), 9)


async def _counts(pool: Pool, count: int) -> bool:
    return await pool.count("poor") == count
