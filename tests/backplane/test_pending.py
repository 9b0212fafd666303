"""The limit on waiting operations, and the check of their deadlines."""

import asyncio
from math import inf

from cluster_pool.backplane.batching import SEND, Operation
from cluster_pool.backplane.pending import TICK, Expiry, Pending, fail, fail_late
from cluster_pool.core.config import Limits
from cluster_pool.exceptions import BackplaneUnavailableError
from tests.support import async_test


def operation(deadline: float = inf, item: bytes = b"item") -> Operation:
    """An operation that waits."""
    return Operation(SEND, "id", item, deadline, asyncio.get_running_loop().create_future())


@async_test
async def test_room_is_bounded_in_messages_and_bytes_and_comes_back() -> None:
    """A single message always has room, whatever its size."""
    pending = Pending(Limits(pending_messages=2, pending_bytes=10))
    assert pending.admit(1000)
    assert not pending.admit(1)
    pending.forget([operation(item=b"x" * 1000)])
    assert (pending.count, pending.bytes) == (0, 0)
    assert pending.admit(4)
    assert not pending.admit(7)
    assert pending.admit(6)
    assert not pending.admit(0)
    assert "2 messages (10 bytes)" in str(pending.full())


@async_test
async def test_the_soonest_deadline_is_checked_and_then_the_next() -> None:
    """Not more often than each tick, however close the deadlines are."""
    loop = asyncio.get_running_loop()
    looks: list[float] = []
    began = loop.time()

    def look(now: float) -> float:
        looks.append(now)
        return now if len(looks) < 3 else inf

    expiry = Expiry(loop, look)
    expiry.look_at(began + 60)
    expiry.look_at(began)
    await asyncio.sleep(4 * TICK)
    assert len(looks) == 3
    assert looks[2] - looks[0] >= 2 * TICK * 0.9
    assert expiry.at == inf
    expiry.look_at(began)
    expiry.cancel()
    await asyncio.sleep(TICK)
    assert len(looks) == 3


@async_test
async def test_each_refused_operation_has_an_error_of_its_own() -> None:
    """Those with time left are not affected."""
    error = BackplaneUnavailableError("away", maybe_executed=True)
    late, early, answered = operation(1.0), operation(9.0), operation(1.0)
    answered.future.set_result(None)
    assert fail_late([late, early, answered], 5.0, error) == 9.0
    raised = late.future.exception()
    assert isinstance(raised, BackplaneUnavailableError)
    assert (raised is error, raised.maybe_executed, raised.__cause__) == (False, True, error)
    assert not early.future.done()
    fail(early, error)
    assert early.future.exception() is not raised
