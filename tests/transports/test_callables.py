"""A pair of callables, sync or async, and objects that have both."""

import asyncio

import pytest

from cluster_pool import Connection
from cluster_pool.transports.callables import CallablesTransport
from cluster_pool.transports.pick import transport_for
from tests.support import async_test, eventually


@async_test
async def test_async_callables_are_awaited_one_after_another() -> None:
    """A slow send holds up what is behind it and nothing else; order is kept."""
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
    """What can no longer be sent to is gone, and refuses what comes later."""

    def send(message: str | bytes) -> None:
        raise ConnectionResetError

    connection = Connection("1", "n", (send, lambda code, reason: None))
    await connection.send("x")
    await eventually(lambda: connection._transport.is_closed())
    await connection.send("y")
    await asyncio.sleep(0.01)
    assert connection.closed


def test_what_is_no_websocket_is_refused() -> None:
    """The error names the type."""
    for thing in (None, 5, (print,), (print, 5), object()):
        with pytest.raises(TypeError, match=type(thing).__name__):
            transport_for(thing)


@async_test
async def test_an_object_with_send_and_close_will_do() -> None:
    """No base class is needed."""

    class Socket:
        def send(self, message: str | bytes) -> None: ...
        def close(self, code: int, reason: str) -> None: ...

    assert isinstance(transport_for(Socket()), CallablesTransport)
