"""What comes from the bus: to the connections of this node, or to whoever waits for a reply.

Deals with one payload after another, so that order is what the channel's order was. It never
awaits one connection; a fan-out over many yields in between.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from time import monotonic
from typing import Any

from cluster_pool.backplane.inbox import Heard
from cluster_pool.backplane.outbound import Outbound
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.cluster.replies import Replies
from cluster_pool.cluster.unsealing import Unsealing
from cluster_pool.cluster.watchers import Watchers
from cluster_pool.core import envelope
from cluster_pool.core.claims import Claim
from cluster_pool.core.closing import check_close
from cluster_pool.core.config import Timing
from cluster_pool.core.envelope import BrokenEnvelopeError, ReplyTo
from cluster_pool.core.identity import Identity
from cluster_pool.core.ids import shown
from cluster_pool.core.keys import Keys
from cluster_pool.core.message import Outgoing
from cluster_pool.core.progress import Progress
from cluster_pool.core.results import SendResult
from cluster_pool.core.seals import Seals
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.router")

MESSAGES = (envelope.TEXT, envelope.BINARY)
RUN = 100
"""Messages that are read before the first of them is delivered."""
TURN = 0.005
"""Seconds after which others get their turn on the loop, also in the middle of an envelope."""


Obey = Callable[[str, dict[str, Any], Callable[[str], None]], None]
"""Takes an order, its options, and whom to tell why it is refused ("" when it is not)."""


class Dispatcher:
    """The one task that takes from the inbox.

    A publisher gives no membership: then only replies and events concern it.
    """

    def __init__(
        self,
        shard: Shard,
        keys: Keys,
        identity: Identity,
        timing: Timing,
        counters: Counters,
        seals: Seals | None,
    ) -> None:
        self._shard = shard
        self._identity = identity
        self._node_prefix = keys.node_prefix
        self._unsealing = (
            Unsealing(seals, shard, identity, keys, counters) if seals is not None else None
        )
        self._timing = timing
        self._counters = counters
        self._head = len(keys.prefix) + 2
        self.progress = Progress()
        self._dealing = False
        self._task: asyncio.Task[None] | None = None
        self._turn_ends = 0.0
        self.replies = Replies()
        self.watchers = Watchers(counters)
        self.outbound: Outbound
        self._table: ConnectionTable | None = None
        self._ownership: Ownership | None = None
        self._lease: LeaseState | None = None
        self._obey: Obey | None = None

    def serve(
        self, table: ConnectionTable, ownership: Ownership, lease: LeaseState, obey: Obey
    ) -> None:
        """There are connections here: deliver to them, and have orders to this node obeyed."""
        self._table, self._ownership, self._lease = table, ownership, lease
        self._obey = obey
        if self._unsealing is not None:
            self._unsealing.serve(table, ownership)

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="cluster_pool router")

    async def stop(self) -> None:
        """End; what is in the inbox stays there, and whoever waits to hear something is told."""
        self.replies.stop()
        self.watchers.stop()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def all_handed_on(self) -> bool:
        """Whether everything that was heard has been dealt with."""
        return not self._dealing and not self._shard.receiver.inbox

    def begin_anew(self) -> None:
        """A new generation: numbers begin anew."""
        self.progress.begin_anew()

    def forget(self, channel: str) -> None:
        """A channel is no longer subscribed."""
        self.progress.forget(channel)

    # -- one payload after another ---------------------------------------------------------

    async def _run(self) -> None:
        inbox = self._shard.receiver.inbox
        while True:
            await inbox.wait()
            if self._lease is not None and not self._lease.unbroken:
                await self._lease.wait_held()
            self._turn_ends = monotonic() + TURN
            while monotonic() < self._turn_ends and (heard := inbox.take()) is not None:
                self._dealing = True
                await self._deal_with(heard)
                self._dealing = False
            await asyncio.sleep(0)

    async def _let_others(self) -> None:
        """The turn is over. The loop's own clock cannot tell: uvloop's stands still in a turn."""
        await asyncio.sleep(0)
        self._turn_ends = monotonic() + TURN

    async def _deal_with(self, heard: Heard) -> None:
        try:
            if heard.channel == self._identity.own_channel:
                await self._targeted(heard)
            elif heard.channel in self.watchers:
                self.watchers.heard(heard.channel, heard.payload)
            elif heard.channel.startswith(self._node_prefix):
                await self._targeted(heard)  # heard before this node took another node id
            elif heard.start:
                await self._broadcast_items(heard)
            else:
                await self._broadcast_raw(heard)
        except BrokenEnvelopeError as error:
            self._shard.receiver.broken(error, heard.channel)
        except Exception as error:  # whatever others wrote, this task goes on
            log.debug("on %s: %r", shown(heard.channel), error, exc_info=True)
            self._shard.receiver.broken(BrokenEnvelopeError("content"), heard.channel)
        if heard.start:
            self.progress.reach(heard.channel, heard.epoch, heard.number)

    # -- to one ----------------------------------------------------------------------------

    async def _targeted(self, heard: Heard) -> None:
        """Carry the items of an envelope out, in order.

        What nearly all are, a message and nothing else is asked, is done in runs: one kind of work
        after the other keeps the CPU's caches warm.
        """
        if not heard.start:
            raise BrokenEnvelopeError("raw payload on the channel of a node")
        holds, unsealing = self._ownership is not None, self._unsealing
        run: list[tuple[str, list[Any], Outgoing]] = []
        try:
            for claim, sealed in envelope.read_items(heard.payload[heard.start :]):
                item = sealed if unsealing is None else unsealing.targeted(heard, claim, sealed)
                if item is None:
                    continue
                plain = holds and len(item) == 4 and item[0] in MESSAGES
                if plain:
                    run.append((claim, item, _message(item[0], item[3])))
                    if len(run) < RUN:
                        continue
                self._hand_out(run)
                if not plain:
                    self._carry_out(claim, item)
                if monotonic() >= self._turn_ends:
                    await self._let_others()
        finally:
            self._hand_out(run)

    def _hand_out(self, run: list[tuple[str, list[Any], Outgoing]]) -> None:
        """Deliver messages, each once: they are forgotten first, whatever comes of it."""
        if run:
            assert self._ownership is not None
            find = self._ownership.find
            messages = run.copy()
            run.clear()
            for claim, item, message in messages:
                connection = find(item[1], item[2], claim)
                if connection is None:
                    self._counters.undelivered += 1
                else:
                    connection.deliver(message)

    def _carry_out(self, claim: str, item: list[Any]) -> None:
        """What asks for more than to be delivered."""
        kind = item[0]
        if kind == envelope.REPLY:
            self._told(item, envelope.RESULTS[item[2]])
        elif kind == envelope.ANSWER:
            self._told(item, str(item[2]))
        elif kind == envelope.COMMAND:
            to = ReplyTo.read(item[3])
            if to is None:
                raise BrokenEnvelopeError("reply address")
            self._order(item[1], item[2], to)
        elif kind == envelope.QUESTION:
            self._question(claim, item)
        elif self._ownership is not None:
            to = ReplyTo.read(item[5])
            result = self._act(kind, claim, item)
            if result is SendResult.ABSENT:
                self._counters.undelivered += 1
            if to is not None and self._is_ours(claim):
                self._reply(to, result)

    def _question(self, claim: str, item: list[Any]) -> None:
        """Somebody claims an id that is held here: does its connection still have a client?"""
        to = ReplyTo.read(item[3])
        if to is None:
            raise BrokenEnvelopeError("reply address")
        if self._ownership is not None and self._is_ours(claim):
            connection = self._ownership.find(item[1], item[2], claim)
            self._ownership.standing.asked(connection, partial(self._reply, to))

    def _told(self, item: list[Any], result: SendResult | str) -> None:
        """An answer has come; another process with this node id may have asked for it."""
        if item[3] == self._identity.start:
            self.replies.heard(item[1], result)

    def _is_ours(self, claim: str) -> bool:
        """Whether an item was routed to a claim of this start; another owner's word is not ours."""
        return claim.startswith(f"{self._identity.start}.")

    def _act(self, kind: int, claim: str, item: list[Any]) -> SendResult:
        """Carry out an item that asks for more than a message; gives the result."""
        assert self._ownership is not None
        connection = self._ownership.find(item[1], item[2], claim)
        if kind == envelope.CLOSE:
            code, reason = check_close(item[3], item[4])
            if connection is None:
                return SendResult.ABSENT
            connection.kick(code, reason)
            return SendResult.DELIVERED
        outgoing = _message(kind, item[3])
        if connection is None:
            return SendResult.ABSENT
        result = connection.deliver(outgoing)
        if result and item[4]:
            connection.kick(*check_close(*item[4]))
        return result

    def _order(self, verb: str, options: list[Any], to: ReplyTo) -> None:
        if self._obey is not None:
            named = dict(zip(options[::2], options[1::2], strict=True))
            self._obey(verb, named, lambda refusal: self._answer(to, refusal))

    def _answer(self, to: ReplyTo, refusal: str) -> None:
        self._tell(to, envelope.answer(to, refusal))

    def _reply(self, to: ReplyTo, result: SendResult) -> None:
        self._tell(to, envelope.reply(to, result))

    def _tell(self, to: ReplyTo, item: bytes) -> None:
        deadline = asyncio.get_running_loop().time() + self._timing.timeout
        try:
            told = self.outbound.tell(to.node, to.start, item, deadline)
        except ClusterPoolError as error:
            log.debug("no reply to %s: %s", shown(to.node), error)
        else:
            told.add_done_callback(lambda future: future.cancelled() or future.exception())

    # -- to all ----------------------------------------------------------------------------

    def _namespace(self, channel: str) -> str:
        return channel[self._head : -1]

    async def _broadcast_raw(self, heard: Heard) -> None:
        if self._table is not None:
            outgoing = Outgoing(*envelope.raw_message(heard.payload))
            await self._table.broadcast(self._namespace(heard.channel), outgoing, frozenset())

    async def _broadcast_items(self, heard: Heard) -> None:
        """Deliver an envelope's messages; neighbours without exclusions go out as one write."""
        if self._table is None:
            return
        namespace = self._namespace(heard.channel)
        run: list[Outgoing] = []
        try:
            for sealed in envelope.read_items(heard.payload[heard.start :]):
                if monotonic() >= self._turn_ends:
                    await self._let_others()
                opened = self._opened(heard, namespace, sealed)
                if opened is not None:
                    await self._broadcast_item(namespace, *opened, run)
        finally:
            await self._fan_out(namespace, run)

    def _opened(
        self, heard: Heard, namespace: str, item: list[Any]
    ) -> tuple[list[Any], Collection[str]] | None:
        """An item, out of its seal if there must be one, and who here may not have it."""
        if self._unsealing is None:
            return item, ()
        return self._unsealing.broadcast(heard, namespace, item)

    async def _broadcast_item(
        self, namespace: str, item: list[Any], later: Collection[str], run: list[Outgoing]
    ) -> None:
        """Carry one item out, behind what has gathered in ``run``, or add it there."""
        assert self._table is not None
        kind = item[0]
        if kind in MESSAGES:
            outgoing = _message(kind, item[1])
            if not (item[2] or later):
                run.append(outgoing)
                return
            await self._fan_out(namespace, run)
            await self._table.broadcast(namespace, outgoing, frozenset((*item[2], *later)))
        else:
            await self._fan_out(namespace, run)
            await self._control(namespace, kind, item, later)

    async def _fan_out(self, namespace: str, run: list[Outgoing]) -> None:
        if run:
            assert self._table is not None
            await self._table.broadcast(namespace, Outgoing.join(tuple(run)), frozenset())
            run.clear()

    async def _control(
        self, namespace: str, kind: int, item: list[Any], later: Collection[str]
    ) -> None:
        assert self._table is not None
        assert self._ownership is not None
        if kind == envelope.CLOSE_ALL:
            await self._table.close_all(namespace, *check_close(item[1], item[2]), later)
        elif kind == envelope.TAKEN:
            claim = Claim.parse(item[2])
            if claim is None:
                raise BrokenEnvelopeError("claim")
            self._ownership.taken(namespace, item[1], claim)
        else:
            raise BrokenEnvelopeError("kind")


def _message(kind: object, payload: object) -> Outgoing:
    """What an item carries. Text must be UTF-8: a client would close on anything else."""
    if kind not in MESSAGES or not isinstance(payload, bytes):
        raise BrokenEnvelopeError("kind")
    text = kind == envelope.TEXT
    if text and not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise BrokenEnvelopeError("text") from None
    return Outgoing(text, payload)
