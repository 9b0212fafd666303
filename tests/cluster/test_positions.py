"""How far members have received histories, and when that is stored."""

from collections.abc import Iterable
from typing import Any

import pytest

from cluster_pool import Connection, History
from cluster_pool.cluster import positions
from cluster_pool.cluster.positions import Accounts, Member, MemberAccount, Once, mark_of
from cluster_pool.core.claims import Claim
from cluster_pool.core.history import Position
from cluster_pool.local.membership import Membership
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, Pool, connection_of
from tests.support import async_test, eventually

ROOM = "room"
ROOMS = {"room*": History()}


class Kept:
    """An account of one connection with one member, and what it has told."""

    def __init__(self, base: int = 10) -> None:
        self.connection = Connection("alice", ROOM, FakeWebSocket())
        self.member: Member = Membership(self.connection, ROOM, "alice")
        self.reached: dict[str, Position] = {}
        self.changed: list[Member] = []
        self.account = MemberAccount(self.reached, self._changed)
        self.account.has[self.member] = Position("1", 5)
        self.account.bases[self.member] = Position("1", base)

    def _changed(self, members: Iterable[Member]) -> None:
        self.changed += members

    def written(self) -> str:
        return str(self.account.written()[self.member])


def test_all_that_was_given_to_the_members_counts_as_written() -> None:
    """But nothing below the place up to which the past was replayed; an epoch that is another
    counts as soon as it is heard."""
    one = Kept(base=10)
    assert one.written() == "1.10"
    one.reached[ROOM] = Position("1", 8)
    assert one.written() == "1.10"
    one.reached[ROOM] = Position("1", 12)
    assert one.written() == "1.12"


def test_nothing_counts_as_written_before_the_past_was_replayed() -> None:
    """A Pong that comes earlier proves nothing."""
    one = Kept()
    del one.account.bases[one.member]
    one.reached[ROOM] = Position("1", 99)
    assert one.account.written() == {}
    one.account.received({})
    assert one.account.has[one.member] == Position("1", 5)


def test_messages_after_a_close_do_not_count_as_written() -> None:
    """Though the node goes on hearing it for other members."""
    one = Kept()
    one.reached[ROOM] = Position("1", 12)
    one.account.closing()
    one.reached[ROOM] = Position("1", 13)
    assert one.written() == "1.12"


def test_a_receipt_is_stored_if_it_is_news() -> None:
    """Once; no word at all is none."""
    one = Kept()
    word = one.account.written()
    one.account.received(word)
    one.account.received(word)
    one.account.received(None)
    assert one.changed == [one.member]
    assert one.account.has == word


def test_the_end_is_told_once_to_each_that_waits() -> None:
    """However often it is told."""
    one, told = Kept(), list[str]()
    once = Once(lambda: told.append("once"))
    one.account.parked += [once, once, lambda: told.append("released")]
    one.account.over()
    one.account.over()
    assert one.account.is_over
    assert told == ["once", "released"]


def accounts_of(pool: Pool) -> Accounts:
    return pool._parts.accounts


def stored(backend: Backend, pool: Pool) -> dict[str, int]:
    """The stored numbers by id."""
    with backend.sync_client() as client:
        found = client.hgetall(pool._parts.setup.keys.positions(ROOM))
    return {id.decode(): int(entry.split()[1]) for id, entry in found.items() if id}


@async_test
async def test_received_positions_are_stored(backend: Backend) -> None:
    """Once a second, and again for a member of which nothing was heard."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        websocket = await pool.host(ROOM, "alice")
        for number in range(3):
            await pool.broadcast_message(ROOM, str(number))
        await websocket.wait_sent(3)
        assert stored(backend, pool) == {"alice": 0}
        accounts = accounts_of(pool)
        account = accounts._accounts[connection_of(websocket)]
        await eventually(lambda: [one.number for one in account.written().values()] == [3])
        account.received(account.written())
        await eventually(lambda: stored(backend, pool) == {"alice": 3})
        with backend.sync_client() as client:
            client.delete(pool._parts.setup.keys.positions(ROOM))
        accounts._renew_at = 0
        await eventually(lambda: stored(backend, pool) == {"alice": 3})


@async_test
async def test_accounts_of_connections_that_are_gone_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their last positions are kept for those that take the ids over, a bounded number of them."""
    monkeypatch.setattr(positions, "MOST_PARTED", 3)
    backend = Backend(None)
    async with backend.pools(1, history=ROOMS) as (pool,):
        accounts = accounts_of(pool)
        for number in range(10):
            websocket = await pool.host(ROOM, f"id-{number}")
            await connection_of(websocket).close()
        await eventually(lambda: not accounts._accounts)
        assert len(accounts._parted) == 3
        assert accounts._due == {}
        assert set(stored(backend, pool)) == {f"id-{number}" for number in range(10)}


@async_test
async def test_a_membership_that_ended_alone_leaves_the_account() -> None:
    """Its connection goes on in its home."""
    async with Backend(None).pools(1, history=ROOMS) as (pool,):
        connection = connection_of(await pool.host(ROOM, "alice"))
        accounts = accounts_of(pool)
        await connection.join("room-2")
        await connection.leave("room-2")
        await eventually(lambda: len(accounts._accounts[connection].has) == 1)


@async_test
async def test_redis_that_is_away_loses_no_position(backend: Backend) -> None:
    """It is stored when it can be."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        websocket = await pool.host(ROOM, "alice")
        await pool.broadcast_message(ROOM, "text")
        accounts, claims = accounts_of(pool), pool._parts.backplane.claims
        account = accounts._accounts[connection_of(websocket)]
        await eventually(lambda: [one.number for one in account.written().values()] == [1])
        store, tried = accounts._claims.store_positions, list[Any]()

        async def refused(*arguments: Any) -> None:
            tried.append(arguments)
            raise positions.BackplaneUnavailableError("no")

        claims.store_positions = refused  # type: ignore[method-assign]
        account.received(account.written())
        await eventually(lambda: len(tried) > 1)
        claims.store_positions = store  # type: ignore[method-assign]
        await eventually(lambda: stored(backend, pool) == {"alice": 1})


def test_the_mark_of_a_claim_stays_over_rejoins() -> None:
    """Its lease changes."""
    claim = Claim("start.0", 5, "n1")
    assert mark_of(claim) == mark_of(claim._replace(incarnation="start.1")) == "5:n1"
