"""The end of a connection: deadlines, cuts, clients that leave."""

import asyncio
from math import inf

import pytest

from cluster_pool import Connection, ConnectionsPool, SendResult, Timing
from cluster_pool.local.closing import (
    client_left,
    cut,
    deadline_of,
    is_gone,
    is_late,
    is_lost,
    is_over,
    note_end,
)
from cluster_pool.local.outbox import begin_close
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test

TIMING = Timing(flush=2.0, close=5.0)


@pytest.mark.parametrize(
    ("within", "handshake"), [(None, 5.0), (inf, 5.0), (7.0, 5.0), (3.5, 2.5), (0.0, 0.0)]
)
@async_test
async def test_a_deadline_shortens_flush_and_handshake_alike(
    within: float | None, handshake: float
) -> None:
    """Without bytes that wait, all that is left of the time is the handshake's."""
    async with ConnectionsPool(timing=TIMING) as pool:
        connection = Connection("1", "n", FakeWebSocket())
        await pool.new_connection(connection)
        now = asyncio.get_running_loop().time()
        begin_close(connection, 1012, "", within)
        assert deadline_of(connection) - now == pytest.approx(handshake, abs=0.2)
        assert not is_late(connection, deadline_of(connection) - 0.01)
        assert is_late(connection, deadline_of(connection))


@async_test
async def test_a_cut_is_counted_once_and_ends_the_connection() -> None:
    """It is gone at once, accepts no message, and is no member any more."""
    async with ConnectionsPool() as pool:
        connection = Connection("1", "n", FakeWebSocket())
        await pool.new_connection(connection)
        cut(connection)
        cut(connection)
        assert (is_gone(connection), is_lost(connection), is_over(connection)) == (True,) * 3
        assert connection.close_code == 1006
        assert await connection.send("late") is SendResult.REFUSED
        assert pool.statistics()["forced_closes"] == 1
        assert not pool.has_namespace("n")


@async_test
async def test_a_client_that_leaves_is_no_member_although_its_socket_stays() -> None:
    """The first reason for the end is kept."""
    async with ConnectionsPool() as pool:
        connection = Connection("1", "n", FakeWebSocket())
        await pool.new_connection(connection)
        client_left(connection, 1001, "bye")
        client_left(connection, 1000, "")
        note_end(connection, 1006, "")
        assert (connection.close_code, connection.close_reason) == (1001, "bye")
        assert (connection.closed, is_over(connection), is_gone(connection)) == (True, True, False)
        assert pool.get_connection("n", "1") is None
