"""The handover of an id that comes back faster than its former node has released it."""

import asyncio
from contextvars import copy_context
from typing import Any

import pytest

from cluster_pool import History
from cluster_pool.cluster import handovers
from cluster_pool.cluster.handovers import Handovers
from cluster_pool.core import envelope
from cluster_pool.core.claims import Claim
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.history import Position
from tests.cluster.returns.wire import Wire
from tests.clusters import Backend, Pool, connection_of
from tests.support import async_test, eventually

ROOM = "room"
ROOMS = {ROOM: History()}
FORMER = Claim("former.0", 5, "n1")
STORED, FINAL = Position("1", 3), Position("1", 9)


async def comes(pool: Pool, wire: Wire) -> bool | None:
    """A connection of one id, until its end; whether it got what it had missed."""
    accepting = pool.accept(wire.websocket, namespace=ROOM, id="alice", user="u")
    async with accepting as connection:
        await connection.run()
    return connection.recovered


def handovers_of(pool: Pool) -> Handovers:
    return pool._parts.rewinds.handovers


def item(position: Any, former: str = "5:n1", id: str = "alice") -> list[Any]:
    """As a former owner sends it."""
    return [envelope.PLACE, ROOM, id, former, position]


async def member_of(pool: Pool) -> Any:
    connection = connection_of(await pool.host(ROOM, "alice"))
    return connection._memberships[0]


@pytest.mark.parametrize("early", [True, False])
@async_test
async def test_the_position_that_is_told_counts(early: bool) -> None:
    """Whether it comes before anybody waits for it, or then."""
    async with Backend(None).pools(1, history=ROOMS) as (pool,):
        one, member = handovers_of(pool), await member_of(pool)
        if early:
            one.told(item("1 9"))
        waiting = asyncio.create_task(one.position(member, str(FORMER), STORED))
        await asyncio.sleep(0)
        one.told(item("1 8", former="6:n1"))
        one.told(item("1 8", id="bob"))
        if not early:
            one.told(item("1 9"))
        assert await waiting == FINAL
        assert one._awaited == {}


@async_test
async def test_an_owner_that_knows_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that says nothing is, for a moment: then what was stored counts."""
    monkeypatch.setattr(handovers, "PATIENCE", 0.1)
    async with Backend(None).pools(1, history=ROOMS) as (pool,):
        one, member = handovers_of(pool), await member_of(pool)
        assert await one.position(member, "", STORED) == STORED
        assert await one.position(member, "garbage", STORED) == STORED
        one.told(item(""))
        assert await one.position(member, str(FORMER), STORED) == STORED
        assert await one.position(member, str(FORMER), STORED) == STORED
        assert one._awaited == {}


@pytest.mark.parametrize("position", ["x", "1", "1 x", "1 2 3", 5, None, ["1 2"]])
@async_test
async def test_an_item_without_a_position_is_broken(position: Any) -> None:
    """It is counted and dropped, and the owner is waited for."""
    async with Backend(None).pools(1, history=ROOMS) as (pool,):
        with pytest.raises(BrokenEnvelopeError):
            handovers_of(pool).told(item(position))
        assert not handovers_of(pool)._early


@async_test
async def test_early_positions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten: then the owner is waited for in vain."""
    monkeypatch.setattr(handovers, "MOST_EARLY", 2)
    async with Backend(None).pools(1, history=ROOMS) as (pool,):
        for number in range(5):
            handovers_of(pool).told(item("1 9", id=str(number)))
        assert [id for _, id, _ in handovers_of(pool)._early] == ["3", "4"]


@async_test
async def test_an_id_that_is_taken_over_is_handed_over(backend: Backend) -> None:
    """The new owner begins where the former one had ended, not where it had stored."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        first = await one.host(ROOM, "alice")
        for number in range(5):
            await two.broadcast_message(ROOM, str(number))
        await first.wait_sent(5)
        account = one._parts.accounts._accounts[connection_of(first)]
        account.received(
            {member: place._replace(number=3) for member, place in account.has.items()}
        )
        second = await two.host(ROOM, "alice", on_conflict="takeover")
        assert connection_of(second).recovered
        await two.broadcast_message(ROOM, "live")
        assert await second.wait_sent(3) == ["3", "4", "live"]
        assert first.closed is not None


@async_test
async def test_nothing_is_told_where_there_is_no_history(backend: Backend) -> None:
    """A takeover costs no message more there."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        await one.host("lobby", "alice")
        former = await one.host(ROOM, "alice")
        told: list[str] = []
        send = handovers_of(one)._outbound.send

        def noted(namespace: str, *arguments: Any) -> Any:
            told.append(namespace)
            return send(namespace, *arguments)

        handovers_of(one)._outbound.send = noted  # type: ignore[method-assign, assignment]
        await two.host("lobby", "alice")
        await two.host(ROOM, "alice")
        assert await former.wait_closed() == (4409, "taken over")
        await eventually(lambda: told)
        assert told == [ROOM]


@async_test
async def test_a_client_that_answers_late_gets_nothing_twice(backend: Backend) -> None:
    """The body of its former connection has ended when its answer to the Close comes."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        former, latter = Wire(copy_context()), Wire(copy_context())
        body = asyncio.create_task(comes(one, former))
        await eventually(lambda: one.local.get_connection(ROOM, "alice"))
        await two.broadcast_message(ROOM, "1")
        await eventually(lambda: former.waiting)
        coming = asyncio.create_task(comes(two, latter))
        assert await body is None
        former.take()
        assert (former.got, former.closed) == (["1"], 4409)
        await two.broadcast_message(ROOM, "2")
        await eventually(lambda: latter.waiting)
        latter.take()
        assert latter.got == ["2"]
        latter.leave()
        assert await coming is True
