"""A membership in a table: listed there and at its connection, and how it ends."""

import asyncio
import gc
import weakref

from cluster_pool import Connection, ConnectionsPool, SendResult
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.statistics import Counters
from cluster_pool.local.membership import Departure, JoinedMembership, Membership
from cluster_pool.local.outbox import begin_close
from cluster_pool.local.table import ConnectionTable
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


def new_table() -> ConnectionTable:
    """An empty table without listeners."""
    return ConnectionTable(
        limits=Limits(), timing=Timing(), counters=Counters(), on_closing=lambda connection: None
    )


def new_membership() -> Membership[Connection]:
    """A membership of a new connection, in the namespace ``n``."""
    return Membership(Connection("alice", "n", FakeWebSocket()), "n", "alice")


@async_test
async def test_a_membership_is_listed_in_the_table_and_at_its_connection() -> None:
    """Until it is discarded; the connection then knows its departure."""
    table, membership = new_table(), new_membership()
    table.add(membership)
    assert table.get("n", "alice") is membership
    assert membership.connection._memberships == (membership,)
    departure = membership.depart()
    assert table.discard(membership)
    assert table.get("n", "alice") is None
    assert membership.connection._memberships == ()
    assert membership.connection._departures == (departure,)
    assert table.departure_of(membership.connection, "n") is departure


@async_test
async def test_an_older_membership_cannot_discard_a_newer_one_with_its_id() -> None:
    """A late release must not end what another connection, or the same one, has joined since."""
    table, older, newer = new_table(), new_membership(), new_membership()
    table.add(older)
    table.add(newer)
    assert not table.discard(older)
    assert table.get("n", "alice") is newer
    assert len(table) == 1
    again = Membership(newer.connection, "n", "alice")
    table.add(again)
    assert not table.discard(newer)
    assert newer.connection._memberships == (again,)


@async_test
async def test_a_departure_reports_once_that_it_emptied_its_namespace() -> None:
    """The first caller to ask may call its last-one callback; the first end counts."""
    departure = Departure("n")
    assert not departure.pop_emptied()
    departure.end(emptied=True)
    departure.end(emptied=False)
    await departure.over
    assert departure.pop_emptied()
    assert not departure.pop_emptied()


@async_test
async def test_a_departure_that_failed_has_emptied_nothing() -> None:
    """An answer that comes later is ignored."""
    departure = Departure("n")
    departure.fail(RuntimeError("stopped"))
    departure.end(emptied=True)
    assert isinstance(departure.over.exception(), RuntimeError)
    assert not departure.pop_emptied()


@async_test
async def test_a_departure_that_nobody_awaits_makes_no_future() -> None:
    """In a storm most are awaited by no task; a future that is asked for later is done at once."""
    ended, failed = Departure("n"), Departure("n")
    ended.end(emptied=False)
    failed.fail(RuntimeError("stopped"))
    assert ended._over is failed._over is None
    assert ended.over.done()
    assert isinstance(failed.over.exception(), RuntimeError)


@async_test
async def test_a_joined_membership_is_lost_alone() -> None:
    """Its connection keeps its home; and is one connection, whatever it has joined."""
    table, home = new_table(), new_membership()
    table.add(home)
    joined = JoinedMembership(home.connection, "m", "alice")
    table.add(joined)
    assert (len(table), len(table.memberships())) == (1, 2)
    assert table.connections() == [home.connection]
    assert home.connection.namespaces == ("n", "m")
    assert table.memberships_of(home.connection) == (home, joined)
    joined.depart()
    assert home.connection.namespaces == ("n",)
    assert table.discard(joined)
    assert table.memberships_of(home.connection) == (home,)
    assert len(table) == 1
    assert table.departure_of(home.connection, "m") is None


@async_test
async def test_a_closed_connection_keeps_all_of_its_departures() -> None:
    """So a callback that is named after the close, as the end of a body does, is still called."""
    table, home = new_table(), new_membership()
    joined = JoinedMembership(home.connection, "m", "alice")
    for membership in (home, joined):
        table.add(membership)
    begin_close(home.connection, 1000, "")
    for membership in (home, joined):
        departure = membership.depart()
        table.discard(membership)
        assert table.departure_of(home.connection, membership.namespace) is departure


@async_test
async def test_a_connection_that_left_is_freed_without_the_garbage_collector() -> None:
    """It and its membership refer to each other; such cycles would wait for the collector."""
    pool = ConnectionsPool()
    connection = Connection("alice", "n", FakeWebSocket())
    await pool.new_connection(connection)
    await pool.remove_connection(connection)
    freed = weakref.ref(connection)
    gc.disable()
    try:
        del connection
        assert freed() is None
    finally:
        gc.enable()


@async_test
async def test_a_member_closed_in_a_broadcast_does_not_stop_it() -> None:
    """One whose outbox is full leaves the table while the broadcast goes over it."""

    async def never(message: object) -> None:
        await asyncio.Event().wait()

    async def close(code: int, reason: str) -> None:
        pass

    limits, timing = Limits(outbox_bytes=1000), Timing(close=0.2)
    async with ConnectionsPool(limits=limits, timing=timing) as pool:
        hears = FakeWebSocket()
        await pool.new_connection(Connection("stuck", "n", (never, close)))
        await pool.new_connection(Connection("hears", "n", hears))
        for _ in range(2):
            assert await pool.send("n", "stuck", "x" * 900) is SendResult.DELIVERED
        assert await pool.broadcast_message("n", "y" * 900) == 1
        assert pool.get_connection("n", "stuck") is None
        assert await hears.wait_sent() == ["y" * 900]
