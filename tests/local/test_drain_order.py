"""The order in which a drain closes connections."""

import asyncio
from collections import Counter
from random import Random

from cluster_pool import ConnectionsPool
from cluster_pool.local.closing import cut
from cluster_pool.local.connection import Connection
from cluster_pool.local.drain_order import DrainOrder
from cluster_pool.local.outbox import begin_close, is_busy
from tests.drains import TimedWebSocket, UnreadWebSocket, join
from tests.support import async_test


def all_of(victims: DrainOrder) -> list[Connection]:
    """All connections, in the order of their end."""
    found = []
    while (connection := victims.next()) is not None:
        found.append(connection)
    return found


@async_test
async def test_every_connection_is_given_once() -> None:
    """No connection is given twice, none is forgotten; at the end there is none."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 50) + await join(pool, 20, "other")
        victims = DrainOrder(pool._table, Random(1))
        assert len(victims) == 0
        victims.refill()
        assert len(victims) == 70
        order = all_of(victims)
        assert Counter(order) == Counter(socket.connection for socket in sockets)
        assert len(victims) == 0
        assert victims.next() is None


@async_test
async def test_the_order_is_random() -> None:
    """It is not the order of arrival, and not the same twice."""
    async with ConnectionsPool() as pool:
        arrived = [socket.connection for socket in await join(pool, 100)]
        orders = []
        for seed in (1, 2):
            victims = DrainOrder(pool._table, Random(seed))
            victims.refill()
            orders.append(all_of(victims))
        assert orders[0] != orders[1]
        assert arrived not in orders


@async_test
async def test_no_namespace_empties_at_once() -> None:
    """In every part of the order each namespace has its share, however large it is."""
    sizes = {"large": 300, "middle": 60, "small": 20}
    async with ConnectionsPool() as pool:
        for name, size in sizes.items():
            await join(pool, size, name)
        victims = DrainOrder(pool._table, Random(1))
        victims.refill()
        order = [one.namespace for one in all_of(victims)]
        for upto in range(0, len(order), 19):
            gone = Counter(order[:upto])
            for name, size in sizes.items():
                assert abs(gone[name] - size * upto / len(order)) <= 2


@async_test
async def test_idle_connections_come_before_busy_ones() -> None:
    """One whose handler runs, or whose client has bytes to read, comes after all others."""
    async with ConnectionsPool() as pool:
        handling = await join(pool, 5, name="handling")
        unread = await join(pool, 5, kind=UnreadWebSocket, name="unread")
        await join(pool, 30, name="idle")
        hold = asyncio.Event()
        for socket in handling:
            socket.connection.on("message", lambda message: hold.wait())
        feeds = [asyncio.create_task(socket.connection.feed("x")) for socket in handling]
        for socket in unread:
            await socket.connection.send("x")
        await asyncio.sleep(0)
        victims = DrainOrder(pool._table, Random(1))
        victims.refill()
        order = all_of(victims)
        assert all(one.id.startswith("idle") for one in order[:30])
        assert {one.id.rstrip("01234") for one in order[30:]} == {"handling", "unread"}
        hold.set()
        await asyncio.gather(*feeds)
        for socket in unread:
            cut(socket.connection)


@async_test
async def test_a_connection_that_became_idle_is_not_put_off() -> None:
    """Whether it is busy is asked at its turn, not when the list is made."""
    async with ConnectionsPool() as pool:
        (socket,) = await join(pool, 1)
        hold = asyncio.Event()
        socket.connection.on("message", lambda message: hold.wait())
        feed = asyncio.create_task(socket.connection.feed("x"))
        await asyncio.sleep(0)
        assert is_busy(socket.connection)
        victims = DrainOrder(pool._table, Random(1))
        victims.refill()
        hold.set()
        await feed
        assert victims.next() is socket.connection


@async_test
async def test_a_connection_that_has_left_is_skipped() -> None:
    """A connection that closes before its turn is not closed again, nor if it was busy."""
    async with ConnectionsPool() as pool:
        sockets: list[TimedWebSocket] = await join(pool, 10)
        busy = (await join(pool, 2, kind=UnreadWebSocket, name="busy"))[0]
        await busy.connection.send("x")
        victims = DrainOrder(pool._table, Random(1))
        victims.refill()
        first = victims.next()
        gone = [socket.connection for socket in sockets[:5] if socket.connection is not first]
        for connection in [*gone, busy.connection]:
            cut(connection)
        assert not {*gone, busy.connection} & set(all_of(victims))


@async_test
async def test_a_refill_finds_connections_that_came_since() -> None:
    """A connection that came after the list was made is listed next; a closing one is not."""
    async with ConnectionsPool() as pool:
        old = await join(pool, 3, name="old")
        victims = DrainOrder(pool._table, Random(1))
        victims.refill()
        for connection in all_of(victims):
            begin_close(connection, 1012, "")
        new = await join(pool, 2, name="new")
        victims.refill()
        assert set(all_of(victims)) == {socket.connection for socket in new}
        assert all(socket.connection.closed for socket in old)
