"""Claims and releases that Redis refuses, that cannot be written, or whose callers have gone."""

import asyncio
from typing import Any

import pytest

from cluster_pool import (
    BackplaneUnavailableError,
    Connection,
    ConnectionClosedError,
    IdTakenError,
    PoolClosedError,
    Timing,
)
from cluster_pool.core.claims import Claim, incarnation_of
from cluster_pool.testing import FakeWebSocket
from tests.cluster.test_ownership import agreed, answers_wait, is_member, node_behind
from tests.clusters import Backend, Pool, connection_of
from tests.servers import RedisServer
from tests.support import async_test, eventually


def fails_once(pool: Pool, name: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call of an operation on the registry raises, and those after it do not."""
    backplane = pool._parts.backplane
    room = backplane.claims if hasattr(backplane.claims, name) else backplane.leases
    operation = getattr(room, name)

    def failing(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(room, name, operation)
        raise error

    monkeypatch.setattr(room, name, failing)


@async_test
async def test_claims_and_releases_that_redis_refuses_fail_or_are_tried_again(
    own_server: RedisServer,
) -> None:
    """Out of memory: claims raise at once, releases wait; with memory again both succeed."""
    async with Pool(own_server.url, node_id="one", timing=Timing(lease=3, heartbeat=0.5)) as one:
        alice = await one.host("n", "alice")
        await one.host("n", "bob")
        own_server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BackplaneUnavailableError, match="refused"):
            await one.host("n", "carol", timeout=20)
        leaving = asyncio.create_task(one.remove_connection(alice.connection, timeout=20))  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        own_server.command("CONFIG", "SET", "maxmemory", "0")
        await leaving
        await one.host("n", "carol")
        await eventually(lambda: agreed(one))
        assert await one.count("n") == 2


@async_test
async def test_a_batch_that_cannot_be_written_fails_alone(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its claims fail; another namespace's join succeeds; a release is tried again by itself."""
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        fails_once(one, "claim", RuntimeError("on purpose"), monkeypatch)
        joins = [one.host("n", "bob"), one.host("m", "bob")]
        outcomes = await asyncio.gather(*joins, return_exceptions=True)
        (failed,) = [one for one in outcomes if isinstance(one, BackplaneUnavailableError)]
        assert "on purpose" in str(failed)
        assert not failed.maybe_executed
        fails_once(one, "release", RuntimeError("on purpose"), monkeypatch)
        await one.remove_connection(alice.connection, timeout=20)  # type: ignore[attr-defined]
        assert await one.count("n") + await one.count("m") == 1
        assert len([record for record in caplog.records if record.exc_info]) == 2
        await one.host("n", "bob")


@async_test
async def test_a_claim_that_cannot_learn_whether_the_owner_lives_fails(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim under ``reject`` meets another owner, and Redis does not say whose lease is valid."""
    async with backend.pools() as (one, two):
        await one.host("n", "alice")
        fails_once(two, "living", BackplaneUnavailableError("on purpose"), monkeypatch)
        with pytest.raises(BackplaneUnavailableError, match="on purpose"):
            await two.host("n", "alice", on_conflict="reject", timeout=20)


@async_test
async def test_a_newcomer_of_a_node_without_a_lease_fails_in_time(
    own_server: RedisServer,
) -> None:
    """Its namespace is subscribed, but the node's lease is over. It is not claimed later."""
    async with node_behind(own_server, "one") as (one, proxy):
        await one.host("n", "alice")
        await proxy.refuse()
        await eventually(lambda: not one._parts.lease.held)
        with pytest.raises(BackplaneUnavailableError):
            await one.host("n", "bob", timeout=0.2)
        await proxy.accept()
        await eventually(lambda: one.ready, 20)
        assert not await is_member(one, "bob")
        await one.host("n", "carol")
        await eventually(lambda: agreed(one))


@async_test
async def test_a_join_that_waits_for_a_subscription_fails_when_the_pool_stops(
    own_server: RedisServer,
) -> None:
    """A join that comes after the stop has begun fails, too."""
    async with node_behind(own_server, "one") as (one, proxy):
        proxy.hold(upwards=False)
        joining = asyncio.create_task(one.host("n", "alice", timeout=60))
        await eventually(lambda: one._parts.ownership._namespaces._subscriptions)
        one._parts.ownership.end()
        with pytest.raises(PoolClosedError):
            await one.host("n", "bob")
        proxy.heal()
    with pytest.raises(PoolClosedError):
        await joining


@async_test
async def test_with_a_secret_a_takeover_is_verified_in_the_registry(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A takeover is told without a seal: the registry is asked whether the newcomer lost its id."""
    async with backend.pools(secret="not known to strangers") as (one, two):
        told = asyncio.Event()
        answers_wait(one, told, monkeypatch)
        joining = asyncio.create_task(one.host("n", "alice"))
        await eventually(lambda: is_member(two, "alice"))
        newer = await two.host("n", "alice")
        await eventually(lambda: one._parts.ownership._pending["n", "alice"][0].taken_at)
        told.set()
        try:
            older = await joining
        except ConnectionClosedError as error:
            assert error.code == 4409  # noqa: PT017  # both are right
        else:
            assert (await older.wait_closed())[0] == 4409
        await eventually(lambda: agreed(one, two))
        assert newer.closed is None


@async_test
async def test_a_takeover_of_a_claim_that_was_asserted_since_closes_no_connection(
    backend: Backend,
) -> None:
    """It was told before the rejoin, at which the registry confirmed the claim."""
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        (membership,) = alice.connection._memberships  # type: ignore[attr-defined]
        before = membership.claim
        start = one._parts.backplane.shard.start_name
        membership.claim = before._replace(incarnation=incarnation_of(start, before.rejoin + 1))
        one._parts.ownership.taken_over("n", "alice", before)
        assert alice.closed is None
        membership.claim = before


@async_test
async def test_a_newcomer_that_takes_nothing_over_waits_for_owners_that_register_again(
    backend: Backend,
) -> None:
    """A server that has taken over may lack the owner's claim for a moment: the id is not lost."""
    async with backend.pools() as (one, two), backend.client() as client:
        alice = await one.host("n", "alice")
        await two.host("n", "bob")
        members, loop = f"{backend.prefix}:{{n}}:members", asyncio.get_running_loop()
        claim = await client.hget(members, "alice")
        await client.hdel(members, "alice")
        servers = two._parts.backplane.topology.of("n").succession
        servers.patient_until = loop.time() + 0.5
        joining = asyncio.create_task(two.host("n", "alice", on_conflict="reject", timeout=20))
        await two.host("n", "carol")
        assert not joining.done()
        await client.hset(members, "alice", claim)
        with pytest.raises(IdTakenError):
            await joining
        assert alice.closed is None


@async_test
async def test_a_claim_that_is_late_because_of_its_lease_is_sent_again(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has time left, and Redis has certainly not carried it out."""
    async with Backend(own_server).pools(1) as (one,):
        left = [-1.0, -1.0, 5.0]
        monkeypatch.setattr(
            one._parts.lease, "seconds_left", lambda: left.pop(0) if left[1:] else left[0]
        )
        await one.host("n", "alice", timeout=30)
        assert left == [5.0]
        assert await one.count("n") == 1


@async_test
async def test_a_claim_that_was_cancelled_costs_the_next_one_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has answered neither when the caller comes again with the same connection."""
    async with backend.pools(1) as (one,):
        told = asyncio.Event()
        answers_wait(one, told, monkeypatch)
        websocket = FakeWebSocket()
        connection = Connection("alice", "n", websocket)
        await cancelled(one.new_connection(connection), one)
        again = asyncio.create_task(one.new_connection(connection))
        await asyncio.sleep(0.1)
        told.set()
        await again
        await eventually(lambda: agreed(one))
        assert one.get_connection("n", "alice") is connection
        assert websocket.closed is None


@async_test
async def test_a_join_that_was_cancelled_costs_the_next_one_nothing(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is not told that it has left: it is a member, by its second claim."""
    async with backend.pools(1) as (one,):
        connection = connection_of(await one.host("app", "alice"))
        left: list[tuple[str, str]] = []
        connection.on("left", lambda *event: left.append(event))
        told = asyncio.Event()
        answers_wait(one, told, monkeypatch)
        await cancelled(connection.join("n"), one)
        again = asyncio.create_task(connection.join("n"))
        await asyncio.sleep(0.1)
        told.set()
        await again
        await eventually(lambda: agreed(one))
        assert connection.namespaces == ("app", "n")
        assert left == []
        await connection.leave("n")
        assert await one.count("n") == 0


async def cancelled(claiming: Any, pool: Pool) -> None:
    """Cancel a call that claims ``alice`` once its claim is registered."""
    task = asyncio.ensure_future(claiming)
    await eventually(lambda: is_member(pool, "alice"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@async_test
async def test_a_takeover_of_an_earlier_attempt_does_not_concern_the_one_that_won(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer claim had been released before that: what is registered is owned."""
    async with backend.pools(1) as (one,):
        told = asyncio.Event()
        answers_wait(one, told, monkeypatch)
        joining = asyncio.create_task(one.host("n", "alice"))
        await eventually(lambda: is_member(one, "alice"))
        ownership = one._parts.ownership
        (pending,) = ownership._pending["n", "alice"]
        earlier = Claim(one._parts.lease.incarnation, 1, pending.nonce)
        ownership.taken_over("n", "alice", earlier)
        told.set()
        alice = await joining
        await eventually(lambda: agreed(one))
        assert alice.closed is None
