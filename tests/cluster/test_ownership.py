"""Ids are claimed, taken over and given up: also when replies are lost, late, or wait."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import pytest
from starlette.websockets import WebSocket

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPoolError,
    Connection,
    ConnectionClosedError,
    IdTakenError,
    Limits,
    MembershipLimitError,
    PoolClosedError,
    SendResult,
)
from cluster_pool.cluster.claim_batcher import IN_FLIGHT
from cluster_pool.cluster.pending_claim import PendingClaim
from cluster_pool.local import closing
from cluster_pool.testing import FAST, FakeWebSocket
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.network import Network

OTHERS = 4
"""Probes and heartbeats within a second."""


@contextlib.asynccontextmanager
async def node_behind(server: RedisServer, name: str) -> AsyncIterator[tuple[Pool, Network]]:
    """A node with a bad network between it and Redis."""
    async with (
        server.network() as proxy,
        Pool(proxy.url, node_id=name, timing=FAST) as pool,
    ):
        yield pool, proxy


@async_test
async def test_a_claim_that_is_won_in_the_turn_of_its_deadline_is_owned(backend: Backend) -> None:
    """Its caller has it, once; and it is given up like any other, with its namespace."""
    async with backend.pools(1) as (one,):
        loop = asyncio.get_running_loop()
        claim_batcher, namespaces = (
            one._parts.ownership._claim_batcher,
            one._parts.ownership._namespaces,
        )
        decide = claim_batcher._decide

        def decide_late(pending: PendingClaim, *answer: Any) -> None:
            loop.call_at(pending.deadline - 0.1, time.sleep, 0.2)
            loop.call_at(pending.deadline - 0.001, decide, pending, *answer)

        socket = FakeWebSocket()
        connection = Connection("alice", "n", socket)
        with patch.object(claim_batcher, "_decide", decide_late):
            await one.new_connection(connection, timeout=0.5)
        assert one.get_connection("n", "alice") is connection
        assert await registered(one) == {"alice": "node-1"}
        assert namespaces.held() == ["n"]
        await one.remove_connection(connection)
        assert namespaces.held() == []
        assert await registered(one) == {}


@pytest.mark.parametrize("rule", ["takeover", "reject"])
@async_test
async def test_the_second_of_two_joins_of_one_connection_at_once_is_refused(
    backend: Backend, rule: str
) -> None:
    """The first makes it a member, which is reached and leaves nothing behind."""
    async with backend.pools(1) as (one,):
        connection = Connection("alice", "n", FakeWebSocket())
        twice = [one.new_connection(connection, on_conflict=rule) for _ in range(2)]
        first, second = await asyncio.gather(*twice, return_exceptions=True)
        assert first is None
        assert type(second) is ClusterPoolError
        assert await one.send("n", "alice", "hi") is SendResult.DELIVERED
        await connection.close()
        await eventually(lambda: is_empty(one))
        assert one._parts.ownership._namespaces.held() == []


async def is_empty(pool: Pool) -> bool:
    return await registered(pool) == {} and await pool.count("n") == 0


async def registered(pool: Pool) -> dict[str, str]:
    """Every member of the namespace ``n`` with its owner, as the registry has it."""
    return {member.id: member.node async for member in pool.members("n")}


def held(pool: Pool) -> dict[str, str]:
    """The pool's own members, in the same form."""
    return dict.fromkeys(pool._parts.table.namespace("n") or {}, pool.node_id)


async def agreed(*pools: Pool) -> bool:
    """Whether the registry is the union of the pools, its counts included."""
    wanted = {id: node for pool in pools for id, node in held(pool).items()}
    total = sum(len(held(pool)) for pool in pools)
    with contextlib.suppress(BackplaneUnavailableError):
        counted = await pools[0].count("n")
        return len(wanted) == total == counted and await registered(pools[0]) == wanted
    return False


@async_test
async def test_a_claim_whose_reply_was_lost_is_found_again(own_server: RedisServer) -> None:
    """The link breaks between the claim and its answer: the newcomer is a member all the same."""
    async with node_behind(own_server, "one") as (one, proxy):
        await one.host("n", "first")
        proxy.hold(upwards=False)
        joining = asyncio.create_task(one.host("n", "alice", on_conflict="reject", timeout=20))
        await eventually(
            lambda: b"alice" in own_server.command("HKEYS", "cluster_pool:{n}:members").encode()
        )
        before = own_server.command("HGET", "cluster_pool:{n}:members", "alice")
        await proxy.cut()
        proxy.heal()
        alice = await joining
        after = own_server.command("HGET", "cluster_pool:{n}:members", "alice")
        assert before.split(":")[1:] == after.split(":")[1:], "the same claim, with its own token"
        assert one.get_connection("n", "alice") is alice.connection  # type: ignore[attr-defined]
        await eventually(lambda: agreed(one))


@async_test
async def test_a_repeated_claim_does_not_win_back_an_id_taken_since(
    own_server: RedisServer,
) -> None:
    """Another node took the id over between the first attempt and the next: that one keeps it."""
    backend = Backend(own_server)
    async with node_behind(own_server, "one") as (one, proxy), backend.pools(1) as (two,):
        await one.host("n", "first")
        proxy.hold(upwards=False)
        joining = asyncio.create_task(one.host("n", "alice", timeout=20))
        await eventually(lambda: is_member(two, "alice"))
        newer = await two.host("n", "alice")
        await proxy.cut()
        proxy.heal()
        with pytest.raises(ConnectionClosedError) as caught:
            await joining
        assert caught.value.code == 4409
        await eventually(lambda: agreed(one, two))
        assert two.get_connection("n", "alice") is newer.connection  # type: ignore[attr-defined]
        assert newer.closed is None


async def is_member(pool: Pool, id: str) -> bool:
    return await pool.locate("n", id) is not None


@async_test
async def test_a_claim_that_was_given_up_leaves_nothing(own_server: RedisServer) -> None:
    """The caller has gone when the answer comes: what was claimed is released, and can be had."""
    async with node_behind(own_server, "one") as (one, proxy):
        await one.host("n", "first")
        proxy.hold(upwards=False)
        websocket = FakeWebSocket()
        connection = Connection("alice", "n", websocket)
        with pytest.raises(BackplaneUnavailableError) as caught:
            await one.new_connection(connection, timeout=0.3)
        assert caught.value.maybe_executed
        proxy.heal()
        await one.new_connection(connection, timeout=10)
        await eventually(lambda: agreed(one))
        assert one.get_connection("n", "alice") is connection


@async_test
async def test_a_claim_without_time_is_not_carried_out_with_one_that_has_more(
    own_server: RedisServer,
) -> None:
    """Two claims in one call, of which Redis hears late: the one whose caller has given up closes
    nobody, and fails at its own deadline; the other wins."""
    async with Pool(own_server.url, node_id="one", timing=FAST) as one:
        older = [await one.host("n", "alice"), await one.host("n", "bob")]
        own_server.freeze()
        short = asyncio.create_task(one.host("n", "alice", timeout=0.2))
        long = asyncio.create_task(one.host("n", "bob", timeout=20))
        with pytest.raises(BackplaneUnavailableError):
            await short
        assert not long.done()
        own_server.thaw()
        await long
        assert await older[1].wait_closed() == (4409, "taken over")
        await eventually(lambda: agreed(one))
        assert older[0].closed is None
        assert one.statistics()["taken_over"] == 1


def answers_wait(pool: Pool, told: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delay Redis's answers to the claims of ``pool`` until ``told`` is set."""
    claim = pool._parts.backplane.claims.claim

    def claim_and_wait(*arguments: Any, **options: Any) -> Any:
        replies = claim(*arguments, **options)

        async def read() -> Any:
            answers = await replies
            await told.wait()
            return answers

        return read()

    monkeypatch.setattr(pool._parts.backplane.claims, "claim", claim_and_wait)


@async_test
async def test_a_send_meets_the_claim_for_which_it_was_routed(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer whose claim is registered, but not yet answered, gets messages to its id."""
    async with backend.pools() as (one, two):
        older, newer = await one.host("n", "alice"), FakeWebSocket()
        told = asyncio.Event()
        answers_wait(one, told, monkeypatch)
        joining = asyncio.create_task(one.new_connection(Connection("alice", "n", newer)))
        await eventually(lambda: older.closed)
        assert await two.send("n", "alice", "a") is SendResult.ROUTED
        assert await two.send("n", "alice", "b", confirm=True) is SendResult.DELIVERED
        assert not joining.done()
        told.set()
        await joining
        assert await newer.wait_sent(2) == ["a", "b"]
        assert older.sent == []


class AsgiWebSocket:
    """A handshake that an ASGI server has not answered yet, as Starlette has it."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        scope = {"type": "websocket", "headers": [], "path": "/", "subprotocols": []}
        self.websocket = WebSocket(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def _send(self, event: Any) -> None:
        self.said.append(event)


@async_test
async def test_accept_closes_a_client_that_lost_its_id_at_once(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer claim exists when the answer comes: not refused with 409, but accepted and closed
    with 4409, as it would have been a moment later."""
    async with backend.pools() as (one, two):
        told, asgi, plain = asyncio.Event(), AsgiWebSocket(), FakeWebSocket()
        answers_wait(one, told, monkeypatch)

        async def endpoint(websocket: Any, id: str) -> None:
            async with one.accept(websocket, namespace="n", id=id):
                raise AssertionError("it is no member")

        accepting = [
            asyncio.create_task(endpoint(asgi.websocket, "a")),
            asyncio.create_task(endpoint(plain, "b")),
        ]
        await eventually(lambda: is_member(two, "a"))
        await eventually(lambda: is_member(two, "b"))
        newer = [await two.host("n", "a"), await two.host("n", "b")]
        waiting = one._parts.ownership._pending.values()
        await eventually(lambda: all(pending.taken_at for (pending,) in waiting))
        told.set()
        for error in await asyncio.gather(*accepting, return_exceptions=True):
            assert isinstance(error, ConnectionClosedError)
            assert error.code == 4409
        assert plain.closed == (4409, "taken over")
        await eventually(lambda: len(asgi.said) == 2)
        assert [event["type"] for event in asgi.said] == ["websocket.accept", "websocket.close"]
        assert asgi.said[1]["code"] == 4409
        await eventually(lambda: agreed(one, two))
        assert [websocket.closed for websocket in newer] == [None, None]
        assert one.statistics()["taken_over"] == 2


async def fought_for(pool: Pool) -> FakeWebSocket:
    """The owner of ``alice``, after so many takeovers that the next claim waits."""
    owner = await pool.host("n", "alice")
    while not pool.statistics()["delayed_claims"] > 2:
        owner = await pool.host("n", "alice")
    return owner


@async_test
async def test_a_claim_that_waits_and_is_cancelled_takes_nothing(backend: Backend) -> None:
    """Clients fight for an id; one is cancelled before its turn comes: its claim is never sent."""
    async with backend.pools(1) as (one,):
        owner = await fought_for(one)
        joining = asyncio.create_task(one.host("n", "alice"))
        await eventually(lambda: one._parts.ownership.coming())
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        await eventually(lambda: not one._parts.ownership.coming())
        assert owner.closed is None
        assert await one.count("n") == 1
        rejecting = one.host("n", "alice", on_conflict="reject")
        with pytest.raises(IdTakenError):  # at once: it takes nothing from anybody
            await asyncio.wait_for(rejecting, 5)


@async_test
async def test_a_stop_fails_claims_that_wait_in_a_fight_at_once(backend: Backend) -> None:
    """A claim that waits for its turn fails with PoolClosedError, and owns nothing."""
    async with backend.pools(1) as (one,):
        owner = await fought_for(one)
        joining = asyncio.create_task(one.host("n", "alice", timeout=60))
        await eventually(lambda: one._parts.ownership.coming())
    assert joining.done()
    assert isinstance(joining.exception(), PoolClosedError)
    assert (await owner.wait_closed())[0] == 1012


def leaving(pool: Pool) -> list[str]:
    """The members with odd numbers, which are leaving, but not released yet."""
    return [id for id in held(pool) if int(id.split("-")[1]) % 2]


@async_test
async def test_a_thousand_joins_and_leaves_during_cuts(own_server: RedisServer) -> None:
    """When it is calm again, the registry is what the pools hold, and nobody lost an id."""
    chance = random.Random(5)
    calm = asyncio.Event()

    async def claimed_more(pool: Pool) -> None:
        before = pool.statistics()["accepted"]
        await eventually(lambda: calm.is_set() or pool.statistics()["accepted"] > before, 60)

    async def cut(pool: Pool, proxy: Network) -> None:
        """Half of the cuts wait for another claim, so that a slow machine gets on, too."""
        while not calm.is_set():
            await asyncio.sleep(chance.uniform(0.05, 0.25))
            if chance.random() < 0.5:
                await claimed_more(pool)
            await proxy.cut()

    async def come_and_go(pool: Pool, at: int) -> None:
        await asyncio.sleep(chance.uniform(0, 4))
        timeout = 30 if at % 4 < 2 else 1  # outlasts cuts, or may end in one
        try:
            websocket = await pool.host("n", f"{pool.node_id}-{at}", timeout=timeout)
        except BackplaneUnavailableError:
            return
        if at % 2:
            await asyncio.sleep(chance.uniform(0, 1))
            with contextlib.suppress(BackplaneUnavailableError):
                await pool.remove_connection(websocket.connection, timeout=1)  # type: ignore[attr-defined]

    async with (
        node_behind(own_server, "one") as (one, first),
        node_behind(own_server, "two") as (two, second),
    ):
        cuts = (cut(one, first), cut(two, second))
        cutting = [asyncio.create_task(each) for each in cuts]
        await asyncio.gather(*[come_and_go(pool, at) for pool in (one, two) for at in range(500)])
        await eventually(lambda: one.statistics()["generation"] > 5, 60)  # it is cut
        calm.set()
        await asyncio.gather(*cutting)
        await eventually(lambda: not leaving(one) and not leaving(two), 30)
        await eventually(lambda: agreed(one, two), 30)
        for pool in (one, two):
            stayed = sum(1 for id in held(pool) if not int(id.split("-")[1]) % 2)
            assert stayed > 5, "claims go through between the cuts"
            assert pool.statistics()["taken_over"] == 0


@async_test
async def test_claims_and_releases_gather_while_redis_is_slow(own_server: RedisServer) -> None:
    """Frozen for half a second: claims and releases gather, and leave in as many calls as may be
    in flight, and one more."""
    async with Pool(own_server.url, node_id="one") as pool:
        leaving = [(await pool.host("n", f"l{number}")).connection for number in range(50)]
        before = own_server.script_calls()
        own_server.freeze()
        waiting = []
        for number, connection in enumerate(leaving):
            waiting.append(asyncio.create_task(pool.host("n", f"c{number}")))
            waiting.append(asyncio.create_task(pool.remove_connection(connection)))
            await asyncio.sleep(0.01)  # so that they come over half a second, and not at once
        own_server.thaw()
        await asyncio.gather(*waiting)
        assert own_server.script_calls() - before <= 2 * (IN_FLIGHT + 1) + OTHERS
        assert await pool.count("n") == 50


@async_test
async def test_a_namespace_takes_no_more_members_than_its_limit(backend: Backend) -> None:
    """Decided by the claim itself: of claims that race from two nodes as many win as fit."""
    async with backend.pools(2, limits=Limits(namespace_members=5)) as (one, two):
        joins = [pool.host("n", f"{pool.node_id}-{at}") for at in range(10) for pool in (one, two)]
        results = await asyncio.gather(*joins, return_exceptions=True)
        refused = [one for one in results if isinstance(one, MembershipLimitError)]
        assert len(refused) == 15
        assert refused[0].limit == "namespace_members"
        assert refused[0].allowed == 5
        assert await one.count("n") == 5
        taken = next(id for id in {**held(one), **held(two)})
        await two.host("n", taken)
        assert await one.count("n") == 5, "a takeover needs no room"


@async_test
async def test_a_node_takes_no_more_namespaces_than_its_limit(backend: Backend) -> None:
    """One namespace more is refused before anything is subscribed; the others go on."""
    async with backend.pools(1, limits=Limits(node_namespaces=2)) as (one,):
        await one.host("a", "x")
        await one.host("b", "x")
        with pytest.raises(MembershipLimitError, match="node_namespaces"):
            await one.host("c", "x")
        await one.host("b", "y")
        assert not one._parts.backplane.shard.listens(f"{backend.prefix}:{{c}}")


@async_test
async def test_a_client_that_leaves_while_its_claim_waits_takes_no_id(backend: Backend) -> None:
    """Claims gather for some milliseconds; one whose client leaves meanwhile is not sent."""
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        claim_batcher = one._parts.ownership._claim_batcher
        second = Connection("alice", "n", FakeWebSocket())
        with patch.object(
            claim_batcher, "_flights", {one._parts.backplane.topology.of("n"): IN_FLIGHT}
        ):  # as many as may be under way
            claim = asyncio.create_task(one.new_connection(second))
            await eventually(lambda: claim_batcher._loads.claims)
            closing.cut(second)
        claim_batcher._schedule("n")
        with pytest.raises(ConnectionClosedError):
            await claim
        assert await one.send("n", "alice", "still?", confirm=True) is SendResult.DELIVERED
        assert await alice.wait_sent() == ["still?"]
        assert alice.closed is None


@async_test
async def test_a_newcomer_waits_for_a_link_that_was_up_just_now(own_server: RedisServer) -> None:
    """The next one is made in some 50 ms, and the claim goes on with it."""
    async with Pool(own_server.url, node_id="a", timing=FAST) as pool:
        own_server.command("CLIENT", "KILL", "TYPE", "pubsub")
        while pool._parts.backplane.shard.up:  # noqa: ASYNC110  # each turn: it is up again very soon
            await asyncio.sleep(0)
        await pool.new_connection(Connection("alice", "n", FakeWebSocket()))
        assert await pool.count("n") == 1


@pytest.mark.parametrize("on_conflict", ["takeover", "reject"])
@async_test
async def test_a_newcomer_does_not_wait_for_a_redis_that_is_away(
    own_server: RedisServer, on_conflict: str
) -> None:
    """The node knows it; a newcomer is told long before its time-out, and nothing is left."""
    async with Pool(own_server.url, node_id="a", timing=FAST) as pool:
        own_server.kill()
        await eventually(lambda: not pool._parts.backplane.shard.up)
        for _ in range(2):
            connection = Connection("alice", "n", FakeWebSocket())
            claim = pool.new_connection(connection, timeout=60, on_conflict=on_conflict)
            with pytest.raises(BackplaneUnavailableError) as refused:
                await asyncio.wait_for(claim, 10)
            assert not refused.value.maybe_executed
        own_server.start()
        await eventually(lambda: pool.ready and pool._parts.backplane.topology.share_up == 1)
        await pool.new_connection(Connection("alice", "n", FakeWebSocket()))
        assert await pool.count("n") == 1
