"""Infos of members whose claim is not registered any more, or that end while an update waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPoolError,
    Connection,
    ConnectionClosedError,
    Member,
)
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool, connection_of
from tests.servers import RedisServer
from tests.support import async_test, eventually


async def member(pool: Pool, room: str = "room") -> Connection:
    """A connection at home in "app" that has joined a room; its id is "alice"."""
    connection = connection_of(await pool.host("app", "alice"))
    await connection.join(room, info="before")
    return connection


@pytest.mark.parametrize("lost", ["claim", "hash", "everything"])
@async_test
async def test_an_info_is_told_though_its_claim_was_deleted(backend: Backend, lost: str) -> None:
    """By hand: the claim is registered again, and the other node sees the info at once."""
    async with backend.pools() as (one, two), backend.client() as client:
        connection = await member(one)
        space = f"{backend.prefix}:{{room}}"
        if lost == "claim":
            await client.hdel(f"{space}:members", "alice")
        else:
            await client.delete(f"{space}:members")
        if lost == "everything":
            await client.delete(f"{space}:owners", f"{space}:profiles")
        await connection.update_info("after", namespace="room")
        assert await two.locate("room", "alice") == Member("alice", "node-1", None, "after")
        await eventually(lambda: one.ready)
        await eventually(lambda: _counts(two), 30)  # it was one too many after the first


async def _counts(pool: Pool) -> bool:
    return await pool.count("room") == 1


@contextlib.asynccontextmanager
async def given_away(backend: Backend, to: Pool, namespace: str) -> AsyncIterator[None]:
    """Register alice for another node, as by a takeover that nobody heard of; for a while."""
    space = f"{backend.prefix}:{{{namespace}}}"
    async with backend.client() as client:
        standing = (await client.hget(f"{space}:members", "alice")).decode()
        incarnation, time, _ = standing.split(":")
        claim = f"{to._parts.lease.incarnation}:{int(time) + 1}:zz"
        await client.hset(f"{space}:members", "alice", claim)
        await client.hincrby(f"{space}:owners", to._parts.lease.incarnation, 1)
        await client.hincrby(f"{space}:owners", incarnation, -1)
        await client.hdel(f"{space}:profiles", "alice")
        yield
        await client.delete(f"{space}:members", f"{space}:owners")


@async_test
async def test_a_joined_member_that_was_taken_over_elsewhere_is_told_so(backend: Backend) -> None:
    """Its membership has ended; the connection stays."""
    async with backend.pools() as (one, two):
        connection = await member(one)
        left: list[tuple[str, str]] = []
        connection.on("left", lambda *told: left.append(told))
        async with given_away(backend, two, "room"):
            with pytest.raises(ClusterPoolError, match="is no member of 'room'"):
                await connection.update_info("after", namespace="room")
        await eventually(lambda: left == [("room", "taken over")])
        assert not connection.closed
        assert connection.namespaces == ("app",)
        await connection.update_info("at home")


@async_test
async def test_a_home_that_was_taken_over_elsewhere_is_closed(backend: Backend) -> None:
    async with backend.pools() as (one, two):
        connection = await member(one)
        async with given_away(backend, two, "app"):
            with pytest.raises(ConnectionClosedError) as closed:
                await connection.update_info("after")
        assert closed.value.code == 4409


@async_test
async def test_a_membership_that_ends_while_its_update_waits_is_an_error(
    own_server: RedisServer,
) -> None:
    """Redis is away meanwhile; the connection may be closed, too."""
    backend = Backend(own_server)
    async with (
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", prefix=backend.prefix, timing=FAST) as far,
    ):
        connection = await member(far)
        await connection.join("hall")
        await proxy.refuse()
        await eventually(lambda: not any(one.up for one in far._parts.backplane.topology.shards))
        updates = [
            asyncio.create_task(connection.update_info("x", namespace=name, timeout=60))
            for name in ("room", "hall", "app")
        ]
        await asyncio.sleep(0)
        with pytest.raises(BackplaneUnavailableError):
            await connection.leave("room", timeout=0.1)
        await proxy.accept()
        with pytest.raises(ClusterPoolError, match="is no member of 'room'"):
            await updates[0]
        await asyncio.gather(*updates[1:])
        await proxy.refuse()
        await eventually(lambda: not any(one.up for one in far._parts.backplane.topology.shards))
        update = asyncio.create_task(connection.update_info("y", timeout=60))
        await asyncio.sleep(0)
        await connection.close(4000, "gone")
        await proxy.accept()
        with pytest.raises(ConnectionClosedError) as closed:
            await update
        assert (closed.value.code, closed.value.reason) == (4000, "gone")


@async_test
async def test_a_claim_that_cannot_be_registered_again_leaves_the_info_unregistered(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call fails in its time, and what it wanted comes true later."""
    async with backend.pools() as (one, two), backend.client() as client:
        connection = await member(one)
        restoration = one._parts.ownership.restoration

        async def nothing(*arguments: object) -> None:
            """As when the lease is over: nothing is asserted."""

        with monkeypatch.context() as patch:
            patch.setattr(restoration, "doubtful", nothing)
            await client.hdel(f"{backend.prefix}:{{room}}:members", "alice")
            with pytest.raises(BackplaneUnavailableError, match="not registered"):
                await connection.update_info("after", namespace="room")

        async def told() -> bool:
            found = await two.locate("room", "alice")
            return found is not None and found.info == "after"

        await eventually(told, 30)
