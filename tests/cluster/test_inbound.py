"""Publishing messages from clients: the limit of bytes under way, and the order of waiting ones."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster_pool import Connection, Limits, PendingLimitError
from cluster_pool.cluster.inbound import COPIES, InboundChannel
from cluster_pool.core.keys import Keys
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


class SlowShard:
    """Answers each call when it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, asyncio.Future[int]]] = []

    async def publish(self, channel: str, payload: bytes, deadline: float) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.calls.append((payload, answer))
        return await answer


def made(node_inbound_bytes: int) -> tuple[SlowShard, InboundChannel, Connection]:
    shard = SlowShard()
    limits = Limits(node_inbound_bytes=node_inbound_bytes)
    channel = InboundChannel(cast(Any, SimpleNamespace(publish=shard.publish)), Keys("p"), limits)
    return shard, channel, Connection("a", "n", FakeWebSocket())


@async_test
async def test_inbound_messages_under_way_are_bounded_in_bytes() -> None:
    """A message of any size may start alone; one above the limit is refused, not queued."""
    shard, channel, connection = made(2 * COPIES * 1000)
    large = asyncio.create_task(channel.publish(connection, "node", "ü" * 5000, 0))
    await asyncio.sleep(0)
    assert channel.size == COPIES * 10_000
    with pytest.raises(PendingLimitError):
        await channel.publish(connection, "node", b"x", 0)
    shard.calls[0][1].set_result(1)
    assert await large == 1
    assert channel.size == 0
    fits = [asyncio.create_task(channel.publish(connection, "node", b"x" * 500, 0)) for _ in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(PendingLimitError):
        await channel.publish(connection, "node", "x", 0)
    for _, answer in shard.calls[1:]:
        answer.set_result(0)
    assert await asyncio.gather(*fits) == [0, 0]


@async_test
async def test_messages_that_wait_for_room_get_it_in_order() -> None:
    """None is refused, none overtakes; a cancelled one leaves the queue."""
    shard, channel, connection = made(2 * COPIES * 1000)

    async def one(text: str) -> int:
        await channel.room(text)
        return await channel.publish(connection, "node", text, 0)

    tasks = [asyncio.create_task(one(str(number) * 900)) for number in range(6)]
    small = asyncio.create_task(one("s"))
    await asyncio.sleep(0.01)
    assert len(shard.calls) == 1
    assert channel.waiting == 5 * 900 + 1
    tasks[2].cancel()
    for at in range(5):
        shard.calls[at][1].set_result(1)
        await asyncio.sleep(0.01)
    for _, answer in shard.calls[5:]:
        answer.set_result(1)
    await asyncio.gather(*tasks, small, return_exceptions=True)
    said = [bytes(payload.split(b'"')[11][:1]) for payload, _ in shard.calls]
    assert said == [b"0", b"1", b"3", b"4", b"5", b"s"]
    assert (channel.size, tasks[2].cancelled()) == (0, True)
