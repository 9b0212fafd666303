"""Decodes what comes from the bus and hands it on, one payload after another.

The order of each channel is kept, and no connection is ever awaited. :mod:`.delivery` carries items
out at this node's connections; a publisher has none.
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
from cluster_pool.core.ids import shown
from cluster_pool.core.message import Outgoing

log = logging.getLogger("cluster_pool.router")

MESSAGES: Final = (envelope.TEXT, envelope.BINARY)
RUN: Final = 100
"""Messages that are read before the first of them is delivered."""
TURN: Final = 0.005
"""Seconds after which others get their turn on the loop, also in the middle of an envelope."""

Run = list[tuple[str, list[Any], Outgoing]]
"""Messages for one member each: the claim of the member, the item, and the message in it."""


class Turn:
    """When others must get their turn on the loop.

    The loop's own clock cannot tell: uvloop's stands still in a turn.
    """

    __slots__ = ("ends",)

    def __init__(self) -> None:
        self.ends = 0.0

    async def let_others(self) -> None:
        """Wait for the next turn, and begin it."""
        await asyncio.sleep(0)
        self.ends = monotonic() + TURN


class Permit(Protocol):
    """Whether a node may carry anything out: see :class:`LeaseState`."""

    @property
    def unbroken(self) -> bool:
        """Whether no other node can have claimed what is owned here."""

    async def wait_held(self) -> None:
        """Wait for the lease, and until everything that is owned stands under it."""


class Handler(Protocol):
    """Carries out what is for a node and its connections: see :class:`Delivery`."""

    def hand_out(self, run: Run) -> None:
        """Deliver messages that ask for nothing else."""

    def carry_out(self, kind: int, claim: str, item: list[Any]) -> None:
        """Do what any other targeted item asks for."""

    async def broadcast(self, heard: Heard) -> None:
        """Deliver what was published to a namespace."""


class Dispatcher:
    """The one task that takes from the inbox.

    Args:
        turn: shared with ``handler``.
        handler, permit: None for a publisher, which only replies and events concern.
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
        self._shard = backplane.shard
        self._identity = backplane.identity
        self._node_prefix = backplane.setup.keys.node_prefix
        self._progress = backplane.progress
        self._replies = replies
        self._watchers = watchers
        self._unsealing = unsealing
        self._turn = turn
        self._handler = handler
        self._permit = permit
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="cluster_pool router")

    async def stop(self) -> None:
        """End; what is in the inbox stays there."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        inbox, permit, turn = self._shard.receiver.inbox, self._permit, self._turn
        while True:
            await inbox.wait()
            if permit is not None and not permit.unbroken:
                await permit.wait_held()
            turn.ends = monotonic() + TURN
            while monotonic() < turn.ends and (heard := inbox.pop()) is not None:
                self._progress.dealing = True
                await self._deal_with(heard)
                self._progress.dealing = False
            await asyncio.sleep(0)

    async def _deal_with(self, heard: Heard) -> None:
        try:
            if heard.channel == self._identity.own_channel:
                await self._targeted(heard)
            elif heard.channel in self._watchers:
                self._watchers.heard(heard.channel, heard.payload)
            elif heard.channel.startswith(self._node_prefix):
                await self._targeted(heard)  # heard before this node took another node id
            elif self._handler is not None:
                await self._handler.broadcast(heard)
        except BrokenEnvelopeError as error:
            self._shard.receiver.broken(error, heard.channel)
        except Exception as error:  # whatever others wrote, this task goes on
            log.debug("on %s: %r", shown(heard.channel), error, exc_info=True)
            self._shard.receiver.broken(BrokenEnvelopeError("content"), heard.channel)
        if heard.items_offset:
            self._progress.reach(heard.channel, heard.epoch, heard.number)

    async def _targeted(self, heard: Heard) -> None:
        """Carry the items of an envelope out, in order.

        What nearly all are, a message and nothing else is asked, is done in runs: one kind of work
        after the other keeps the CPU's caches warm.
        """
        if not heard.items_offset:
            raise BrokenEnvelopeError("raw payload on the channel of a node")
        handler, unsealing, turn = self._handler, self._unsealing, self._turn
        run: Run = []
        try:
            for claim, sealed in envelope.read_items(heard.payload[heard.items_offset :]):
                item = sealed if unsealing is None else unsealing.targeted(heard, claim, sealed)
                if item is None:
                    continue
                plain = handler is not None and len(item) == 4 and item[0] in MESSAGES
                if plain:
                    run.append((claim, item, message_of(item[0], item[3])))
                    if len(run) < RUN:
                        continue
                self._hand_out(run)
                if not plain:
                    self._carry_out(claim, item)
                if monotonic() >= turn.ends:
                    await turn.let_others()
        finally:
            self._hand_out(run)

    def _hand_out(self, run: Run) -> None:
        """Deliver messages, each once: they are forgotten first, whatever comes of it."""
        if run and self._handler is not None:
            messages = run.copy()
            run.clear()
            self._handler.hand_out(messages)

    def _carry_out(self, claim: str, item: list[Any]) -> None:
        """Answers go to the calls that wait for them; all else to the node, if this is one."""
        kind = item[0]
        if kind == envelope.REPLY:
            self._replies.heard(item[1], item[3], envelope.RESULTS[item[2]])
        elif kind == envelope.ANSWER:
            self._replies.heard(item[1], item[3], str(item[2]))
        elif self._handler is not None:
            self._handler.carry_out(kind, claim, item)


def message_of(kind: object, payload: object) -> Outgoing:
    """The message that an item carries. Text must be UTF-8: a client closes on anything else."""
    if kind not in MESSAGES or not isinstance(payload, bytes):
        raise BrokenEnvelopeError("kind")
    text = kind == envelope.TEXT
    if text and not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise BrokenEnvelopeError("text") from None
    return Outgoing(text, payload)
