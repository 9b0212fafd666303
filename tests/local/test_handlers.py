"""Handlers that fail, that hang, and that hear of the end."""

import asyncio
import logging

import pytest

from cluster_pool import (
    Connection,
    ConnectionsPool,
    Limits,
    Timing,
)
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test, eventually


@async_test
async def test_an_exception_in_a_handler_does_not_spread(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once with its connection, counted, given to error handlers; reading goes on."""
    async with ConnectionsPool() as pool:
        connection = Connection("a\u202eb", "n", FakeWebSocket())
        await pool.new_connection(connection)
        errors: list[Exception] = []
        seen: list[str | bytes] = []

        async def fail(message: str) -> None:
            raise RuntimeError("on purpose")

        connection.on("message", fail)
        connection.on("message", seen.append)
        connection.on("error", errors.append)
        with caplog.at_level(logging.ERROR, "cluster_pool"):
            await connection.feed("x")
        assert seen == ["x"]
        assert [str(error) for error in errors] == ["on purpose"]
        assert pool.statistics()["handler_errors"] == 1
        (record,) = caplog.records
        assert "a\\u202eb" in record.getMessage()
        assert not connection.closed


@async_test
async def test_a_handler_that_always_fails_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first exception has its traceback in the log; all of them are counted."""
    async with ConnectionsPool() as pool:
        connection = Connection("a", "n", FakeWebSocket())
        await pool.new_connection(connection)
        connection.on("message", lambda message: 1 / 0)
        with caplog.at_level(logging.ERROR, "cluster_pool"):
            for _ in range(100):
                await connection.feed("x")
        assert pool.statistics()["handler_errors"] == 100
        assert len(caplog.records) == 1


@async_test
async def test_a_handler_that_hangs_is_reported_once_and_delays_no_other_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its own connection waits; sends to it and all others go on; the pool stops in time."""
    async with ConnectionsPool(timing=Timing(handler=0.5)) as pool:
        connection = Connection("a", "n", FakeWebSocket())
        other = Connection("b", "n", FakeWebSocket())
        for one in (connection, other):
            await pool.new_connection(one)
        for_ever = asyncio.Event()

        async def hang(message: str) -> None:
            await for_ever.wait()

        seen: list[str | bytes] = []
        connection.on("message", hang)
        other.on("message", seen.append)
        with caplog.at_level(logging.ERROR, "cluster_pool"):
            stuck = asyncio.create_task(connection.feed("x"))
            await eventually(lambda: pool.statistics()["handler_hangs"] == 1)
            await asyncio.sleep(1.1)  # another sweep
        assert pool.statistics()["handler_hangs"] == 1
        (record,) = caplog.records
        assert repr(connection) in record.getMessage()
        assert await pool.broadcast_message("n", "hi") == 2
        assert await connection.websocket.wait_sent() == ["hi"]
        await other.feed("y")
        assert seen == ["y"]
        for_ever.set()
        await stuck
        stuck = asyncio.create_task(connection.feed("x"))
    await stuck


@async_test
async def test_a_storm_of_faults_is_one_log_line_of_each_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Many clients break the same handler, or send too much: all are counted, one line names each
    fault, the number of the others with the next."""
    pool = ConnectionsPool(limits=Limits(inbound_per_second=2))

    def fail(message: str) -> None:
        if message == "a":
            raise RuntimeError("on purpose")
        raise RuntimeError("at another line")

    async with pool:
        with caplog.at_level(logging.INFO, "cluster_pool"):
            for number in range(50):
                connection = Connection(str(number), "n", FakeWebSocket())
                connection.on("message", fail)
                await pool.new_connection(connection)
                for _ in range(5):
                    await connection.feed("b" if number == 49 else "a")
        statistics = pool.statistics()
        assert statistics["inbound_floods"] == 50
        assert statistics["handler_errors"] >= 50
        assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]


@async_test
async def test_close_handlers_fire_once_for_any_reader() -> None:
    """``run`` ends when the connection does, and gives the code and the reason."""
    connection = Connection("1", "n", FakeWebSocket())
    told: list[tuple[int, str]] = []
    connection.on("close", lambda code, reason: told.append((code, reason)))
    pump = asyncio.create_task(connection.run())
    await connection.close(4000, "bye")
    await pump
    await connection.wait_closed()
    assert told == [(4000, "bye")]
