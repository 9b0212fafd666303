"""Receives what a subscriber hears: checks numbers, fills the inbox, and counts losses.

Owns the inbox and the account of message numbers. It reads only the header of an envelope, never
its items, so that the subscriber is never slow; payloads that do not fit are counted for the gap.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from cluster_pool.backplane.inbox import Heard
from cluster_pool.backplane.recovery import Recovery
from cluster_pool.backplane.shard_context import ShardContext
from cluster_pool.core.envelope import (
    ENVELOPE,
    MARK,
    RAW_BINARY,
    UNCOUNTED,
    BrokenEnvelopeError,
    Header,
    read_header,
)
from cluster_pool.core.events import COUNTER, MAX_BYTES, EventNumbers
from cluster_pool.core.ids import shown
from cluster_pool.core.keys import Keys, is_of_one, is_probe
from cluster_pool.core.numbers import NO_COUNTER, UNREADABLE, Counter, Numbers, ServerChange
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.results import Gap
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.backplane")

MAX_SENDERS = 10_000
ENVELOPE_ROOM = 4 * 1024 * 1024
"""Bytes of an envelope beyond one message: 10,000 exclusions of 256 bytes, neighbours, seals."""


class Receiver:
    """The receiving side of a shard, over all its generations.

    Args:
        context: its identity's start tells our own probes from those of others; where items are
            sealed, their counters tell which are stale.
        now: the time of Redis in µs, or a little more.
    """

    def __init__(self, context: ShardContext, now: Callable[[], int] = lambda: 0) -> None:
        self.numbers = Numbers()
        self.recovery = Recovery(context, self._put_late, self._missed, now)
        """Closes gaps in namespaces with a history; what is heard behind one is held there."""
        self.events: dict[str, str] = {}
        """Channels of joins and leaves, with the hashes in which these are counted."""
        self._event_numbers = EventNumbers()
        self.inbox = context.inbox
        self.probed = asyncio.Event()
        """Set when a probe of this start was heard."""
        self._identity = context.identity
        self._namespace = slice(len(context.keys.prefix) + 2, -1)
        self._largest = context.limits.message_bytes
        self._counters = context.counters
        self._sealed = context.sealed
        self._senders: dict[str, int] = {}
        self._broken: set[str] = set()
        self._namesakes: set[str] = set()
        self._quiet = Quiet()
        self._found = 0
        """Messages that were missed on the channels of a start, and were found."""

    def hear(self, channel: str, payload: bytes) -> None:
        """Handle one payload; those of a channel come in the order of publishing.

        Raises:
            BackplaneUnavailableError: a takeover or a reply did not fit into the inbox; this
                generation must end, and the rejoin finds out which ids were taken over.
        """
        self._counters.heard += 1
        if payload[:1] == b"\xc1" and payload[:2] != RAW_BINARY:
            try:
                self._hear_envelope(channel, payload)
            except BrokenEnvelopeError as error:
                self.broken(error, channel)
        elif channel in self.events:
            self._hear_events(channel, payload)
        elif len(payload) > self._largest:
            self._counters.dropped_oversize += 1
        elif self.recovery.holds(channel):
            self.recovery.hold(Heard(channel, 0, payload, 0, ""))
        else:
            self._put(Heard(channel, 0, payload, 0, ""), 1)

    def _hear_envelope(self, channel: str, payload: bytes) -> None:
        if payload[:2] != ENVELOPE:
            raise BrokenEnvelopeError("version")
        header, items_offset = read_header(payload)
        if header.counter_epoch != UNCOUNTED:
            self.numbers.heard(channel, header.counter_epoch, header.number, header.messages)
        own = header.sender_start == self._identity.start
        if header.position and self.recovery.had(channel, header.counter_epoch, header.position):
            return
        waits = header.messages > 0 and self.recovery.holds(channel)
        if (own or not self._sealed) and self._stale(header) and not waits:
            self._counters.dropped_stale += 1
            if header.messages:
                self.numbers.dropped(channel, header.messages)
        elif len(payload) > self._largest + ENVELOPE_ROOM:
            self._counters.dropped_oversize += 1
            self.numbers.dropped(channel, header.messages)
        elif items_offset < len(payload):
            sender, epoch, messages = header.sender_start, header.counter_epoch, header.messages
            marks = sender, epoch, messages, header.position
            heard = Heard(channel, header.number, payload, items_offset, *marks)
            if waits:
                self.recovery.hold(heard)
            elif self.recovery.waits and is_of_one(channel):
                self._put_rest(heard)
            else:
                self._put(heard, messages)
        elif own:
            self.probed.set()
        elif channel == self._identity.own_channel:
            self._hear_namesake(header.sender_start)

    def _put_rest(self, heard: Heard) -> None:
        """Put what need not wait for the past of a namespace."""
        rest = self.recovery.hold_targets(heard)
        if rest is not None:
            self._put(rest, rest.messages)

    def _hear_namesake(self, start: str) -> None:
        """Another start probes this node's own channel.

        One probe may be the last of a process that died under this node id; a second is logged.
        """
        self._counters.namesakes += 1
        if start not in self._namesakes:
            if len(self._namesakes) >= MAX_SENDERS:
                self._namesakes.clear()
            self._namesakes.add(start)
        elif self._quiet.due("namesake", monotonic()):
            log.warning(
                "another process is node %s too, and each hears what is meant for the other: is "
                "one prefix used in two databases of this Redis, or one node id given twice?",
                shown(self._identity.node_id),
            )

    def _stale(self, header: Header) -> bool:
        """Whether it comes from an older generation of its sender than one heard before."""
        newest = self._senders.get(header.sender_start, 0)
        if header.generation > newest:
            if len(self._senders) >= MAX_SENDERS:
                self._senders.clear()
            self._senders[header.sender_start] = header.generation
        return header.generation < newest

    def _hear_events(self, channel: str, payload: bytes) -> None:
        """Handle joins and leaves; where some are missing, the inbox gets an empty payload."""
        if self._event_numbers.heard(channel, payload):
            self._lose_events(channel)
        if len(payload) > MAX_BYTES:
            self._counters.dropped_oversize += 1
            self._lose_events(channel)
        elif not self.inbox.put(Heard(channel, 0, payload, 0, "")):
            self._counters.dropped_overflow += 1
            self._lose_events(channel)

    def _lose_events(self, channel: str) -> None:
        """Events were missed: put an empty payload, which says so, behind what was heard."""
        if not self.inbox.put(Heard(channel, 0, b"", 0, ""), control=True):
            raise BackplaneUnavailableError("the inbox is full, and what was lost cannot be said")

    # -- counters --------------------------------------------------------------------------

    def counter_of(self, channel: str) -> tuple[str, str, str, str]:
        """The hash in which the messages or events of a channel are counted, and its fields; the
        third is where it stood at the former server, which events do not have."""
        if channel in self.events:
            return self.events[channel], *COUNTER, ""
        return Keys.numbers(channel), "epoch", "last", "former"

    def begin(self, channel: str, counter: Counter) -> None:
        """A channel was subscribed, while its counter stood there."""
        if channel not in self.events:
            if counter.epoch != UNREADABLE:
                first = not self.numbers.has_begun(channel)
                self.recovery.begin(channel, counter, first=first)
            self.numbers.begin(channel, counter.epoch or NO_COUNTER, counter.number)
        elif counter.epoch != UNREADABLE:
            self._event_numbers.begin(channel, counter.epoch, counter.number)

    def interrupted(self, generation: int) -> None:
        """The subscriptions of a generation ended, and its command connection with them.

        Messages that this process sent in it and has not heard back are stale from now on:
        members here are sent to directly meanwhile, which would overtake them.
        """
        self._senders[self._identity.start] = generation + 1
        self.numbers.interrupted()
        self._event_numbers.interrupted()

    def ended(self, channel: str) -> None:
        """This Redis publishes nothing more on a channel, and all that it has published was heard.

        Joins and leaves are read again whenever they were interrupted at a change of servers.
        """
        self.numbers.ended(channel)
        self._event_numbers.hand_over(channel, self._event_numbers)

    def resubscribed(self, channel: str, counter: Counter, change: ServerChange, now: int) -> None:
        """A channel was subscribed again, while its counter stood there; ``now`` in Redis time."""
        epoch, number = counter.epoch, counter.number
        if channel not in self.events:
            if self.recovery.settle(channel, counter, change):
                self.numbers.begin_again(channel, epoch or NO_COUNTER, number)
            else:
                self.numbers.resubscribed(channel, counter, change, now)
                if is_of_one(channel) and self.numbers.has_missed(channel):
                    self.recovery.miss_targets(channel)
        elif self._event_numbers.resubscribed(
            channel, epoch, number, lost=change > ServerChange.MOVED
        ):
            self._lose_events(channel)

    def forget(self, channel: str) -> None:
        """A channel is no longer subscribed."""
        self.numbers.forget(channel)
        self.recovery.forget(channel)
        self._event_numbers.forget(channel)
        self.events.pop(channel, None)

    def hand_over(self, channel: str, other: "Receiver") -> None:
        """A channel is heard by another receiver from now on, after an interruption."""
        if channel in self.events:
            other.events[channel] = self.events.pop(channel)
            self._event_numbers.hand_over(channel, other._event_numbers)
        else:
            self.recovery.hand_over(channel)
            self.numbers.hand_over(channel, other.numbers)

    def _put_late(self, heard: Heard) -> None:
        self._put(heard, heard.messages or 1)

    def _missed(self, channel: str, count: int, exact: bool) -> None:
        self.numbers.dropped(channel, count, exact=exact)

    def _put(self, heard: Heard, messages: int) -> None:
        if self.inbox.put(heard, control=not messages):
            if messages:
                self.recovery.reached(heard)
            return
        if not messages:
            raise BackplaneUnavailableError("the inbox is full, and a takeover did not fit")
        self._counters.dropped_overflow += 1
        self.numbers.dropped(heard.channel, messages)

    def broken(self, error: BrokenEnvelopeError, channel: str) -> None:
        """Count an invalid envelope; log it once per kind."""
        self._counters.dropped_garbage += error.count
        if error.kind not in self._broken:
            self._broken.add(error.kind)
            log.warning("dropped a broken envelope (%s) on %s", error.kind, shown(channel))

    async def found_targets(self) -> None:
        """Wait until what was targeted at members here and missed was given to them, as far as it
        was read: what is left of it is missed."""
        if self.recovery.targets and not self.recovery.lacks_targets():
            await self.inbox.passed()
            self.recovery.targets = self.recovery.lacks_targets()

    def found_target(self) -> None:
        """A message was given to a member here that had missed it."""
        self._counters.recovered += 1
        self._found += self.recovery.targets

    def _take_missed(self) -> tuple[dict[str, int], bool]:
        """The messages missed, without those that are found, or may be."""
        missed, exact = self.numbers.take_missed(is_of_one if self.recovery.targets else None)
        for channel in filter(is_of_one, list(missed)):
            found = min(self._found, missed[channel])
            self._found -= found
            missed[channel] -= found
            if found and not missed[channel]:
                del missed[channel]
        if not self.recovery.targets:
            self._found = 0
        return missed, exact

    def take_gap(self, seconds: float, cause: str) -> Gap | None:
        """The messages missed since the last call, if there are any; counted and logged."""
        missed, exact = self._take_missed()
        if not missed and exact:
            return None
        total = sum(missed.values())
        self._counters.gaps += 1
        self._counters.missed += total
        log.warning("missed %s%d messages: %s", "" if exact else "at least ", total, cause)
        namespaces: dict[str, int] = {}
        for channel, count in missed.items():
            of_none = is_of_one(channel) or is_probe(channel)
            name = "" if of_none else channel[self._namespace]
            namespaces[name] = namespaces.get(name, 0) + count
        return Gap(namespaces, exact, seconds, cause)


assert ENVELOPE[0] == RAW_BINARY[0] == MARK
