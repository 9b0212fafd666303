"""Decodes payloads of the inbox and hands their items on, one payload after another.

The order of each channel is kept, and no connection is ever awaited. :mod:`.delivery` executes
items at this node's connections; a publisher has none.
"""

import asyncio
import logging
from time import monotonic
from typing import Any, Final, Protocol

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.inbox import Heard
from cluster_pool.cluster.replies import Replies
from cluster_pool.cluster.unsealing import Unsealing
from cluster_pool.cluster.watchers import Watchers
from cluster_pool.core import envelope
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.history import Position
from cluster_pool.core.ids import shown
from cluster_pool.core.keys import is_of_one
from cluster_pool.core.message import Author, Outgoing, PublishedMessage, Source
from cluster_pool.core.tally import Tally

log = logging.getLogger("cluster_pool.router")

MESSAGES: Final = (envelope.TEXT, envelope.BINARY)
RUN: Final = 100
"""Messages that are decoded before the first of them is delivered."""
TURN: Final = 0.005
"""Seconds after which other tasks get to run, also in the middle of an envelope."""

NO_MARK: Final = ("", 0)
"""The place of an item that no history keeps."""

Run = list[tuple[str, list[Any], Outgoing]]
"""Messages for one member each: the claim of the member, the item, and the message in it."""


class Turn:
    """When other tasks must get to run.

    The clock of the event loop cannot be used: that of uvloop stands still within a turn.
    """

    __slots__ = ("ends",)

    def __init__(self) -> None:
        self.ends = 0.0

    async def yield_now(self) -> None:
        """Let other tasks run, then begin the next turn."""
        await asyncio.sleep(0)
        self.ends = monotonic() + TURN


class Permit(Protocol):
    """Whether a node may execute items: see :class:`LeaseState`."""

    @property
    def unbroken(self) -> bool:
        """Whether no other node can have claimed what is owned here."""

    async def wait_held(self) -> None:
        """Wait until the lease is held, and all that is owned is registered under it."""


class Handler(Protocol):
    """Executes items for a node and its connections: see :class:`Delivery`."""

    def hand_out(self, run: Run) -> None:
        """Deliver plain messages."""

    def execute(self, kind: int, claim: str, item: list[Any], mark: tuple[str, int]) -> None:
        """Execute any other targeted item; ``mark``: its place in a history."""

    def reached(self, namespace: str, epoch: str, number: int) -> None:
        """All in the history of a namespace up to here was given to the members here."""

    async def broadcast(self, heard: Heard) -> None:
        """Deliver messages that were published to a namespace."""


class Dispatcher:
    """The one task that reads the inbox.

    Args:
        turn: shared with ``handler``.
        handler, permit: None for a publisher, which gets only replies and events.
    """

    def __init__(
        self,
        backplane: Backplane,
        replies: Replies,
        watchers: Watchers,
        unsealing: Unsealing | None,
        turn: Turn,
        handler: Handler | None,
        permit: Permit | None,
    ) -> None:
        self._inbox = backplane.inbox
        self._broken = backplane.shard.receiver.broken
        self._identity = backplane.identity
        self._progress = backplane.progress
        self._delays = backplane.setup.counters.delivery_seconds
        self._replies = replies
        self._watchers = watchers
        self._unsealing = unsealing
        self._turn = turn
        self._handler = handler
        self._permit = permit
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = asyncio.create_task(self._run(), name="cluster_pool router")

    async def stop(self) -> None:
        """End the task; the inbox keeps its payloads."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        inbox, permit, turn = self._inbox, self._permit, self._turn
        while True:
            await inbox.wait()
            if permit is not None and not permit.unbroken:
                await permit.wait_held()
            turn.ends = monotonic() + TURN
            while monotonic() < turn.ends and (heard := inbox.pop()) is not None:
                self._progress.dealing = True
                await self._handle(heard)
                self._progress.dealing = False
            await asyncio.sleep(0)

    async def _handle(self, heard: Heard) -> None:
        try:
            channel = heard.channel
            if channel == self._identity.start_channel:
                await self._targeted(heard)
            elif channel[-1:] == "}":  # of a namespace
                if self._handler is not None:
                    await self._handler.broadcast(heard)
            elif is_of_one(channel):
                await self._targeted(heard)
            elif channel in self._watchers:
                self._watchers.heard(channel, heard.payload)
            elif not channel:
                self._delays.observe(monotonic() - heard.number / 1_000_000)
        except BrokenEnvelopeError as error:
            self._broken(error, heard.channel)
        except Exception as error:  # content from other programs must not end this task
            log.debug("on %s: %r", shown(heard.channel), error, exc_info=True)
            self._broken(BrokenEnvelopeError("content"), heard.channel)
        if heard.items_offset and not (heard.time and is_of_one(heard.channel)):
            self._progress.reach(heard.channel, heard.epoch, heard.number)

    async def _targeted(self, heard: Heard) -> None:
        """Execute the items of an envelope, in order.

        Plain messages, as nearly all are, are handled in runs: doing one kind of work for many of
        them keeps the CPU's caches warm.
        """
        if not heard.items_offset:
            raise BrokenEnvelopeError("raw payload on the channel of a node")
        handler, unsealing, turn = self._handler, self._unsealing, self._turn
        run: Run = []
        try:
            for claim, sealed, *place in envelope.read_items(heard.payload[heard.items_offset :]):
                item = sealed if unsealing is None else unsealing.targeted(heard, claim, sealed)
                if item is None:
                    continue
                mark = _mark_in(place[0]) if place else NO_MARK
                plain = handler is not None and len(item) == 4 and item[0] in MESSAGES
                if plain:
                    message = message_of(item[0], item[3], (item[1], *mark))
                    run.append((claim, item, message))
                    if len(run) < RUN:
                        continue
                self._hand_out(run)
                if not plain:
                    self._execute(claim, item, mark)
                    if handler is not None and mark[1]:
                        handler.reached(item[1], *mark)
                if monotonic() >= turn.ends:
                    await turn.yield_now()
        finally:
            self._hand_out(run)

    def _hand_out(self, run: Run) -> None:
        """Deliver messages, each once: the run is cleared first, in case that raises."""
        if run and self._handler is not None:
            messages = run.copy()
            run.clear()
            self._handler.hand_out(messages)

    def _execute(self, claim: str, item: list[Any], mark: tuple[str, int]) -> None:
        """Give answers to the calls that wait for them, and other items to the node, if any."""
        kind = item[0]
        if kind == envelope.REPLY:
            self._replies.heard(item[1], item[3], envelope.RESULTS[item[2]])
        elif kind == envelope.ANSWER:
            self._replies.heard(item[1], item[3], str(item[2]))
        elif kind == envelope.TALLY:
            self._replies.counted(item[1], item[3], str(item[2]), Tally.read(item))
        elif self._handler is not None:
            self._handler.execute(kind, claim, item, mark)


def _mark_in(place: object) -> tuple[str, int]:
    """The place in a history, as the sending script has written it."""
    position = Position.parse(place)
    if position is None:
        raise BrokenEnvelopeError("position")
    return position


def message_of(
    kind: object, payload: object, source: Source, author: Author | None = None
) -> Outgoing:
    """The message of an item. Text must be UTF-8, since a client closes on anything else."""
    if kind not in MESSAGES or not isinstance(payload, bytes):
        raise BrokenEnvelopeError("kind")
    text = kind == envelope.TEXT
    if text and not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise BrokenEnvelopeError("text") from None
    if author is not None:
        return PublishedMessage(text, payload, source, author)
    return Outgoing(text, payload, source)
