"""Closes the gaps of this process in namespaces with a history: what it missed is read from there.

When the subscriptions of a generation end, each such channel waits: what is heard on it from then
on is held. The next generation reads what lies between the last message before and the held ones,
and puts it into the inbox first. So messages come in the order of their positions, each once; only
those that have left the history are missed. Without an unbroken chain of positions nothing is read,
and :mod:`.receiver` counts the gap by the numbers of the channel: when Redis has lost its state,
another server has taken over, or the history has begun anew.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from cluster_pool.backplane import history_calls
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.history_pages import PAGE, Page, page_in
from cluster_pool.backplane.inbox import Heard
from cluster_pool.backplane.refusals import said, unavailable
from cluster_pool.backplane.shard_context import ShardContext
from cluster_pool.core.history import Entry
from cluster_pool.core.numbers import NO_COUNTER, UNREADABLE, Counter, ServerChange

PAGE_BYTES: Final = 256 * 1024
"""Bytes of a page, at which no more are added."""
AT_ONCE: Final = 16
"""Histories that are read at the same time."""
OLDEST_MS: Final = 60_000
"""How long before an interruption a message may have been published that it kept from us, in ms."""


class Place(NamedTuple):
    """How far a channel has come to the inbox: the mark and the position of the last message.

    Attributes:
        position: 0 behind none; None where no history is recorded.
    """

    epoch: str
    number: int
    position: int | None

    def has(self, heard: Heard) -> bool:
        """Whether a message came before it, or is the one there."""
        return bool(heard.position) and self.has_position(heard.epoch, heard.position)

    def is_behind(self, other: "Place") -> bool:
        """Whether it comes after another one."""
        return (int(self.epoch or 0), self.number) > (int(other.epoch or 0), other.number)

    def has_position(self, epoch: str, position: int) -> bool:
        """The same of the message with a position."""
        return self.epoch == epoch and position <= (self.position or 0)


class _Waiting:
    """A channel that was interrupted.

    Attributes:
        place: up to which all is in the inbox, or lost.
        held: what was heard since, and is not in the inbox.
        overflowed: held messages were dropped, and must be read.
        dropped: how many, if they are not.
        lost: messages that have left the history.
        exact: whether that is exact.
        since: the time of Redis in ms.
        until: the number at which the channel stood when it was subscribed again.
    """

    __slots__ = ("dropped", "exact", "held", "lost", "overflowed", "place", "since", "until")

    def __init__(self, place: Place, since: int) -> None:
        self.place = place
        self.since = since
        self.held: deque[Heard] = deque()
        self.overflowed = False
        self.dropped = self.lost = self.until = 0
        self.exact = True


class Recovery:
    """The recorded channels of one receiver.

    Args:
        put: puts a message into the inbox, or counts that it does not fit.
        miss: told of messages that were missed for good, and whether their number is exact.
        now: the time of Redis in µs, or a little more.
    """

    def __init__(
        self,
        context: ShardContext,
        put: Callable[[Heard], None],
        miss: Callable[[str, int, bool], None],
        now: Callable[[], int],
    ) -> None:
        self._context = context
        self._now = now
        self._inbox = context.inbox
        self._put = put
        self._miss = miss
        self._namespace = slice(len(context.keys.prefix) + 2, -1)
        self._places: dict[str, Place] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._bytes = 0
        """The size of what is held."""
        self._due: list[str] = []
        """Channels whose history must be read."""
        self._wanted = asyncio.Event()

    # -- what is heard ---------------------------------------------------------------------

    def begin(self, channel: str, counter: Counter, *, first: bool = False) -> None:
        """A channel was subscribed, while its counter stood there.

        Args:
            first: whether nobody here is owed what was published before; else what was heard of it
                tells its place.
        """
        if channel[-1:] != "}":  # not of a namespace
            return
        namespace = channel[self._namespace]
        if counter.position is not None or self._context.histories.of(namespace) is not None:
            place = Place(counter.epoch or NO_COUNTER, counter.number, counter.position)
            early = self._places.setdefault(channel, place)
            if first and place.is_behind(early):
                self._places[channel] = place

    def reached(self, heard: Heard) -> None:
        """Messages are in the inbox that have a position, or are of a channel that had one; a plain
        PUBLISH is nowhere in a history."""
        if heard.messages and (heard.position or heard.channel in self._places):
            place = Place(heard.epoch, heard.number, heard.position or None)
            self._places[heard.channel] = place

    def had(self, channel: str, epoch: str, position: int) -> bool:
        """Whether a message has been read from the history before it was heard."""
        place = self._places.get(channel)
        return place is not None and place.has_position(epoch, position)

    @property
    def waits(self) -> bool:
        """Whether some channels wait: what is targeted at members may come ahead of broadcasts."""
        return bool(self._waiting)

    def holds(self, channel: str) -> bool:
        """Whether what is heard on a channel must be held."""
        return channel in self._waiting

    def hold(self, heard: Heard) -> None:
        """Hold what was heard, in order; what does not fit is read from the history."""
        one = self._waiting[heard.channel]
        if self._bytes + heard.size > self._inbox.limit:
            self._drop_held(one)
            one.overflowed = True
        if one.overflowed:
            one.dropped += heard.messages or 1
            return
        one.held.append(heard._replace(earliest=one.since, time=self._now() // 1000 or 1))
        self._bytes += heard.size

    def interrupted(self) -> None:
        """The subscriptions have ended: all recorded channels wait for the next generation."""
        for one in self._waiting.values():
            self._drop_held(one)
            one.overflowed = False
        since = self._now() // 1000
        for channel, place in self._places.items():
            if channel not in self._waiting:
                self._waiting[channel] = _Waiting(place, since)
        self._due.clear()

    def forget(self, channel: str) -> None:
        """A channel is no longer heard here."""
        one = self._waiting.pop(channel, None)
        if one is not None:
            self._drop_held(one)
        self._places.pop(channel, None)

    def hand_over(self, channel: str) -> None:
        """A channel is heard by another receiver from now on: its numbers tell what is missed."""
        if channel in self._waiting:
            self._release(channel)
        self._places.pop(channel, None)

    def _drop_held(self, one: _Waiting) -> None:
        one.dropped += sum(heard.messages or 1 for heard in one.held)
        self._bytes -= sum(heard.size for heard in one.held)
        one.held.clear()

    # -- what was missed -------------------------------------------------------------------

    def settle(self, channel: str, counter: Counter, change: ServerChange) -> bool:
        """A channel is subscribed again, and all up to its counter has arrived or was missed.

        Returns whether positions tell what was missed; else the numbers do.
        """
        one = self._waiting.get(channel)
        if one is None:
            if counter.epoch != UNREADABLE:
                self.begin(channel, counter)  # of a history that has begun since, or come here
            return False
        epoch, number, position = counter.epoch, counter.number, counter.position
        start = None if change > ServerChange.MOVED else _start(one.place, counter)
        if start is None or epoch is None or position is None or start > position:
            if one.dropped:
                self._miss(channel, one.dropped, True)
            if epoch != UNREADABLE:
                one.place = _before(one.held, Place(epoch or NO_COUNTER, number, position))
            self._release(channel)
            return False
        heard = one.place.number if epoch == one.place.epoch else 0
        one.place, one.until, one.dropped = Place(epoch, heard, start), number, 0
        if not one.overflowed and (number == heard or _follows(one)) and self._fits(one):
            self._release(channel)
        else:
            self._due.append(channel)
            self._wanted.set()
        return True

    def _release(self, channel: str) -> None:
        """Put what is held behind its place into the inbox; the channel waits no more."""
        one = self._waiting.pop(channel)
        self._bytes -= sum(heard.size for heard in one.held)
        self._places[channel] = one.place
        for heard in one.held:
            if not self._places[channel].has(heard):
                self._put(heard)

    def _fits(self, one: _Waiting) -> bool:
        """Whether the inbox has room for all that is held."""
        return self._inbox.size + sum(heard.size for heard in one.held) <= self._inbox.limit

    async def read(self, commands: CommandConnection) -> None:
        """Read the histories of the channels that wait for it, as soon as there are some.

        Raises BackplaneUnavailableError when the generation ends meanwhile: the next one goes on.
        """
        await self._wanted.wait()
        self._wanted.clear()
        due, self._due = self._due, []
        for at in range(0, len(due), AT_ONCE):
            await self._close_all(due[at : at + AT_ONCE], commands)

    async def _close_all(self, channels: list[str], commands: CommandConnection) -> None:
        tasks = [asyncio.create_task(self._close(one, commands)) for one in channels]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self, channel: str, commands: CommandConnection) -> None:
        """Close the gap of a channel."""
        one = self._waiting.get(channel)
        if one is None:
            return
        closed, following = False, None
        while not closed and self._waiting.get(channel) is one:
            one.overflowed, one.dropped = False, 0
            start = following or f"{(one.place.position or 0) + 1}-0"
            page = await self._page(channel, start, commands)
            if page is None or page.position.epoch != one.place.epoch:
                one.lost += max(_unread(one), one.dropped)
                one.exact = False
                break
            for entry in page.entries:
                await self._put_entry(channel, one, entry)
            following = page.more
            if following is None:
                self._come_to(one, page.number, page.position.number)
                await self._put_held(channel, one)
                closed = not one.overflowed
        if self._waiting.get(channel) is one:
            self._release(channel)
            if one.lost or not one.exact:
                self._miss(channel, one.lost, one.exact)

    async def _page(self, channel: str, start: str, commands: CommandConnection) -> Page | None:
        """The next page of a history; None if Redis refuses to give it.

        Raises BackplaneUnavailableError while Redis is busy, which passes: the next generation goes
        on.
        """
        call = history_calls.read_history(
            self._context.keys,
            channel[self._namespace],
            start=start,
            newest_first=0,
            most=PAGE,
            most_bytes=PAGE_BYTES,
        )
        try:
            return page_in(await commands.script(call))
        except ResponseError as error:
            if said(error).startswith("BUSY "):
                raise unavailable("a history could not be read", error) from error
            return None

    async def _put_entry(self, channel: str, one: _Waiting, entry: Entry) -> None:
        """Put what an entry has into the inbox, when there is room."""
        header = entry.header
        if self._context.sealed and entry.time < one.since - OLDEST_MS:
            return  # recorded anew by somebody who does not know the secret
        if entry.targeted:  # it came over the channel of a start, or is missed there
            self._come_to(one, 0, header.position)
            return
        heard = Heard(
            channel,
            header.number,
            entry.payload,
            entry.items_offset,
            header.sender_start,
            header.counter_epoch,
            header.messages,
            header.position,
            entry.time,
            entry.time,
        )
        if not self._is_wanted(one, heard):
            return
        await self._inbox.wait_room(heard)
        if not self._is_wanted(one, heard):
            return  # the channel is heard elsewhere by now, or no more
        self._inbox.put(heard, control=True)
        self._context.counters.recovered += header.messages
        self._come_to(one, header.number - header.messages, 0)
        one.place = Place(header.counter_epoch, header.number, header.position)

    def _is_wanted(self, one: _Waiting, heard: Heard) -> bool:
        """Whether a channel waits still, and for this message."""
        return self._waiting.get(heard.channel) is one and not one.place.has(heard)

    async def _put_held(self, channel: str, one: _Waiting) -> None:
        """Put what is held into the inbox, when there is room; more may be held meanwhile."""
        while one.held and self._waiting.get(channel) is one:
            heard = one.held[0]
            if self._is_wanted(one, heard):
                await self._inbox.wait_room(heard)
                if not (one.held and one.held[0] is heard and self._is_wanted(one, heard)):
                    continue
                self._inbox.put(heard, control=True)
                if heard.messages:
                    one.place = Place(heard.epoch, heard.number, heard.position or None)
            self._bytes -= heard.size
            one.held.popleft()

    def _come_to(self, one: _Waiting, number: int, position: int) -> None:
        """All that has a lower number or position, and was not read, has left the history."""
        place = one.place
        one.lost += max(0, number - place.number)
        number, position = max(number, place.number), max(position, place.position or 0)
        one.place = Place(place.epoch, number, position)


def _start(place: Place, counter: Counter) -> int | None:
    """The position behind which a channel goes on; None if no unbroken chain leads there."""
    if counter.epoch == place.epoch:
        return place.position
    if counter.former == (place.epoch, place.number):
        return 0  # the history has begun at the last message that was heard
    return 0 if place.epoch == NO_COUNTER and counter.former is None else None


def _before(held: Iterable[Heard], place: Place) -> Place:
    """The place before the first of what is held that has a position; else ``place``."""
    for heard in held:
        if heard.position:
            count = heard.messages
            return Place(heard.epoch, heard.number - count, heard.position - count)
    return place


def _follows(one: _Waiting) -> bool:
    """Whether the first message that is held is the next one."""
    if not one.held or one.overflowed:
        return False
    first = one.held[0]
    return first.epoch == one.place.epoch and first.number - first.messages == one.place.number


def _unread(one: _Waiting) -> int:
    """How many broadcasts are known to lie between its place and what is held."""
    first = next((heard for heard in one.held if heard.position), None)
    known = one.until if first is None else min(one.until, first.number - first.messages)
    return max(0, known - one.place.number)
