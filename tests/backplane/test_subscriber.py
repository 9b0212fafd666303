"""One subscribed socket: payloads are handed on, and confirmations go to their requests."""

import asyncio
from typing import Any

from redis.exceptions import ClusterDownError, MovedError

from cluster_pool.backplane.channel_commands import SHARDED
from cluster_pool.backplane.slots import slot_of
from cluster_pool.backplane.subscriber import BATCH, Subscriber
from tests.support import async_test


class Socket:
    """Gives prepared replies to be read, and keeps the bytes written."""

    def __init__(self) -> None:
        self.pushes: asyncio.Queue[list[bytes] | Exception] = asyncio.Queue()

    async def read_response(self, **_: Any) -> Any:
        push = await self.pushes.get()
        if isinstance(push, Exception):
            raise push
        return push

    async def disconnect(self, **_: Any) -> None:
        pass


@async_test
async def test_a_channel_is_confirmed_by_the_reply_to_the_last_request_alone() -> None:
    """A channel that was given up and is wanted again is not confirmed by an older reply."""
    socket: Any = Socket()
    subscriber = Subscriber(socket, lambda channel, payload: None)
    reading = asyncio.create_task(subscriber.read_forever())
    first = subscriber.confirmed([b"a"])[0]
    subscriber.unsubscribe([b"a"])
    again = subscriber.confirmed([b"a"])[0]
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
    before = subscriber.confirmed([b"a"])[0]
    await subscriber.drop()
    assert not await before
    assert not await subscriber.confirmed([b"b"])[0]


@async_test
async def test_a_command_that_a_cluster_refuses_fails_alone() -> None:
    """Its channels are told to be elsewhere, those of other commands are confirmed."""
    socket: Any = Socket()
    ended: list[list[bytes]] = []
    subscriber = Subscriber(
        socket, lambda *_: None, SHARDED, lambda channels: ended.append(list(channels))
    )
    reading = asyncio.create_task(subscriber.read_forever())
    names = sorted((b"{a}", b"{b}"), key=lambda name: slot_of(name.decode()))
    moved, stays = (subscriber.confirmed([name])[0] for name in names)
    assert subscriber.unwritten[0].count(b"SSUBSCRIBE") == 1
    socket.pushes.put_nowait(MovedError(f"{slot_of(names[0].decode())} 10.0.0.1:6379"))
    socket.pushes.put_nowait([b"ssubscribe", names[1]])
    assert not await moved
    assert await stays
    assert ended == [[names[0]]]
    again = subscriber.confirmed([names[0]])[0]
    socket.pushes.put_nowait(ClusterDownError("Hash slot not served"))
    assert not await again
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@async_test
async def test_a_subscription_that_ends_by_itself_is_told() -> None:
    """One that was given up ends by its own reply, and tells nobody."""
    socket: Any = Socket()
    ended: list[list[bytes]] = []
    subscriber = Subscriber(
        socket, lambda *_: None, SHARDED, lambda channels: ended.append(list(channels))
    )
    reading = asyncio.create_task(subscriber.read_forever())
    for name in (b"{a}", b"{b}"):
        confirmed = subscriber.confirmed([name])[0]
        socket.pushes.put_nowait([b"ssubscribe", name])
        assert await confirmed
    subscriber.unsubscribe([b"{b}"])
    socket.pushes.put_nowait([b"sunsubscribe", b"{b}"])
    socket.pushes.put_nowait([b"sunsubscribe", b"{a}"])
    leaving = asyncio.create_task(subscriber.all_ended([b"{a}"]))
    await asyncio.sleep(0.01)
    assert ended == [[b"{a}"]]
    socket.pushes.put_nowait(MovedError(f"{slot_of('a')} 10.0.0.1:6379"))
    await leaving
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@async_test
async def test_a_subscription_that_ends_as_it_is_given_up_affects_no_other() -> None:
    """The server ends it by itself, and refuses the command that was on its way: no command that
    was written later is taken for the refused one."""
    socket: Any = Socket()
    subscriber = Subscriber(socket, lambda *_: None, SHARDED)
    reading = asyncio.create_task(subscriber.read_forever())
    first = subscriber.confirmed([b"{a}"])[0]
    socket.pushes.put_nowait([b"ssubscribe", b"{a}"])
    assert await first
    subscriber.unsubscribe([b"{a}"])
    other = subscriber.confirmed([b"{b}"])[0]
    socket.pushes.put_nowait([b"sunsubscribe", b"{a}"])
    socket.pushes.put_nowait(MovedError(f"{slot_of('a')} 10.0.0.1:6379"))
    await asyncio.sleep(0.01)
    assert not other.done()
    assert not reading.done()
    socket.pushes.put_nowait([b"ssubscribe", b"{b}"])
    assert await other
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@async_test
async def test_channels_of_one_slot_are_subscribed_by_one_command() -> None:
    """However far apart they stand; so a slot costs a command, and not each of its channels."""
    socket: Any = Socket()
    subscriber = Subscriber(socket, lambda *_: None, SHARDED)
    names = [f"{{{tag}}}:{part}".encode() for part in "xyz" for tag in range(2 * BATCH)]
    found = [groups async for groups in subscriber.in_groups(names)]
    slots = {slot_of(name.decode()) for name in names}
    groups = [group for part in found for group in part]
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert len(groups) == len(slots)
    assert all(BATCH <= sum(map(len, part)) < BATCH + len(names) for part in found[:-1])
    waiting = asyncio.create_task(subscriber.all_confirmed(found[0]))
    await asyncio.sleep(0)
    assert len(subscriber.unwritten) == len(found[0])
    waiting.cancel()


@async_test
async def test_one_redis_subscribes_as_many_channels_in_a_command_as_are_given() -> None:
    """Up to a batch, from any slots."""
    subscriber = Subscriber(Socket(), lambda *_: None)  # type: ignore[arg-type]
    names = [f"{{{tag}}}".encode() for tag in range(2 * BATCH + 1)]
    found = [groups async for groups in subscriber.in_groups(names)]
    assert found == [[names[:BATCH]], [names[BATCH : 2 * BATCH]], [names[2 * BATCH :]]]
