"""Reads the counters beside channels: after a subscription, where its counting begins.

A counter that Redis does not give, since it is of a wrong type, counts as absent: the next
publication makes a new one. One that is elsewhere, since its slot is half moved, is unreadable.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from redis.exceptions import ResponseError

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import unheeded
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.receiver import Receiver
from cluster_pool.backplane.refusals import is_elsewhere
from cluster_pool.core.numbers import UNREADABLE, Counter

AGAIN: Final = 500
"""Counters that are read again together, at most: a slot may stay half moved for hours."""


class ChannelCounters:
    """The counters of the channels that a receiver hears."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._unread: dict[str, None] = {}
        """Channels whose counters were unreadable, in the order in which they are read again."""

    def ask(self, commands: CommandConnection, channel: str) -> asyncio.Future[Any]:
        """Queue a reading of one counter; :func:`counter_in` reads the reply."""
        call = commands.call("HMGET", *self._receiver.counter_of(channel))
        call.add_done_callback(unheeded)  # the generation may end first
        return call

    async def read(
        self, commands: CommandConnection, groups: Iterable[Sequence[str]]
    ) -> list[tuple[str, Counter]]:
        """Read the counters of groups of channels, with a call for each group.

        Args:
            groups: one script may touch the counters of a group.
        """
        asked = []
        for channels in groups:
            hashes = [self._receiver.counter_of(channel) for channel in channels]
            call = commands.script(script_calls.counters(counters=hashes))
            call.add_done_callback(unheeded)  # one that is not awaited, as an earlier one fails
            asked.append((channels, call))
        found: list[tuple[str, Counter]] = []
        for channels, call in asked:
            try:
                flat = await call
            except ResponseError:  # as when the slot is half moved, and some counters are elsewhere
                found += await self._one_by_one(commands, channels)
                continue
            counters = map(Counter.read, flat[::3], flat[1::3], flat[2::3])
            found += zip(channels, counters, strict=True)
        return found

    def note(self, channel: str, counter: Counter) -> bool:
        """Whether a counter could be read; one that could not is to be read again."""
        if counter.epoch == UNREADABLE:
            self._unread[channel] = None
            return False
        return True

    def pop_unread(self) -> list[str]:
        """The next channels whose counters are to be read again."""
        some = list(islice(self._unread, AGAIN))
        for channel in some:
            del self._unread[channel]
        return some

    async def _one_by_one(
        self, commands: CommandConnection, channels: Sequence[str]
    ) -> list[tuple[str, Counter]]:
        calls = [self.ask(commands, channel) for channel in channels]
        for call in calls:
            call.add_done_callback(unheeded)
        return [(one, await counter_in(call)) for one, call in zip(channels, calls, strict=True)]


async def counter_in(call: asyncio.Future[Any]) -> Counter:
    """The counter in a reply to :meth:`ChannelCounters.ask`."""
    try:
        return Counter.read(*await call)
    except ResponseError as error:
        return Counter(UNREADABLE if is_elsewhere(error) else None, 0)
