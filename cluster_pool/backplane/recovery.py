"""Closes the gaps of this process in namespaces with a history: what it missed is read from there.

When the subscriptions of a generation end, each such channel waits: what is heard on it from then
on is held, and what is targeted at its members, too. The next generation reads what lies between
the last message before and the held ones, and puts it into the inbox first. So messages come in the
order of their positions, each once; only those that have left the history are missed. Without an
unbroken chain of positions nothing is read, and :mod:`.receiver` counts the gap by the numbers of
the channel: when Redis has lost its state, another server has taken over, or the history has begun
anew.

What was targeted has no number on the channel of the namespace. So it is looked for wherever the
channel over which it comes has missed something; of what is found the handler of the inbox knows
what it has given to a member before.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from redis.exceptions import ResponseError

from cluster_pool.backplane import history_calls
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.history_pages import PAGE, Page, page_in
from cluster_pool.backplane.inbox import Heard
from cluster_pool.backplane.refusals import said, unavailable
from cluster_pool.backplane.shard_context import ShardContext
from cluster_pool.backplane.waiting import Held, Place, Waiting, start_of, targets_in
from cluster_pool.core.history import Entry, Position
from cluster_pool.core.numbers import NO_COUNTER, UNREADABLE, Counter, ServerChange

PAGE_BYTES: Final = 256 * 1024
"""Bytes of a page, at which no more are added."""
AT_ONCE: Final = 16
"""Histories that are read at the same time."""
OLDEST_MS: Final = 60_000
"""How long before an interruption a message may have been published that it kept from us, in ms."""


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
        self._waiting: dict[str, Waiting] = {}
        self._bytes = 0
        """The size of what is held."""
        self._due: list[str] = []
        """Channels whose history must be read."""
        self._wanted = asyncio.Event()
        self.targets = False
        """Whether something that was targeted at members and missed is looked for; the receiver
        clears it, when all that was found was given to them."""
        self._untold: set[str] = set()
        """Channels over which targeted messages come, and have been missed."""

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
        return place is not None and place.has(epoch, position)

    @property
    def waits(self) -> bool:
        """Whether some channels wait."""
        return bool(self._waiting)

    def lacks_targets(self) -> bool:
        """Whether some channels wait for what was targeted at members."""
        return any(one.targets for one in self._waiting.values())

    def holds(self, channel: str) -> bool:
        """Whether what is heard on a channel must be held."""
        return channel in self._waiting

    def hold(self, heard: Heard) -> None:
        """Hold what was heard, in order; what does not fit is read from the history."""
        self._hold(self._waiting[heard.channel], Held.of(heard))

    def hold_targets(self, heard: Heard) -> Heard | None:
        """Hold what is targeted at members in namespaces that wait; gives the rest, if any."""
        rest = []
        for namespace, held, item in targets_in(heard):
            one = self._waiting.get(self._context.keys.channel(namespace)) if held else None
            if one is None or held is None:
                rest.append(item)
            elif one.has(held):
                self._pass_over(held)
            else:
                self._hold(one, held)
        if len(rest) == heard.messages:
            return heard
        payload = b"".join([heard.payload[: heard.items_offset], *rest])
        return heard._replace(payload=payload, messages=len(rest)) if rest else None

    def _hold(self, one: Waiting, held: Held) -> None:
        heard = held.heard
        if self._bytes + heard.size > self._inbox.limit:
            self._drop_held(one)
            one.overflowed = True
        if one.overflowed:
            self._drop(one, held)
            return
        late = heard._replace(earliest=one.since, time=self._now() // 1000 or 1)
        one.held.append(held._replace(heard=late))
        self._bytes += heard.size

    def interrupted(self) -> None:
        """The subscriptions have ended: all recorded channels wait for the next generation."""
        for one in self._waiting.values():
            self._drop_held(one)
            one.overflowed, one.until, one.goal = False, 0, 0
        since = self._now() // 1000
        for channel, place in self._places.items():
            if channel not in self._waiting:
                self._waiting[channel] = Waiting(place, since)
        self._due.clear()
        self._untold.clear()

    def forget(self, channel: str) -> None:
        """A channel is no longer heard here."""
        one = self._waiting.pop(channel, None)
        if one is not None:
            self._drop_held(one)
            self._end(one)
        self._places.pop(channel, None)

    def hand_over(self, channel: str) -> None:
        """A channel is heard by another receiver from now on: its numbers tell what is missed."""
        if channel in self._waiting:
            self._release(channel)
        self._places.pop(channel, None)

    def _drop_held(self, one: Waiting) -> None:
        self._bytes -= one.size
        for held in one.held:
            self._drop(one, held)
        one.held.clear()

    def _drop(self, one: Waiting, held: Held) -> None:
        """Drop a message that must be read."""
        one.reach_for(0 if held.targeted else held.heard.number, held.position)
        if held.targeted:
            one.targets = self.targets = True
            self._pass_over(held)
        else:
            one.dropped += held.heard.messages or 1

    def _pass_over(self, held: Held) -> None:
        """Drop a message that was read, or will be. One that was targeted counts as missed, as if
        it had not been heard, since what is found counts against that."""
        if held.targeted:
            self._miss(held.heard.channel, 1, True)

    # -- what was missed -------------------------------------------------------------------

    def miss_targets(self, channel: str) -> None:
        """Something was missed on a channel over which targeted messages come."""
        self._untold.add(channel)

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
        if change is ServerChange.LOST and epoch is not None and position is not None:
            self._context.reached.take_back(channel[self._namespace], Position(epoch, position))
        start = None if change > ServerChange.MOVED else start_of(one.place, counter)
        if start is None or epoch is None or position is None or start > position:
            if one.dropped:
                self._miss(channel, one.dropped, True)
            if epoch != UNREADABLE:
                one.place = one.before_held(Place(epoch or NO_COUNTER, number, position))
            self._release(channel)
            return False
        heard = one.place.number if epoch == one.place.epoch else 0
        one.place, one.dropped = Place(epoch, heard, start), 0
        one.reach_for(number, position)
        one.targets |= self._lacks_targets(channel, one, position)
        unbroken = not one.overflowed and not one.targets and (number == heard or one.follows)
        if unbroken and self._inbox.size + one.size <= self._inbox.limit:
            self._release(channel)
        else:
            self.targets |= one.targets
            self._due.append(channel)
            self._wanted.set()
        return True

    def _lacks_targets(self, channel: str, one: Waiting, position: int) -> bool:
        """Whether the history has messages that were perhaps targeted at members here and missed:
        up to a position, or to what is held."""
        if not self._untold:
            return False
        namespace = channel[self._namespace]
        routed = self._context.keys.routed_prefix(namespace) + self._context.identity.start
        if self._untold.isdisjoint((self._context.identity.start_channel, routed)):
            return False
        first = next((held for held in one.held if held.position), None)
        if first is not None and first.epoch == one.place.epoch:
            position = min(position, first.position - first.heard.messages)
        return position > self._had_position(namespace, one.place)

    def _had_position(self, namespace: str, place: Place) -> int:
        """The position up to which members here were given everything, as far as it is known."""
        reached = self._context.reached.get(namespace)
        known = place.position or 0
        if reached is None or reached.epoch != place.epoch:
            return known
        return max(known, reached.number)

    def _release(self, channel: str) -> None:
        """Put what is held behind its place into the inbox; the channel waits no more."""
        one = self._waiting.pop(channel)
        self._bytes -= one.size
        self._places[channel] = one.place
        for held in one.held:
            if self.had(channel, held.epoch, held.position):
                self._pass_over(held)
            else:
                self._put(held.heard)
        self._end(one)

    def _end(self, one: Waiting) -> None:
        """A channel waits no more: if it was the last one that lacked something that is told."""
        if one.targets:
            self._wanted.set()

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
            start = following or f"{self._had_position(channel[self._namespace], one.place) + 1}-0"
            page = await self._page(channel, start, commands)
            if page is None or page.position.epoch != one.place.epoch:
                one.lost += max(one.unread, one.dropped)
                one.exact = False
                break
            for entry in page.entries:
                await self._put_entry(channel, one, entry)
            following = page.more if page.ends_before(one.goal) else None
            if following is None:
                one.come_to(min(page.number, one.until), min(page.position.number, one.goal))
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

    async def _put_entry(self, channel: str, one: Waiting, entry: Entry) -> None:
        """Put what an entry has into the inbox, when there is room."""
        header = entry.header
        if header.position - header.messages >= one.goal:
            return  # it is held, or will be heard: over another socket than this was read
        if self._context.sealed and entry.time < one.since - OLDEST_MS:
            return  # recorded anew by somebody who does not know the secret
        read = Held.of(
            Heard(
                channel,
                one.place.number if entry.targeted else header.number,
                entry.payload,
                entry.items_offset,
                header.sender_start,
                header.counter_epoch,
                header.messages,
                header.position,
                entry.time,
                entry.time,
                entry.targeted,
            )
        )
        if not self._is_wanted(channel, one, read):
            return
        await self._inbox.wait_room(read.heard)
        if not self._is_wanted(channel, one, read):
            return  # the channel is heard elsewhere by now, or no more
        self._inbox.put(read.heard, control=True)
        if entry.targeted:
            one.come_to(0, header.position)
        else:
            self._context.counters.recovered += header.messages
            one.come_to(header.number - header.messages, 0)
            one.pass_by(read)

    def _is_wanted(self, channel: str, one: Waiting, held: Held) -> bool:
        """Whether a channel waits still, and for this message."""
        return self._waiting.get(channel) is one and not one.has(held)

    async def _put_held(self, channel: str, one: Waiting) -> None:
        """Put what is held into the inbox, when there is room; more may be held meanwhile."""
        while one.held and self._waiting.get(channel) is one:
            held = one.held[0]
            if self._is_wanted(channel, one, held):
                await self._inbox.wait_room(held.heard)
                first = one.held[0] if one.held else None
                if first is not held or not self._is_wanted(channel, one, held):
                    continue
                self._inbox.put(held.heard, control=True)
                one.pass_by(held)
            else:
                self._pass_over(held)
            self._bytes -= held.heard.size
            one.held.popleft()
