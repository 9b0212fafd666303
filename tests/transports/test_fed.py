"""Events in the place of uvicorn's queue: bounds, the end, and the reader."""

import asyncio
from types import SimpleNamespace
from typing import Any

from websockets.frames import Close

from cluster_pool.transports.base import OVERHEAD, Ahead
from cluster_pool.transports.fed import Fed
from tests.support import async_test, eventually

MESSAGE = OVERHEAD + 100


class Feeder:
    """A protocol whose socket only records whether it is read; a watcher as well."""

    def __init__(self) -> None:
        self.reads = True
        self.conn = SimpleNamespace(close_rcvd=None)
        self.left: list[tuple[int, str]] = []
        self.lost = 0
        self.detached = False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    async def receive(self) -> Any:
        return {}

    def detach(self) -> None:
        self.detached = True

    def client_left(self, code: int, reason: str) -> None:
        self.left.append((code, reason))

    def dropped(self, *, first: bool) -> None:
        assert first is (self.lost == 0)
        self.lost += 1


def fed(one: int, patience: float = 60.0) -> tuple[Feeder, Fed]:
    """A fed object with room for so many messages, and its protocol."""
    feeder = Feeder()
    feed = Fed(feeder, Ahead(one * MESSAGE, 1000 * MESSAGE, patience))
    feed.watch(feeder)
    return feeder, feed


def say(feed: Fed, *numbers: int) -> None:
    for number in numbers:
        feed.put_nowait({"type": "websocket.receive", "text": f"{number:0100}"})


async def take(feed: Fed, count: int) -> list[int]:
    return [int((await feed.next())["text"]) for _ in range(count)]


@async_test
async def test_a_batch_is_read_without_another_turn_of_the_loop() -> None:
    """The reader waits for its first message alone."""
    _, feed = fed(100)
    reading = asyncio.create_task(take(feed, 10))
    await asyncio.sleep(0)
    say(feed, *range(10))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert reading.done()
    assert reading.result() == list(range(10))


@async_test
async def test_a_socket_is_not_read_while_its_reader_has_too_much() -> None:
    """It is read again when half of that was read."""
    feeder, feed = fed(4)
    say(feed, 0)
    assert await take(feed, 1) == [0]
    say(feed, 1, 2, 3, 4)
    assert feeder.reads
    say(feed, 5)
    assert not feeder.reads
    assert await take(feed, 2) == [1, 2]
    assert not feeder.reads
    assert await take(feed, 3) == [3, 4, 5]
    assert feeder.reads
    await feed.unwatch(feeder)
    assert feeder.detached


@async_test
async def test_a_reader_that_reads_nothing_counts_as_none_after_a_time() -> None:
    """Then the socket is read, and messages are dropped, so that the end is noticed."""
    feeder, feed = fed(2, patience=0.01)
    say(feed, 0)
    assert await take(feed, 1) == [0]
    say(feed, 1, 2, 3)
    assert not feeder.reads
    await eventually(lambda: feeder.reads)
    say(feed, 4, 5)
    assert feeder.lost == 2
    feed.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": "bye"})
    assert feeder.left == [(1001, "bye")]
    assert await take(feed, 3) == [1, 2, 3]
    assert (await feed.next())["code"] == 1001
    await feed.unwatch(feeder)


@async_test
async def test_the_end_of_a_socket_without_a_close_is_abnormal() -> None:
    """Uvicorn says 1005 for that, also if a Close with a code came before."""
    for close, expected in ((None, (1006, "")), (Close(4000, "bye"), (4000, "bye"))):
        feeder, feed = fed(1)
        feeder.conn.close_rcvd = close
        feed.put_nowait({"type": "websocket.disconnect", "code": 1005})
        assert feeder.left == [expected]


@async_test
async def test_a_disconnect_that_repeats_our_own_close_is_no_end() -> None:
    """The client has not answered yet."""
    feeder, feed = fed(1)
    feed.closing = True
    feed.put_nowait({"type": "websocket.disconnect", "code": 1000, "reason": ""})
    assert feeder.left == []


@async_test
async def test_a_reader_that_waits_when_reading_stops_is_told() -> None:
    """Nothing comes any more, so it would wait for ever."""
    feeder, feed = fed(1)
    reading = asyncio.create_task(feed.next())
    await asyncio.sleep(0)
    await feed.unwatch(feeder)
    assert await reading == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


@async_test
async def test_a_full_feed_is_read_on_when_a_close_waits_for_its_answer() -> None:
    """Messages for which there is no room are dropped, so that the answer is noticed."""
    feeder, feed = fed(2)
    say(feed, 0)
    assert await take(feed, 1) == [0]
    say(feed, 1, 2, 3)
    assert not feeder.reads
    feed.read_to_the_answer()
    assert feeder.reads
    say(feed, 4)
    assert feeder.reads
    assert await take(feed, 3) == [1, 2, 3]
    assert feeder.lost == 1
