"""Connections whose identities expire: closed with 4401, at a pace, within a bound."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cluster_pool import Auth, AuthenticationError, Connection, Identity, Limits, Request
from cluster_pool.cluster import expiries as module
from cluster_pool.cluster.expiries import Expiries
from cluster_pool.core.statistics import Counters
from cluster_pool.local import attachment
from cluster_pool.local.grant import Grant
from cluster_pool.local.table import ConnectionTable
from cluster_pool.testing import FAST, FakeWebSocket
from tests.support import async_test, eventually


@asynccontextmanager
async def expiring(rate: float = 1000.0) -> AsyncIterator[Expiries]:
    """Those of a node, with its counters."""
    watched = Expiries(rate, Counters())
    try:
        yield watched
    finally:
        await watched.stop()


def connection(watched: Expiries, expires: float | None, auth: Auth | None = None) -> Connection:
    """A connection that is watched."""
    made = Connection("alice", "n", FakeWebSocket())
    attachment.grant(made, Grant(Identity(user="42", expires=expires), auth))
    table = ConnectionTable(
        limits=Limits(),
        timing=FAST,
        counters=Counters(),
        on_closing=watched.forget,
        on_renewed=watched.watch,
    )
    attachment.attach(made, table)
    watched.watch(made)
    return made


def later(seconds: float) -> float:
    """A moment by the clock of the machine."""
    return time.time() + seconds


@async_test
async def test_a_connection_is_closed_when_its_identity_expires() -> None:
    async with expiring() as watched:
        soon, much_later, never = (connection(watched, at) for at in (later(0.1), later(60), None))
        assert not soon.closed
        await eventually(lambda: soon.closed)
        assert (soon.close_code, soon.close_reason) == (4401, "expired")
        assert not much_later.closed
        assert not never.closed
        assert watched._counters.expired == 1
        assert len(watched) == 1


@async_test
async def test_connections_that_expire_together_are_spread() -> None:
    """At the rate of the node, in the order in which they expired."""
    async with expiring(rate=20.0) as watched:
        many = [connection(watched, later(-1)) for _ in range(60)]
        await eventually(lambda: many[0].closed)
        assert not many[-1].closed
        await eventually(lambda: many[30].closed)
        closed = [one.closed for one in many]
        assert closed == sorted(closed, reverse=True)
        assert not many[-1].closed


@async_test
async def test_a_slow_node_closes_faster_than_its_rate_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SPREAD", 1.0)
    async with expiring(rate=0.001) as watched:
        many = [connection(watched, later(-1)) for _ in range(200)]
        await eventually(lambda: all(one.closed for one in many))
        assert not len(watched)


@async_test
async def test_a_loop_with_long_turns_closes_all_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks seldom, so each look closes more; and it does not close all in one turn."""
    monkeypatch.setattr(module, "SPREAD", 2.0)

    async def work() -> None:
        while True:
            time.sleep(0.1)  # noqa: ASYNC251
            await asyncio.sleep(0)

    async with expiring(rate=0.001) as watched:
        many = [connection(watched, later(-1)) for _ in range(600)]
        working = asyncio.create_task(work())
        looks = [(time.monotonic(), 0)] * 2
        while len(watched):
            await asyncio.sleep(0.01)
            looks.append((time.monotonic(), sum(one.closed for one in many)))
        assert looks[-1][0] - looks[0][0] < 6.0
        for at in range(2, len(looks)):  # what this look saw may belong to the time before the last
            seconds, closed = looks[at][0] - looks[at - 2][0], looks[at][1] - looks[at - 1][1]
            assert closed <= 2 * len(many) * seconds / module.SPREAD, looks
        working.cancel()


@async_test
async def test_a_connection_that_was_renewed_or_has_gone_is_not_closed() -> None:
    moments = iter([later(60), later(3)])
    auth = Auth(authenticate=lambda request: Identity(user="42", expires=next(moments)))
    async with expiring() as watched:
        alice = connection(watched, later(0.3), auth)
        bob = connection(watched, later(0.3))
        watched.forget(bob)
        await alice.renew("token")
        await asyncio.sleep(1.5)
        assert not alice.closed
        assert not bob.closed
        await alice.renew("sooner")
        await eventually(lambda: alice.closed)
        assert len(watched) == 0


@async_test
async def test_connections_that_come_and_go_leave_nothing() -> None:
    """Each of them would have expired in another second, far away."""
    async with expiring() as watched:
        stays = connection(watched, later(0.3))
        for seconds in range(1000):
            watched.forget(connection(watched, later(100 + seconds)))
        again = connection(watched, later(150))
        assert len(watched) == len(watched._buckets) == 2
        assert len(watched._order) < 100
        await eventually(lambda: stays.closed)
        assert not again.closed


@async_test
async def test_a_renewal_is_by_the_same_user_for_the_same_connection() -> None:
    asked: list[Request] = []
    answers = iter(
        [
            *(None, Identity(user="43"), Identity(user="42", namespace="other")),
            *(Identity(user="42", id="bob"), Identity(user="42", id="alice", namespaces=["*"])),
        ]
    )

    def authenticate(request: Request) -> Identity | None:
        asked.append(request)
        return next(answers)

    async with expiring() as watched:
        alice = connection(watched, later(60), Auth(authenticate=authenticate))
        before = alice.identity
        for _ in range(4):
            with pytest.raises(AuthenticationError):
                await alice.renew("new")
            assert alice.identity is before
        await alice.renew("new")
        assert (alice.expires, alice.user) == (None, "42")
        assert asked[-1].headers["authorization"] == "Bearer new"
        assert len(watched) == 0
    with pytest.raises(AuthenticationError, match="without auth"):
        await connection(watched, None).renew("x")
    with pytest.raises(AuthenticationError, match="without auth"):
        await Connection("a", "n", FakeWebSocket()).renew("x")
