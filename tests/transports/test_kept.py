"""Events that are kept until they are read."""

import asyncio

from cluster_pool.transports.base import OVERHEAD, Ahead
from cluster_pool.transports.kept import Kept
from tests.support import async_test


async def nothing() -> dict[str, str]:
    """A server that gives no event."""
    await asyncio.Event().wait()
    return {}


@async_test
async def test_a_message_of_a_cancelled_reader_is_the_next_one() -> None:
    """It came in the turn in which the reader was cancelled."""
    ahead = Ahead(one=10_000, all=10_000, patience=1.0)
    kept = Kept(nothing, ahead)
    reading = asyncio.create_task(kept.next())
    await asyncio.sleep(0)
    assert kept.awaited
    assert kept._keep({"type": "websocket.receive", "text": "first"})
    assert kept._keep({"type": "websocket.receive", "text": "second"})
    reading.cancel()
    await asyncio.wait((reading,))
    assert [(await kept.next())["text"] for _ in range(2)] == ["first", "second"]
    assert ahead.held == 0


@async_test
async def test_bytes_are_counted_until_they_are_read_or_dropped() -> None:
    """In the object that all WebSockets share."""
    ahead = Ahead(one=10_000, all=10_000, patience=1.0)
    kept = Kept(nothing, ahead)
    for _ in range(3):
        kept._keep({"type": "websocket.receive", "bytes": b"x" * 10})
    assert ahead.held == 3 * (OVERHEAD + 10)
    kept.deafen(1006, "")
    assert (ahead.held, kept.unread) == (0, False)
    assert (await kept.next())["code"] == 1006
