"""The counters beside channels, as a new subscription reads them."""

import asyncio
import gc
from typing import Any

import pytest
from redis.exceptions import AskError, ConnectionError, MovedError, ResponseError

from cluster_pool.backplane.channel_counters import AGAIN, ChannelCounters
from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.receiver import Receiver
from cluster_pool.core.keys import Keys
from cluster_pool.core.numbers import UNREADABLE, Counter
from tests.backplane.contexts import context_of
from tests.clusters import Backend
from tests.support import async_test


@async_test
async def test_counters_are_read_with_one_call_for_each_group(backend: Backend) -> None:
    """One that is not there, that is no number, or of a wrong type, counts as absent."""
    async with backend.pools(1) as (one,), backend.client() as client:
        keys = Keys(backend.prefix)
        receiver = Receiver(context_of(keys))
        channels = [keys.channel("n"), keys.events("n")]
        receiver.events[channels[1]] = keys.owners("n")
        others = [f"{keys.channel('n')}:node:{at}" for at in range(3)]
        await client.hset(
            keys.numbers(channels[0]),
            mapping={"epoch": "12 30 0 0 0 0", "last": "34", "former": "11 5"},
        )
        await client.hset(keys.owners("n"), mapping={"epoch#": "56", "events#": "7"})
        await client.hset(keys.numbers(others[0]), mapping={"epoch": "no", "last": "1"})
        await client.set(keys.numbers(others[1]), "text")
        shard = one._parts.backplane.topology.of("n")
        counters = ChannelCounters(receiver)
        found = await counters.read(shard.commands, [channels, others])
        assert found == [
            (channels[0], Counter("12", 34, ("11", 5), 30)),
            (channels[1], Counter("56", 7)),
            *[(name, Counter(None, 0)) for name in others],
        ]
        await client.delete(
            keys.numbers(channels[0]), keys.owners("n"), *map(keys.numbers, others[:2])
        )


class HalfMoved:
    """A Redis that has given some keys of a slot away: it refuses calls that name several."""

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        return self._said(ResponseError("TRYAGAIN Multiple keys request during rehashing of slot"))

    def call(self, *arguments: Any) -> asyncio.Future[Any]:
        if "gone" in arguments[1]:
            return self._said(AskError("1 127.0.0.1:1"))
        return self._said([b"12", b"34", None])

    @staticmethod
    def _said(reply: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)
        return future


@async_test
async def test_where_several_counters_cannot_be_read_together_each_is_read_by_itself() -> None:
    """A gap on a channel that is still here is counted, although its slot is moving."""
    keys = Keys()
    channels = [keys.channel("n"), keys.channel("n") + ":node:gone"]
    commands: Any = HalfMoved()
    found = await ChannelCounters(Receiver(context_of(keys))).read(commands, [channels])
    assert found == [(channels[0], Counter("12", 34)), (channels[1], Counter(UNREADABLE, 0))]


class LostHalfWay:
    """A connection that is lost with the first call; later ones were answered before."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[Any]] = []

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        error = MovedError("1 127.0.0.1:1") if self.calls else ConnectionError("lost")
        future.set_exception(error)
        self.calls.append(future)
        return future


@async_test
async def test_an_earlier_call_that_fails_leaves_no_error_of_a_later_one_to_be_logged() -> None:
    """asyncio logs each exception of a future that nobody reads."""
    logged: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: logged.append(str(context))
    )
    commands: Any = LostHalfWay()
    counters = ChannelCounters(Receiver(context_of(Keys())))
    with pytest.raises(ConnectionError):
        await counters.read(commands, [["{a}"], ["{b}"], ["{c}"]])
    assert len(commands.calls) == 3
    await asyncio.sleep(0)
    commands.calls.clear()
    gc.collect()
    assert logged == []


def test_counters_that_cannot_be_read_are_read_again_in_turn() -> None:
    """Some at a time; one that still cannot be read comes behind the others."""
    counters = ChannelCounters(Receiver(context_of(Keys())))
    names = [f"c{at}" for at in range(AGAIN + 2)]
    unread = Counter(UNREADABLE, 0)
    assert [counters.note(name, unread) for name in names] == [False] * len(names)
    first = counters.pop_unread()
    assert first == names[:AGAIN]
    assert counters.note(first[0], Counter("12", 34))
    assert not counters.note(first[1], unread)
    assert counters.pop_unread() == [*names[AGAIN:], first[1]]
    assert counters.pop_unread() == []
