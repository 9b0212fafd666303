"""Revoked tokens: their connections are closed, and they are refused, on every node."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster_pool import (
    Auth,
    AuthenticationError,
    BackplaneUnavailableError,
    Connection,
    Identity,
    Jwt,
)
from cluster_pool.backplane.revocations import PAGE
from cluster_pool.backplane.script_calls import ScriptCall
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.orders import NodeOrders
from cluster_pool.exceptions import NodeUnreachableError
from cluster_pool.local import attachment
from cluster_pool.local.grant import Grant
from cluster_pool.testing import FAST, FakeWebSocket
from tests.auth.signing import SECRET, token
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually

AUTH = Auth(authenticate=Jwt(secret=SECRET))
PATIENCE = 20.0


async def member(pool: Pool, id: str, token_id: str | None) -> FakeWebSocket:
    """A member with an identity."""
    websocket = FakeWebSocket()
    connection = Connection(id, "n", websocket)
    attachment.grant(connection, Grant(Identity(user="42", token_id=token_id), AUTH))
    await pool.new_connection(connection, timeout=PATIENCE)
    return websocket


def in_an_hour() -> float:
    """A time that tests do not reach."""
    return time.time() + 3600


async def counted(pool: Pool, members: int) -> bool:
    return await pool.count("n") == members


@async_test
async def test_a_revoked_token_is_closed_and_refused_on_every_node(backend: Backend) -> None:
    """Others stay; both nodes have read it when the call returns."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        here, there = await member(one, "a", "t1"), await member(two, "b", "t1")
        other, guest = await member(two, "c", "t2"), await member(one, "d", None)
        assert await publisher.revoke("t1", in_an_hour()) == 2
        for closed in (here, there):
            assert await closed.wait_closed() == (4401, "revoked")
        assert (other.closed, guest.closed) == (None, None)
        for pool in (one, two):
            with pytest.raises(AuthenticationError, match="revoked"):
                await member(pool, "e", "t1")
            assert pool.statistics()["revoked"] == 2
        await eventually(lambda: counted(one, 2))  # their releases are under way
        assert await two.revoke("t2") == 2
        assert await other.wait_closed() == (4401, "revoked")


@async_test
async def test_a_token_without_jti_is_named_by_its_hash() -> None:
    """A renewal with either is refused, and leaves the connection as it was."""
    async with Backend(None).pools(1, auth=AUTH) as (pool,):
        text, plain = token(jti="t1"), token()
        connection = Connection("a", "n", FakeWebSocket())
        attachment.grant(connection, Grant(Identity(user="42", token_id="t0"), AUTH))
        await pool.new_connection(connection)
        await pool.revoke(hashlib.sha256(plain.encode()).hexdigest())
        await pool.revoke("t1")
        for revoked in (text, plain):
            with pytest.raises(AuthenticationError, match="revoked"):
                await connection.renew(revoked)
        assert not connection.closed
        await connection.renew(token(jti="t2"))
        assert connection.identity is not None
        assert connection.identity.token_id == "t2"


@async_test
async def test_a_node_that_no_order_reaches_reads_it_with_its_heartbeat(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is lost; the revocation is not."""

    async def lost(self: NodeOrders, node_id: str, *arguments: object) -> None:
        raise NodeUnreachableError(node_id, "lost")

    async with backend.pools() as (one, two):
        far = await member(two, "a", "t1")
        monkeypatch.setattr(NodeOrders, "give", lost)
        assert await one.revoke("t1") == 1
        assert await asyncio.wait_for(far.wait_closed(), PATIENCE) == (4401, "revoked")


@async_test
async def test_a_node_that_starts_later_refuses_it_from_the_first_client_on(
    backend: Backend,
) -> None:
    """More than one page of them."""
    async with backend.publisher() as publisher:
        entries = [(f"t{number}", int(in_an_hour() * 1000)) for number in range(1100)]
        deadline = asyncio.get_running_loop().time() + PATIENCE
        for at in range(0, len(entries), PAGE):
            page = entries[at : at + PAGE]
            await publisher._parts.backplane.revocations.record(page, deadline)
    async with backend.pools(1) as (pool,):
        for token_id in ("t0", "t499", "t500", "t1099"):
            with pytest.raises(AuthenticationError, match="revoked"):
                await member(pool, "a", token_id)
        await member(pool, "a", "t1100")


@async_test
async def test_revocations_that_redis_has_lost_are_recorded_again(own_server: RedisServer) -> None:
    """Nodes that run know them, and a node that starts afterwards learns them."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,):
        await one.revoke("t")
        rejoins = one.statistics()["rejoins"]
        own_server.command("FLUSHALL")
        await eventually(lambda: one.statistics()["rejoins"] > rejoins)
        with pytest.raises(AuthenticationError):
            await member(one, "a", "t")
        async with Pool(own_server.url, prefix=backend.prefix, node_id="later") as later:
            with pytest.raises(AuthenticationError):
                await member(later, "a", "t")


@async_test
async def test_a_node_that_was_cut_off_closes_them_when_it_is_back(own_server: RedisServer) -> None:
    """It has heard no order, and its lease may be over; nothing is recorded without Redis."""
    backend = Backend(own_server)
    async with (
        own_server.network() as proxy,
        backend.pools(1) as (one,),
        Pool(proxy.url, prefix=backend.prefix, node_id="far", timing=one.timing) as far,
    ):
        websocket = await member(far, "a", "t")
        await proxy.refuse()
        with pytest.raises(BackplaneUnavailableError):
            await far.revoke("u", timeout=0.3)
        assert await one.revoke("t", timeout=0.5) == 1
        assert websocket.closed is None
        await proxy.accept()
        assert await asyncio.wait_for(websocket.wait_closed(), PATIENCE) == (4401, "revoked")


@async_test
async def test_a_token_that_is_revoked_while_it_claims_is_closed(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is known and the reply of Redis."""
    async with backend.pools(1) as (pool,):
        claim = pool._parts.ownership.claim

        async def slow(*arguments: object, **options: object) -> None:
            await pool.revoke("t")
            await claim(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(pool._parts.ownership, "claim", slow)
        websocket = await member(pool, "a", "t")
        assert await websocket.wait_closed() == (4401, "revoked")


@async_test
async def test_an_accept_asks_redis_nothing_about_revocations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looks at what is known."""
    async with Backend(None).pools(1) as (pool,):
        read = pool._parts.backplane.revocations.read
        readings = 0

        def counted(after: int, deadline: Callable[[], float]) -> object:
            nonlocal readings
            readings += 1
            return read(after, deadline)

        monkeypatch.setattr(pool._parts.backplane.revocations, "read", counted)
        await asyncio.gather(*[member(pool, str(number), "t") for number in range(100)])
        assert readings < 10  # those of heartbeats


@async_test
async def test_reading_many_pages_has_no_deadline_as_a_whole(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node starts and rejoins, however many there are; while it reads its lease is renewed."""
    backend = Backend(own_server)
    timing = replace(FAST, timeout=0.6)
    async with backend.pools(1, timing=timing) as (one,):
        for page in range(4):
            entries = [(f"t{page}.{n}", int(in_an_hour() * 1000)) for n in range(PAGE)]
            deadline = one._parts.backplane.deadline(PATIENCE)
            await one._parts.backplane.revocations.record(entries, deadline)
        script, kept = Shard.script, 0

        async def slow(self: Shard, deadline: float, call: ScriptCall) -> object:
            if call.name == "read_revocations":
                await asyncio.sleep(0.3)
            return await script(self, deadline, call)

        async def keep() -> None:
            nonlocal kept
            kept += 1

        monkeypatch.setattr(Shard, "script", slow)
        await one._parts.revocations.read_all(keep)
        assert kept == 5
        with pytest.raises(AuthenticationError, match="revoked"):
            await member(one, "a", "t3.499")
        async with Pool(own_server.url, prefix=backend.prefix, timing=timing) as later:
            with pytest.raises(AuthenticationError, match="revoked"):
                await member(later, "a", "t3.499")
