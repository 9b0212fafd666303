"""The last-one callback, when the answer to a release is late, lost, or no longer the newest."""

import asyncio
import contextlib

from cluster_pool import BackplaneUnavailableError, Connection, Timing
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import Standing
from cluster_pool.core.claims import incarnation_of
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool, claim_of, connection_of
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.network import Network

HOUR = 3600


async def release_unanswered(
    server: RedisServer, node: Pool, proxy: Network, connection: Connection, fired: list[str]
) -> asyncio.Task[None]:
    """Begin to remove the only member of ``hall``; Redis does it, and its answer is held back."""

    async def remove() -> None:
        with contextlib.suppress(BackplaneUnavailableError):
            await node.remove_connection(
                connection, lambda: fired.append(connection.id), timeout=0.5
            )

    proxy.hold(upwards=False, downwards=True)
    task = asyncio.create_task(remove())
    await eventually(lambda: server.command("EXISTS", "cluster_pool:{hall}:members") == ":0\r\n")
    return task


@async_test
async def test_the_callback_fires_when_the_answer_was_lost_with_the_lease(
    own_server: RedisServer,
) -> None:
    """Others reap the node; its retry, under a new lease, finds the result of its release."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), own_server.network() as proxy:
        url = proxy.url
        async with Pool(url, node_id="far", timing=FAST) as far:
            empty: list[str] = []
            fired: list[str] = []
            one.on("empty", empty.append)
            alice = await far.host("hall", "alice")
            await far.host("other", "bob")
            removing = await release_unanswered(own_server, far, proxy, alice.connection, fired)
            assert backend.keys()["cluster_pool:{hall}:emptied"] > HOUR * 1000
            await eventually(lambda: empty == ["other"], 30)
            proxy.hold()
            await proxy.cut()
            proxy.heal()
            await removing
            await eventually(lambda: far.ready, 30)
            await eventually(lambda: fired)
            await eventually(lambda: not backend.keys_of("emptied"))
            assert (fired, empty) == (["alice"], ["other"])


@async_test
async def test_each_release_that_emptied_the_namespace_fires(own_server: RedisServer) -> None:
    """Another release emptied the namespace again before the first was answered."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), own_server.network() as proxy:
        url = proxy.url
        async with Pool(url, node_id="far", timing=FAST) as far:
            fired: list[str] = []
            alice = await far.host("hall", "alice")
            removing = await release_unanswered(own_server, far, proxy, alice.connection, fired)
            for id in ("bob", "carol"):
                member = await one.host("hall", id)
                await one.remove_connection(member.connection, lambda id=id: fired.append(id))
            await proxy.cut()
            proxy.heal()
            await removing
            await eventually(lambda: len(fired) == 3)
            await eventually(lambda: not backend.keys_of("emptied"))
            assert fired == ["bob", "carol", "alice"]


@async_test
async def test_the_callback_of_a_cancelled_call_fires_all_the_same(backend: Backend) -> None:
    """The release that it has begun goes on, and nobody else is told that it was the last."""
    async with backend.pools(1) as (one,):
        connection = connection_of(await one.host("app", "alice"))
        fired: list[str] = []
        for turns in range(1, 8):
            room = f"room{turns}"
            await connection.join(room)
            leaving = asyncio.create_task(
                connection.leave(room, on_empty_namespace=lambda room=room: fired.append(room))
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await eventually(lambda room=room: room in fired)
        await one.remove_connection(connection)
        assert fired == [f"room{turns}" for turns in range(1, 8)]


@async_test
async def test_a_release_finds_a_claim_that_an_assertion_has_just_changed(backend: Backend) -> None:
    """The reply to the assertion is still on its way, or was lost: the claim is registered under
    another lease of its node. It is the same by its token."""
    async with backend.pools(1) as (one,):
        alice = await one.host("hall", "alice")
        backplane = one._parts.backplane
        deadline = deadline_in(5)
        kept = await backplane.claims.assert_claims(
            await backplane.topology.connected(deadline),
            incarnation_of(backplane.identity.start, 7),
            [("hall", [("alice", claim_of(alice))])],
            backplane.topology.of("hall").clock.at(deadline),
            deadline,
        )
        assert kept == [Standing.KEPT]
        fired: list[str] = []
        await one.remove_connection(connection_of(alice), lambda: fired.append("alice"))
        assert fired == ["alice"]
        await eventually(lambda: not backend.keys_of("emptied"))
        assert backend.keys_of("members") == backend.keys_of("owners") == []


@async_test
async def test_a_release_that_waits_for_a_redis_without_data_was_the_last_one(
    own_server: RedisServer,
) -> None:
    """Its claim is lost with all others; nobody has registered one in its namespace since."""
    async with Backend(own_server).pools(timing=Timing(close=1.0)) as (one, two):
        connection = connection_of(await one.host("hall", "alice"))
        await two.host("room", "bob")
        for room in ("room", "gone"):
            await connection.join(room)
        fired: list[str] = []
        own_server.kill()
        await eventually(lambda: one.trouble)
        for room in ("room", "gone", "hall"):
            with contextlib.suppress(BackplaneUnavailableError):
                await connection.leave(
                    room, on_empty_namespace=lambda room=room: fired.append(room), timeout=0.1
                )
        await asyncio.to_thread(own_server.start)
        await eventually(lambda: one.ready and two.ready, 30)
        await eventually(lambda: sorted(fired) == ["gone", "hall"], 30)
        await asyncio.sleep(0.1)
        assert await two.count("room") == 1
        assert len(fired) == 2


@async_test
async def test_a_release_is_not_the_last_one_while_others_register_again(
    own_server: RedisServer,
) -> None:
    """Redis came back without data, and the node of the other member comes to it a bit later."""
    timing, backend = Timing(lease=15.0, heartbeat=5.0, close=1.0), Backend(own_server)
    async with (
        backend.pools(1, timing=timing) as (one,),
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=timing) as far,
    ):
        alice = await one.host("hall", "alice")
        await far.host("hall", "bob")
        fired: list[str] = []
        shard = one._parts.backplane.topology.of("hall")
        generation = shard.generation
        await proxy.refuse()
        own_server.kill()
        starting = asyncio.create_task(asyncio.to_thread(own_server.start))
        await eventually(lambda: shard.generation > generation and shard.up and one.ready, 30)
        await one.remove_connection(connection_of(alice), lambda: fired.append("alice"))
        await proxy.accept()
        await starting
        await eventually(lambda: not one._parts.ownership._last_ones._doubtful, 20)
        assert fired == []
        await eventually(lambda: is_count(one, "hall", 1), 30)
        (bob,) = far._parts.table.connections()
        await far.remove_connection(bob, lambda: fired.append("bob"))
        await eventually(lambda: fired == ["bob"], 20)


async def is_count(pool: Pool, namespace: str, count: int) -> bool:
    return await pool.count(namespace) == count
