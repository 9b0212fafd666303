"""A node rejoins with all its members: in few calls, under one lease, despite interruptions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from cluster_pool import Connection, Member, Timing
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.cluster import reassertion
from cluster_pool.cluster.lease_keeper import Keep
from cluster_pool.cluster.reassertion import STEP, Reassertion
from cluster_pool.core.claims import Claim
from tests.clusters import Backend, Pool
from tests.servers import CLUSTER, RedisServer
from tests.support import async_test, eventually
from tools.harness.network import Network

SHORT = Timing(timeout=2.0, lease=6.0, heartbeat=0.4, probe=1.0, linger=0.2, close=1.0)
NAMESPACES = 1200
ONE_FLAVOUR = pytest.mark.parametrize("own_server", ["valkey"], indirect=True)
"""For tests of behaviour that all flavours of Redis share."""


@contextlib.asynccontextmanager
async def on_proxy(server: RedisServer) -> AsyncIterator[tuple[Pool, Network]]:
    """A node with a proxy between it and Redis, and many namespaces of one member each."""
    async with server.network() as proxy:
        pool = Pool(proxy.url, node_id="node-1", timing=SHORT)
        async with pool:
            for at in range(0, NAMESPACES, 300):
                names = [f"n{i}" for i in range(at, at + 300)]
                await asyncio.gather(*[pool.host(name, "tab", timeout=30) for name in names])
            yield pool, proxy


def registered(server: RedisServer) -> int:
    """How many of the namespaces have their member, whether or not its short lease has lapsed."""
    with Backend(server).sync_client() as client, client.pipeline(transaction=False) as pipeline:
        for at in range(NAMESPACES):
            pipeline.hlen(f"cluster_pool:{{n{at}}}:members")
        return sum(pipeline.execute())


async def all_counted(pool: Pool) -> bool:
    """Whether each has a member of a living node."""
    counts = [pool.count(f"n{at}", timeout=30) for at in range(NAMESPACES)]
    return sum(await asyncio.gather(*counts)) == NAMESPACES


def taken(pool: Pool) -> int:
    """The number of incarnations of a node since its start."""
    return int(pool.statistics()["incarnation"].rpartition(".")[2])


def reaped(server: RedisServer) -> bool:
    """Whether only one incarnation is known of, and none waits for being reaped."""
    return server.command("HLEN", "cluster_pool:{~}:incarnations") == ":1\r\n"


@async_test
async def test_many_namespaces_are_asserted_in_few_calls(own_server: RedisServer) -> None:
    """A hundred claims go in one call, whatever their namespaces; reaping works in batches, too.

    On a cluster each slot needs calls of its own: one asserts under the present incarnation, when
    its link is new, one under the next one, one reaps, one may compare, and one reads the counters
    of its channels.
    """
    async with on_proxy(own_server) as (pool, proxy):
        before = own_server.script_calls()
        await proxy.cut()
        await eventually(lambda: taken(pool) == 1 and pool.ready, 30)
        await eventually(lambda: reaped(own_server), 30)
        slots = NAMESPACES if own_server.flavour == CLUSTER else 0
        assert own_server.script_calls() - before < 100 + 5 * slots
        assert await all_counted(pool)


@ONE_FLAVOUR
@async_test
async def test_a_lease_is_renewed_while_claims_are_asserted(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asserting may take longer than a lease lasts: it is one incarnation all the same."""
    monkeypatch.setattr(reassertion, "WINDOW", 1)
    async with on_proxy(own_server) as (pool, proxy):
        own_server.kill()
        own_server.start()
        proxy.delay = 0.3
        began = asyncio.get_running_loop().time()
        await eventually(lambda: taken(pool) >= 1 and pool.ready, 40)
        assert asyncio.get_running_loop().time() - began > SHORT.lease
        assert taken(pool) == 1
        proxy.heal()
        assert registered(own_server) == NAMESPACES


class Asserted:
    """Counts the claims that a node has asserted, and those of its last incarnation alone."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.sent = 0
        registry: Any = pool._parts.backplane.claims
        send = registry.assert_claims

        def assert_claims(link: Any, incarnation: str, groups: Any, *rest: Any) -> Any:
            self.sent += sum(len(claims) for _, claims in groups)
            return send(link, incarnation, groups, *rest)

        registry.assert_claims = assert_claims

    def under(self, rejoin: int) -> list[Connection]:
        """The connections whose claims belong to an incarnation, as far as the node knows."""
        everyone = self._pool._parts.table.memberships()
        return [one.connection for one in everyone if one.claim and one.claim.rejoin == rejoin]


@ONE_FLAVOUR
@async_test
async def test_an_interruption_undoes_no_assertion(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut again and again, each attempt goes on where the last one was, under one incarnation."""
    monkeypatch.setattr(reassertion, "WINDOW", 1)
    async with on_proxy(own_server) as (pool, proxy):
        asserted = Asserted(pool)
        await proxy.cut()
        for part in (100, 400, 700):
            proxy.delay = 0.04
            await eventually(lambda part=part: len(asserted.under(1)) >= part, 30)
            await proxy.cut()
        await eventually(lambda: pool.ready, 30)
        assert taken(pool) == 1
        assert asserted.sent <= NAMESPACES + 3 * 2 * 100
        proxy.heal()
        assert registered(own_server) == NAMESPACES


@ONE_FLAVOUR
@async_test
async def test_a_takeover_during_an_interruption_is_found(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that was asserted before the link was cut may be taken over meanwhile."""
    monkeypatch.setattr(reassertion, "WINDOW", 1)
    two = Pool(own_server.url, node_id="node-2", timing=SHORT)
    async with on_proxy(own_server) as (pool, proxy), two:
        asserted = Asserted(pool)
        proxy.delay = 0.02
        await proxy.cut()
        await eventually(lambda: len(asserted.under(1)) >= 400, 30)
        await proxy.refuse()
        stolen = asserted.under(1)[7]
        await two.host(stolen.namespace, "tab")
        await proxy.accept()
        await eventually(lambda: pool.ready, 30)
        assert taken(pool) == 1
        await eventually(lambda: stolen.close_code == 4409)
        assert await two.locate(stolen.namespace, "tab") == Member("tab", "node-2")
        proxy.heal()
        assert registered(own_server) == NAMESPACES


@ONE_FLAVOUR
@pytest.mark.parametrize("loss", ["lease", "state"])
@async_test
async def test_a_lease_that_is_gone_ends_an_interrupted_assertion(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Without its lease, or in another Redis, what was asserted counts for nothing."""
    monkeypatch.setattr(reassertion, "WINDOW", 1)
    async with on_proxy(own_server) as (pool, proxy):
        asserted = Asserted(pool)
        proxy.delay = 0.02
        await proxy.cut()
        await eventually(lambda: len(asserted.under(1)) >= 400, 30)
        await proxy.refuse()
        if loss == "lease":
            own_server.command("DEL", "cluster_pool:{~}:leases")
        else:
            own_server.kill()
            own_server.start()
        proxy.heal()
        await proxy.accept()
        await eventually(lambda: pool.ready, 30)
        assert taken(pool) == 2
        assert len(asserted.under(2)) == NAMESPACES
        await eventually(lambda: all_counted(pool), 30)


@ONE_FLAVOUR
@async_test
async def test_a_namespace_that_redis_refuses_does_not_hinder_others(
    own_server: RedisServer,
) -> None:
    """A call asserts claims of many namespaces: each of them succeeds or fails by itself."""
    async with on_proxy(own_server) as (pool, proxy):
        own_server.command("DEL", "cluster_pool:{n7}:owners")
        own_server.command("SET", "cluster_pool:{n7}:owners", "garbage")
        await proxy.cut()
        await eventually(lambda: taken(pool) == 1 and pool.ready, 30)
        assert len(Asserted(pool).under(1)) == NAMESPACES
        assert await all_counted(pool)


@ONE_FLAVOUR
@async_test
async def test_a_lease_that_ends_during_an_assertion_begins_it_anew(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is fine; the heartbeat between two windows finds that the lease is gone."""
    monkeypatch.setattr(reassertion, "WINDOW", 1)
    async with on_proxy(own_server) as (pool, proxy):
        asserted = Asserted(pool)
        proxy.delay = 0.1
        await proxy.cut()
        await eventually(lambda: len(asserted.under(1)) >= 100, 30)
        own_server.command("DEL", "cluster_pool:{~}:leases")
        await eventually(lambda: taken(pool) == 2, 30)
        proxy.heal()
        await eventually(lambda: pool.ready, 30)
        assert len(asserted.under(2)) == NAMESPACES


@async_test
async def test_a_member_that_loses_its_id_during_an_assertion_is_released(backend: Backend) -> None:
    """The assertion wrote its claim once more, so it must be removed."""
    async with backend.pools(1) as (one,):
        alice, bob = await one.host("n", "alice"), await one.host("n", "bob")
        (membership,) = alice.connection._memberships
        registry: Any = one._parts.backplane.claims
        send = registry.assert_claims

        def assert_claims(*arguments: Any) -> Any:
            reply = send(*arguments)

            async def read() -> Any:
                answers = await reply
                one._parts.ownership._evict(membership)
                return answers

            return read()

        registry.assert_claims = assert_claims
        links = await one._parts.backplane.topology.connected(asyncio.get_running_loop().time() + 5)
        await one._parts.ownership._reassertion.namespace(links, "n", one._parts.lease.incarnation)
        assert alice.closed is not None
        assert bob.closed is None
        assert await one.locate("n", "alice") is None
        assert await one.locate("n", "bob") == Member("bob", "node-1")


@ONE_FLAVOUR
@async_test
async def test_a_link_that_ends_with_the_assertion_repeats_it(
    own_server: RedisServer,
) -> None:
    """All was registered over a link that is gone, which does not count."""
    async with on_proxy(own_server) as (pool, proxy):
        register, calls = pool._parts.lease_keeper._observer.register_all, 0

        async def registered_and_cut(incarnation: str, keep: Keep) -> None:
            nonlocal calls
            calls += 1
            await register(incarnation, keep)
            if calls == 1:
                before = pool._parts.backplane.shard.generation
                await proxy.cut()
                await eventually(lambda: pool._parts.backplane.shard.generation > before, 30)

        pool._parts.lease_keeper._observer.register_all = registered_and_cut  # type: ignore[method-assign]
        await proxy.cut()
        await eventually(lambda: calls == 2 and pool.ready, 30)
        assert taken(pool) == 1


@async_test
async def test_a_new_epoch_means_another_redis(backend: Backend) -> None:
    """The lease is still there, but older writes may be lost: everything is asserted anew."""
    async with backend.pools(1) as (one,):
        await one.host("n", "alice")
        with backend.sync_client() as client:
            client.set(f"{backend.prefix}:{{~}}:epoch", "1234567")
        await eventually(lambda: taken(one) == 1 and one.ready, 30)
        assert await one.locate("n", "alice") == Member("alice", "node-1")


@async_test
async def test_a_namespace_that_was_left_meanwhile_is_not_asserted(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Its members may go after a batch was put together; the others of the batch are registered."""
    async with backend.pools(1, timing=SHORT) as (one,), backend.client() as client:
        gone = await one.host("left", "x")
        await one.host("n", "y")
        names = ["left", "n"]
        parts = one._parts.ownership._reassertion
        batch = [parts._owned(name) for name in names]
        await one.remove_connection(gone.connection)  # type: ignore[attr-defined]
        await client.delete(f"{backend.prefix}:{{n}}:members", f"{backend.prefix}:{{n}}:owners")
        generation = await one._parts.backplane.topology.connected(deadline_in(5.0))
        incarnation = one.statistics()["incarnation"]
        await parts._batch(generation, incarnation, batch)
        await parts.namespace(generation, "left", incarnation)
        assert await one.count("n") == 1
        assert [line for line in caplog.messages if "not registered" in line] == []


class Standing:
    """A node all of whose claims stand under its incarnation, by what Redis has counted."""

    spans = False

    def __init__(self) -> None:
        self.looked_at = 0
        claim = Claim("start.0", 1, "a")
        self.members = {"alice": SimpleNamespace(claim=claim, departure=None)}

    def namespace(self, name: str) -> dict[str, Any]:
        self.looked_at += 1
        return self.members

    async def tallies(self, links: Any, names: list[str], *rest: Any) -> list[tuple[int, int]]:
        return [(1, 1)] * len(names)

    async def add_before_claims(self, *rest: Any) -> None: ...

    def packed(self, groups: Any) -> list[Any]:
        assert not list(groups)
        return []


@async_test
async def test_a_look_at_very_many_claims_that_stand_leaves_the_loop_to_others() -> None:
    """No turn of the loop looks at more namespaces than a step has; they are looked at twice."""
    parts: Any = Standing()
    reassertion = Reassertion(parts, parts, parts, parts, Timing(), parts, parts.namespace)
    names = [f"room-{at}" for at in range(10 * STEP)]

    async def keep() -> None: ...

    registering = asyncio.create_task(reassertion.register(parts, names, "start.0", keep))
    most = 0
    while not registering.done():
        before = parts.looked_at
        await asyncio.sleep(0)
        most = max(most, parts.looked_at - before)
    await registering
    assert STEP <= most <= 2 * STEP
    assert parts.looked_at == 2 * len(names)
