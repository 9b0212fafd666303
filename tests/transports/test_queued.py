"""The queue of a transport whose library is awaited at each send."""

import asyncio

from cluster_pool.core.message import Outgoing
from cluster_pool.transports.queued import HANDED_OVER, SendQueue
from tests.support import async_test, eventually

HELLO, BYE = Outgoing(True, b"hello"), Outgoing(True, b"bye")


class Library:
    """Sends when it is allowed to."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.let = asyncio.Event()
        self.queue = SendQueue(self.send, self.close)

    async def send(self, outgoing: Outgoing) -> None:
        """As a library's send."""
        await self.let.wait()
        self.done.append(outgoing.payload)

    async def close(self, code: int, reason: str) -> None:
        """As a library's close that waits for the client's answer."""
        self.done.append((code, reason))
        await asyncio.Event().wait()


@async_test
async def test_messages_leave_in_order_and_their_bytes_are_counted() -> None:
    """Joined ones are sent singly; the task ends with the queue."""
    library = Library()
    queue = library.queue
    assert not queue.busy
    assert queue.enqueue(HELLO) == 5
    assert queue.enqueue(Outgoing.join([BYE, HELLO])) == 13
    assert (queue.busy, queue.queued, queue.sent) == (True, 13, 0)
    library.let.set()
    await queue.wait_sent()
    assert library.done == [b"hello", b"bye", b"hello"]
    assert (queue.busy, queue.queued, queue.sent) == (False, 0, 13)


@async_test
async def test_a_close_counts_as_begun_soon_after_the_library_was_called() -> None:
    """It follows the queued messages, and does not wait for the client's answer."""
    library = Library()
    library.let.set()
    library.queue.enqueue(HELLO)
    library.queue.enqueue_close(4000, "bye")
    began = asyncio.get_running_loop().time()
    await library.queue.wait_close_begun()
    assert asyncio.get_running_loop().time() - began >= HANDED_OVER * 0.9
    assert library.done == [b"hello", (4000, "bye")]
    library.queue.drop()


@async_test
async def test_a_dropped_queue_accepts_nothing_more() -> None:
    """Also one whose task has not begun; its waiting close counts as begun."""
    library = Library()
    library.queue.enqueue(HELLO)
    library.queue.enqueue_close(4000, "")
    library.queue.drop()
    await library.queue.wait_close_begun()
    library.queue.enqueue(BYE)
    assert (library.queue.busy, library.queue.queued, library.queue.failed) == (False, 3, True)
    await asyncio.sleep(0)
    assert library.done == []


@async_test
async def test_an_error_of_the_library_ends_the_queue() -> None:
    """The rest of the queue is dropped."""

    async def broken(outgoing: Outgoing) -> None:
        raise ConnectionResetError

    queue = SendQueue(broken, Library().close)
    queue.enqueue(Outgoing.join([HELLO, BYE]))
    await eventually(lambda: queue.failed and not queue.busy)
    assert (queue.queued, queue.sent) == (0, 0)


@async_test
async def test_call_comes_behind_the_messages_or_never() -> None:
    """Not after a message was dropped."""
    library = Library()
    queue = library.queue
    queue.enqueue(HELLO)
    queue.enqueue_call(lambda: library.done.append("called"))
    queue.enqueue(BYE)
    library.let.set()
    await queue.wait_sent()
    assert library.done == [b"hello", "called", b"bye"]
    queue.drop()
    queue.enqueue_call(lambda: library.done.append("late"))
    await queue.wait_sent()
    assert library.done[-1] == b"bye"
