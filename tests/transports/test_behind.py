"""The order between a queue and a library's own way out."""

import asyncio
from typing import Any

from cluster_pool.core.message import Outgoing
from cluster_pool.transports.behind import Behind
from cluster_pool.transports.queued import SendQueue
from tests.support import async_test, eventually


class Library:
    """One whose sends wait for ``room``, with a queue and an outbox before it."""

    def __init__(self, steps: bool = False) -> None:
        self.room = asyncio.Event()
        self.sent: list[str] = []
        self.pending: list[str] = []
        self.queue = SendQueue(self._send, self._close, steps=steps)
        self.behind = Behind(None)
        self.behind.add(self, self.queue)

    async def _send(self, outgoing: Outgoing) -> None:
        await self.room.wait()
        self.sent.append(outgoing.payload.decode())

    async def _close(self, code: int, reason: str) -> None:
        await self.behind.wait()
        self.sent.append(str(code))

    async def send(self, text: str) -> None:
        """The library's own."""
        await self.behind.wait()
        self.sent.append(text)

    def write_pending(self) -> None:
        """See Outbox."""
        while self.pending:
            self.queue.enqueue(Outgoing(True, self.pending.pop(0).encode()))

    def check_limit(self) -> None:
        """See Outbox."""


async def begun(send: Any) -> "asyncio.Task[None]":
    task = asyncio.create_task(send)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


@async_test
async def test_a_send_of_the_library_waits_for_pending_and_queued_messages_alone() -> None:
    """Later ones do not hold it up for ever."""
    for steps in (False, True):
        library = Library(steps)
        library.pending += ["1", "2"]
        own = await begun(library.send("3"))
        assert library.pending == []
        library.queue.enqueue(Outgoing(True, b"4"))
        assert not own.done()
        library.room.set()
        await own
        await library.queue.wait_sent()
        assert library.sent in (["1", "2", "3", "4"], ["1", "2", "4", "3"])


@async_test
async def test_a_close_of_the_queue_does_not_wait_for_itself() -> None:
    """It goes through the library's own way, too; so does that of a second queue."""
    library, other = Library(), Library()
    library.behind.add(other, other.queue)
    other.behind = library.behind
    for one in (library, other):
        one.pending.append("last")
        one.queue.enqueue_close(4000, "")
        one.room.set()
    await eventually(lambda: not library.queue.busy and not other.queue.busy)
    assert "4000" in library.sent
    assert "4000" in other.sent


@async_test
async def test_a_queue_that_is_dropped_holds_nothing_up() -> None:
    """The library says itself what has become of its WebSocket."""
    library = Library()
    library.pending.append("1")
    own = await begun(library.send("2"))
    library.queue.drop()
    await own
    assert library.sent == ["2"]
    assert library.behind.remove(library.queue)
