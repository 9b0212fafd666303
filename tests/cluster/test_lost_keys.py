"""Each key that a living cluster relies on is lost or overwritten, and is right again in time."""

import asyncio
from dataclasses import replace as replace_timing
from typing import Any

import pytest
from redis import Redis

from cluster_pool import BackplaneUnavailableError, Member, SendResult, Timing
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually

SHORT = Timing(timeout=2.0, lease=1.5, heartbeat=0.4, probe=0.3, linger=0.1, close=1.0)
TARGET = 2 * SHORT.heartbeat
CLUSTER = ["leases", "incarnations", "nodes", "infos", "epoch", "headrooms", "dead"]
KEYS = [f"{{~}}:{key}" for key in CLUSTER] + [
    "{~}:namespaces:INCARNATION",
    "{~}:start:START:numbers",
    "{room}:members",
    "{room}:owners",
    "{room}:numbers",
]


def delete(client: Redis, key: str) -> None:
    """Delete the key, as an eviction or a mistake does."""
    client.delete(key)


def replace(client: Redis, key: str) -> None:
    """Replace it by another type."""
    client.delete(key)
    client.rpush(key, "oops")


def spoil(client: Redis, key: str) -> None:
    """Fill it with garbage of the same type."""
    kind = client.type(key)
    client.delete(key)
    if kind == b"zset":
        client.zadd(key, {"garbage": 9e15, b"\xff": 1})
    elif kind == b"set":
        client.sadd(key, "garbage", b"\xff")
    elif kind == b"string":
        client.set(key, "gar'bage")
    else:
        client.hset(key, mapping={"garbled": "a:b", "x y": b"\xff", b"\xff": "1", "last": "-"})


async def right(one: Pool, two: Pool, ids: list[str]) -> bool:
    """Whether every answer is true."""
    try:
        sends = await asyncio.gather(*[two.send("room", id, "x", confirm=True) for id in ids])
        listed = {member async for member in one.members("room")}
        return (
            one.ready
            and two.ready
            and set(sends) == {SendResult.DELIVERED}
            and listed == {Member(id, f"node-{id[0]}") for id in ids}
            and await one.count("room") == len(ids)
            and await two.namespaces() == ["room"]
            and [node.id for node in await two.nodes()] == ["node-1", "node-2"]
            and await two.broadcast_message("room", "all") == 2
        )
    except BackplaneUnavailableError:
        return False


async def right_in_time(pools: tuple[Pool, Pool], ids: list[str]) -> bool:
    """Whether every answer is true before each node has had three times the heartbeats it takes.

    Heartbeats are counted, not seconds: on a busy machine they come late, and so does the repair.
    """
    beats: list[set[float]] = [set(), set()]
    while min(map(len, beats)) <= 3 * TARGET / SHORT.heartbeat:
        for pool, times in zip(pools, beats, strict=True):
            times.add(pool._parts.lease.renewed_at)
        if await right(*pools, ids):
            return True
        await asyncio.sleep(0.01)
    return False


async def found(client: Redis, keys: list[str]) -> bool:
    """Whether every key that living nodes write about themselves exists."""
    return all(client.exists(key) for key in keys)


@pytest.mark.slow
@pytest.mark.parametrize("harm", [delete, replace, spoil])
@async_test
async def test_a_lost_key_is_right_again_within_two_heartbeats(backend: Backend, harm: Any) -> None:
    """No member is closed, newcomers are accepted, and a clean stop leaves nothing."""
    async with backend.pools(timing=SHORT) as (one, two):
        ids = [f"{node}-{at}" for node in (1, 2) for at in range(5)]
        sockets = [await (one if id[0] == "1" else two).host("room", id) for id in ids]
        with backend.sync_client() as client:
            for key in KEYS:
                incarnation = one.statistics()["incarnation"]
                start = one._parts.backplane.identity.start
                name = f"{backend.prefix}:{key}".replace("INCARNATION", incarnation)
                name = name.replace("START", start)
                harm(client, name)
                await asyncio.sleep(0.05)
                if not await right_in_time((one, two), ids):
                    pytest.fail(f"{harm.__name__} {key}: {client.type(name)!r}")
                late = await one.host("room", "1-late")
                await one.remove_connection(late.connection)  # type: ignore[attr-defined]
                assert [socket.closed for socket in sockets] == [None] * len(ids), key
        await asyncio.sleep(2 * SHORT.lease + SHORT.heartbeat)  # what was left there is swept


@async_test
async def test_a_lease_too_far_in_the_future_counts_as_over(backend: Backend) -> None:
    """A clock that was set forward and back leaves it: the dead node is reaped, the living stay."""
    async with backend.pools(timing=SHORT) as (one, two), backend.client() as client:
        await one.host("room", "alice")
        await two.host("room", "ghost")
        leases = f"{backend.prefix}:{{~}}:leases"
        ghost = two.statistics()["incarnation"]
        await two._parts.lease_keeper.stop()
        for incarnation in (ghost, one.statistics()["incarnation"]):
            await client.zincrby(leases, 3_600_000, incarnation)
        assert await one.count("room") == 2
        await eventually(lambda: _count(one, 1), 3 * (2 * SHORT.lease + SHORT.heartbeat))
        assert one.statistics()["rejoins"] == 0
        assert await one.locate("room", "alice") == Member("alice", "node-1")


async def _count(pool: Pool, count: int) -> bool:
    return await pool.count("room") == count


@async_test
async def test_data_of_unknown_incarnations_do_not_pile_up(backend: Backend) -> None:
    """Their leases were lost with their nodes; each key that names one is cleaned."""
    async with backend.pools(1, timing=SHORT) as (one,), backend.client() as client:
        await one.host("room", "alice")
        prefix = f"{backend.prefix}:{{~}}:"
        await client.hset(f"{prefix}incarnations", "gone.0", "node-9")
        await client.hset(f"{prefix}infos", "gone.1", "{}")
        await client.hset(f"{prefix}headrooms", "gone.2", "7")
        await client.hset(f"{prefix}nodes", "node-9", "gone.3")
        await client.sadd(f"{prefix}namespaces:gone.0", "room")
        await client.hset(f"{backend.prefix}:{{room}}:members", "ghost", "gone.0:1:a")
        await client.hset(f"{backend.prefix}:{{room}}:owners", mapping={"gone.0": 1, "gone.0#": 1})

        def swept() -> bool:
            with backend.sync_client() as reader:
                names = ("incarnations", "infos", "headrooms", "nodes")
                sizes = [reader.hlen(prefix + name) for name in names]
                return sizes == [1] * 4 and not reader.exists(
                    f"{prefix}namespaces:gone.0", f"{prefix}dead"
                )

        await eventually(swept, 3 * (2 * SHORT.lease + 2 * SHORT.heartbeat))
        assert [member.id async for member in one.members("room")] == ["alice"]


@async_test
async def test_members_of_a_dead_node_are_reaped_although_their_counts_are_lost(
    backend: Backend,
) -> None:
    """No other node has a member in the namespace and would compare it."""
    async with backend.pools(timing=SHORT) as (one, two), backend.client() as client:
        for id in ("x", "y", "z"):
            await two.host("room", id)
        await two._parts.lease_keeper.stop()
        await two._parts.reconciler.stop()
        await client.delete(f"{backend.prefix}:{{room}}:owners")
        await eventually(lambda: one.statistics()["reaped"] == 3, 3 * (2 * SHORT.lease))
        left = [key for key, ttl in backend.keys().items() if "{room}" in key and ttl < 0]
        assert left == []


@async_test
async def test_a_long_lease_survives_the_loss_of_its_length(backend: Backend) -> None:
    """Its node says so again at its next heartbeat, which others of shorter leases wait for."""
    slow = replace_timing(SHORT, lease=60.0, heartbeat=20.0)
    async with (
        backend.pools(1, timing=slow) as (one,),
        Pool(backend.redis(), prefix=backend.prefix, node_id="quick", timing=SHORT) as quick,
        backend.client() as client,
    ):
        await one.host("room", "alice")
        await client.delete(f"{backend.prefix}:{{~}}:infos")
        before = await client.zscore(
            f"{backend.prefix}:{{~}}:leases", one.statistics()["incarnation"]
        )
        await asyncio.sleep(SHORT.lease + 3 * SHORT.heartbeat)  # then it judges, and has judged
        assert await quick.locate("room", "alice") == Member("alice", "node-1")
        after = await client.zscore(
            f"{backend.prefix}:{{~}}:leases", one.statistics()["incarnation"]
        )
        assert after == before
