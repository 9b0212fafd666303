"""One subscribed socket: payloads are handed on, and confirmations go to their requests."""

import asyncio
from typing import Any

from cluster_pool.backplane.subscriber import Subscriber
from tests.support import async_test


class Socket:
    """Gives prepared replies to be read, and keeps the bytes written."""

    def __init__(self) -> None:
        self.pushes: asyncio.Queue[list[bytes]] = asyncio.Queue()

    async def read_response(self, **_: Any) -> Any:
        return await self.pushes.get()

    async def disconnect(self, **_: Any) -> None:
        pass


@async_test
async def test_a_channel_is_confirmed_by_the_reply_to_the_last_request_alone() -> None:
    """A channel that was given up and is wanted again is not confirmed by an older reply."""
    socket: Any = Socket()
    subscriber = Subscriber(socket, lambda channel, payload: None)
    reading = asyncio.create_task(subscriber.read_forever())
    first = subscriber.confirmed(b"a")
    subscriber.unsubscribe([b"a"])
    again = subscriber.confirmed(b"a")
    socket.pushes.put_nowait([b"subscribe", b"a"])
    socket.pushes.put_nowait([b"unsubscribe", b"a"])
    await asyncio.sleep(0.01)
    assert not first.done()
    assert not again.done()
    socket.pushes.put_nowait([b"subscribe", b"a"])
    assert await first
    assert await again
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@async_test
async def test_payloads_are_handed_on_in_the_order_of_arrival() -> None:
    """Unchanged and unread."""
    socket: Any = Socket()
    heard: list[tuple[bytes, bytes]] = []
    subscriber = Subscriber(socket, lambda *message: heard.append(message))
    reading = asyncio.create_task(subscriber.read_forever())
    for payload in (b"1", b"\xff", b""):
        socket.pushes.put_nowait([b"message", b"a", payload])
    await asyncio.sleep(0.01)
    assert heard == [(b"a", b"1"), (b"a", b"\xff"), (b"a", b"")]
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@async_test
async def test_a_lost_socket_confirms_nothing() -> None:
    """Neither earlier requests, nor later ones."""
    socket: Any = Socket()
    subscriber = Subscriber(socket, lambda channel, payload: None)
    before = subscriber.confirmed(b"a")
    await subscriber.drop()
    assert not await before
    assert not await subscriber.confirmed(b"b")
