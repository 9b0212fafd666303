"""A pair of callables, sync or async; other objects of unknown kind are refused."""

import asyncio

import pytest

from cluster_pool import Connection, NotReadableError
from cluster_pool.transports.callables import CallablesTransport
from tests.support import async_test, eventually


@async_test
async def test_async_callables_are_awaited_one_after_another() -> None:
    """A slow send delays later messages of its connection only; order is kept."""
    sent: list[str | bytes] = []
    closed: list[tuple[int, str]] = []

    async def send(message: str | bytes) -> None:
        await asyncio.sleep(0.001)
        sent.append(message)

    async def close(code: int, reason: str) -> None:
        closed.append((code, reason))

    connection = Connection("1", "n", (send, close))
    for number in range(10):
        await connection.send(str(number))
    await connection.close(4000, "x")
    assert sent == [str(number) for number in range(10)]
    assert closed == [(4000, "x")]


@async_test
async def test_a_send_that_raises_ends_the_connection() -> None:
    """A connection that cannot be written to is gone, and refuses later messages."""

    def send(message: str | bytes) -> None:
        raise ConnectionResetError

    connection = Connection("1", "n", (send, lambda code, reason: None))
    await connection.send("x")
    await eventually(lambda: connection._transport.is_closed())
    await connection.send("y")
    await asyncio.sleep(0.01)
    assert connection.closed


@async_test
async def test_a_connection_without_receive_cannot_be_iterated_over() -> None:
    """The iteration would never yield; ``run`` and ``wait_closed`` wait for the end."""
    connection = Connection("1", "n", (print, lambda code, reason: None))
    with pytest.raises(NotReadableError, match="feed"):
        async for _ in connection:
            pass
    waiting = [asyncio.create_task(connection.run())]
    await connection.close(4000)
    await asyncio.gather(*waiting)
    await connection.wait_closed()


@async_test
async def test_a_refusal_waits_for_the_close() -> None:
    """The application returns behind it, and its server then cuts the socket."""
    closed: list[tuple[int, str]] = []

    async def close(code: int, reason: str) -> None:
        await asyncio.sleep(0.01)
        closed.append((code, reason))

    await CallablesTransport(print, close).refuse(403, "not permitted")
    assert closed == [(1008, "not permitted")]


@async_test
async def test_a_refusal_does_not_wait_for_the_answer_to_a_close() -> None:
    """Some libraries return from a close when the client has answered it, or never."""

    async def close(code: int, reason: str) -> None:
        await asyncio.Event().wait()

    transport = CallablesTransport(print, close)
    await asyncio.wait_for(transport.refuse(403, "not permitted"), 5)
    transport.abort()
