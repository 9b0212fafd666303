"""Reading ahead: what is kept and dropped, when reading stops, and that the end is noticed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster_pool.transports.ahead import ReadAhead
from cluster_pool.transports.base import OVERHEAD, Ahead
from tests.support import async_test, eventually

MESSAGE = OVERHEAD + 100


class Client:
    """An ASGI ``receive``, and a record of its watcher's calls."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.over: list[tuple[int, str]] = []
        self.lost = 0

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.said.put_nowait({"type": "websocket.receive", "text": f"{number:0100}"})

    def leave(self) -> None:
        self.said.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": "bye"})

    def client_left(self, code: int, reason: str) -> None:
        self.over.append((code, reason))

    def dropped(self, *, first: bool) -> None:
        assert first is (self.lost == 0)
        self.lost += 1


@contextlib.asynccontextmanager
async def reading(ahead: Ahead) -> AsyncIterator[tuple[Client, ReadAhead]]:
    """A client that is read ahead; afterwards nothing of it is counted."""
    client = Client()
    read = ReadAhead(client.said.get, ahead)
    read.watch(client)
    yield client, read
    await read.unwatch(client)
    assert read._held == 0


async def take(read: ReadAhead, count: int) -> list[int]:
    return [int((await read.next())["text"]) for _ in range(count)]


@async_test
async def test_unread_messages_are_kept_within_a_limit_and_the_end_is_noticed() -> None:
    """The first messages are kept whole; later ones are counted; then comes the end, to stay."""
    async with reading(Ahead(5 * MESSAGE, 100 * MESSAGE, 60)) as (client, read):
        client.say(*range(20))
        client.leave()
        await eventually(lambda: client.over == [(1001, "bye")])
        assert client.lost == 15
        assert await take(read, 5) == [0, 1, 2, 3, 4]
        for _ in range(2):
            end = await read.next()
            assert (end["type"], end["code"]) == ("websocket.disconnect", 1001)


@async_test
async def test_empty_messages_are_bounded_too() -> None:
    """Each of them counts as some bytes."""
    async with reading(Ahead(5 * OVERHEAD, 100 * OVERHEAD, 60)) as (client, _):
        for _ in range(10):
            client.said.put_nowait({"type": "websocket.receive", "bytes": b""})
        await eventually(lambda: client.lost == 5)


@async_test
async def test_all_clients_share_a_limit_and_each_has_room_for_a_message() -> None:
    """A client may keep one message although the shared limit is reached."""
    ahead = Ahead(5 * MESSAGE, 5 * MESSAGE, 60)
    async with reading(ahead) as (one, _), reading(ahead) as (two, read):
        one.say(*range(5))
        await eventually(lambda: ahead.held == 5 * MESSAGE)
        two.say(*range(5))
        await eventually(lambda: two.lost == 4)
        assert await take(read, 1) == [0]
    assert ahead.held == 0


@async_test
async def test_reading_stops_behind_a_slow_reader_and_goes_on() -> None:
    """Nothing is dropped, order is kept; the server holds the rest back."""
    async with reading(Ahead(5 * MESSAGE, 100 * MESSAGE, 60)) as (client, read):
        client.say(0)
        assert await take(read, 1) == [0]
        client.say(*range(1, 41))
        await eventually(lambda: client.said.qsize() == 34)
        assert await take(read, 40) == list(range(1, 41))
        assert client.lost == 0


@async_test
async def test_a_reader_that_has_stalled_does_not_hide_the_end() -> None:
    """After so many seconds without a read it counts as a body that does not read; with its next
    read it is a reader again."""
    async with reading(Ahead(5 * MESSAGE, 100 * MESSAGE, 0.1)) as (client, read):
        client.say(0)
        assert await take(read, 1) == [0]
        client.say(*range(1, 41))
        client.leave()
        await eventually(lambda: client.over)
        assert client.lost == 34
        assert await take(read, 6) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("leaves", [False, True])
@async_test
async def test_a_message_in_the_turn_of_a_cancellation_is_not_lost(leaves: bool) -> None:
    """The next reader gets it, also when the client has left in the same turn."""
    async with reading(Ahead(5 * MESSAGE, 100 * MESSAGE, 60)) as (client, read):
        taking = asyncio.create_task(read.next())
        await asyncio.sleep(0.01)
        client.say(7, 8)
        if leaves:
            client.leave()
        await asyncio.sleep(0)  # it has received all, and its taker has not run yet
        assert client.said.empty()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert bool(client.over) is leaves
        assert await take(read, 2) == [7, 8]


@async_test
async def test_an_error_of_the_server_goes_to_the_reader_and_a_lost_socket_is_the_end() -> None:
    """The RuntimeError about a second reader is no departure."""
    for error, told in ((RuntimeError("another reads"), []), (OSError(), [(1006, "")])):

        async def receive(error: Exception = error) -> dict[str, Any]:
            raise error

        client = Client()
        read = ReadAhead(receive, Ahead(1, 1, 60))
        read.watch(client)
        await asyncio.sleep(0.01)
        assert client.over == told
        if not told:
            with pytest.raises(RuntimeError, match="another reads"):
                await read.next()
        await read.unwatch(client)
