"""Executes decoded items at this node: messages, closes, takeovers, questions and orders.

It never awaits a single connection; a fan-out over many yields in between.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.inbox import Heard
from cluster_pool.cluster.dispatcher import MESSAGES, Run, Turn, message_of
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.cluster.remote_joins import RemoteJoins
from cluster_pool.cluster.replies import Answers
from cluster_pool.cluster.rewinds import Rewinds
from cluster_pool.cluster.unsealing import Unsealing
from cluster_pool.core import envelope
from cluster_pool.core.claims import Claim
from cluster_pool.core.closing import check_close
from cluster_pool.core.config import check_on_conflict
from cluster_pool.core.envelope import BrokenEnvelopeError, ReplyTo
from cluster_pool.core.history import Position
from cluster_pool.core.ids import check_id, check_namespace
from cluster_pool.core.message import Outgoing
from cluster_pool.core.results import SendResult
from cluster_pool.local.outbox import deliver, kick
from cluster_pool.local.table import ConnectionTable

EXCEPT: Final = {other: kind for kind, other in envelope.EXCEPT.items()}
"""The kinds of broadcasts that exclude users, with the kinds of their messages."""

ExecuteOrder = Callable[[str, dict[str, Any], Callable[[str], None]], None]
"""Executes an order with its options, and answers it by the third argument: "" or why not."""


class Delivery:
    """Hands items to the connections of this node, and orders to those who execute them.

    Args:
        orders: by verb, those without options; each is given the function that answers it.
        execute_order: executes all others.
    """

    def __init__(
        self,
        backplane: Backplane,
        table: ConnectionTable,
        ownership: Ownership,
        answers: Answers,
        remote_joins: RemoteJoins,
        rewinds: Rewinds,
        orders: Mapping[str, Callable[[Callable[[str], None]], None]],
        execute_order: ExecuteOrder,
        unsealing: Unsealing | None,
        turn: Turn,
    ) -> None:
        self._ours = f"{backplane.identity.start}."
        self._head = len(backplane.setup.keys.prefix) + 2
        self._counters = backplane.setup.counters
        self._table = table
        self._ownership = ownership
        self._answers = answers
        self._remote_joins = remote_joins
        self._rewinds = rewinds
        self._orders = orders
        self._execute_order = execute_order
        self._unsealing = unsealing
        self._turn = turn

    # -- to one ----------------------------------------------------------------------------

    def hand_out(self, run: Run) -> None:
        """Deliver messages to one member each; without a connection they count as undelivered."""
        find = self._ownership.find
        for claim, item, message in run:
            membership = find(item[1], item[2], claim)
            if membership is None:
                self._counters.undelivered += 1
            else:
                deliver(membership.connection, message)

    def execute(self, kind: int, claim: str, item: list[Any]) -> None:
        """Execute an item that is more than a message, and answer it if it asks for that."""
        if kind == envelope.COMMAND:
            self._order(item[1], item[2], _asker(item[3]))
        elif kind == envelope.QUESTION:
            self._question(claim, item, _asker(item[3]))
        elif kind in (envelope.JOIN, envelope.LEAVE):
            self._membership(kind, claim, item)
        else:
            to = ReplyTo.read(item[5])
            result = self._act(kind, claim, item)
            if result is SendResult.ABSENT:
                self._counters.undelivered += 1
            if to is not None and self._is_ours(claim):
                self._answers.reply(to, result)

    def _is_ours(self, claim: str) -> bool:
        """Whether an item was routed to a claim of this start; for others we must not answer."""
        return claim.startswith(self._ours)

    def _order(self, verb: str, options: list[Any], to: ReplyTo) -> None:
        named = dict(zip(options[::2], options[1::2], strict=True))
        answer = partial(self._answers.answer_order, to)
        order = self._orders.get(verb)
        if order is not None:
            order(answer)
        else:
            self._execute_order(verb, named, answer)

    def _question(self, claim: str, item: list[Any], to: ReplyTo) -> None:
        """Another node claims an id of this one: answer whether the client is still there."""
        if self._is_ours(claim):
            membership = self._ownership.find(item[1], item[2], claim)
            self._ownership.standing.asked(membership, partial(self._answers.reply, to))

    def _membership(self, kind: int, claim: str, item: list[Any]) -> None:
        """The connection of a member must join or leave a namespace."""
        if not self._is_ours(claim):
            return
        tell = partial(self._answers.reply, _asker(item[-1]))
        joined = check_namespace(item[3])
        membership = self._ownership.find(item[1], item[2], claim)
        if membership is None:
            self._counters.undelivered += 1
            tell(SendResult.ABSENT)
        elif kind == envelope.LEAVE:
            self._remote_joins.leave(membership, joined, tell)
        else:
            id = check_id(item[4]) if item[4] else None
            on_conflict = item[5] or None
            if on_conflict is not None:
                check_on_conflict(on_conflict)
            self._remote_joins.join(membership, joined, id, on_conflict, tell)

    def _act(self, kind: int, claim: str, item: list[Any]) -> SendResult:
        membership = self._ownership.find(item[1], item[2], claim)
        connection = None if membership is None else membership.connection
        if kind == envelope.CLOSE:
            code, reason = check_close(item[3], item[4])
            if connection is None:
                return SendResult.ABSENT
            kick(connection, code, reason)
            return SendResult.DELIVERED
        message = message_of(kind, item[3])
        if connection is None:
            return SendResult.ABSENT
        result = deliver(connection, message)
        if result and item[4]:
            kick(connection, *check_close(*item[4]))
        return result

    # -- to all ----------------------------------------------------------------------------

    async def broadcast(self, heard: Heard) -> None:
        """Deliver messages published to a namespace, by a node or by a user's own PUBLISH.

        Consecutive messages of an envelope that exclude no id are written together.
        """
        namespace = heard.channel[self._head : -1]
        if not heard.items_offset:
            message = Outgoing(*envelope.raw_message(heard.payload))
            await self._table.broadcast(namespace, message, frozenset())
            return
        turn, unsealing = self._turn, self._unsealing
        run: list[Outgoing] = []
        later: Collection[str] = ()
        number = heard.base
        try:
            for sealed in envelope.read_items(heard.payload[heard.items_offset :]):
                number += 1
                if monotonic() >= turn.ends:
                    await turn.yield_now()
                item = sealed
                if unsealing is not None:
                    opened = unsealing.broadcast(heard, namespace, sealed)
                    if opened is None:
                        continue
                    item, later = opened
                if item[0] not in MESSAGES:
                    await self._fan_out(namespace, run)
                    await self._control(namespace, item, later, Position(heard.epoch, number))
                    continue
                message = message_of(item[0], item[1])
                if self._rewinds.meets(namespace) and number > 0:
                    had = self._rewinds.meet(namespace, Position(heard.epoch, number), message)
                    later = (*later, *had)
                if item[2] or later:
                    await self._fan_out(namespace, run)
                    exclude = frozenset((*item[2], *later))
                    await self._table.broadcast(namespace, message, exclude)
                else:
                    run.append(message)
        finally:
            await self._fan_out(namespace, run)

    async def _fan_out(self, namespace: str, run: list[Outgoing]) -> None:
        if run:
            await self._table.broadcast(namespace, Outgoing.join(tuple(run)), frozenset())
            run.clear()

    async def _control(
        self, namespace: str, item: list[Any], later: Collection[str], place: Position
    ) -> None:
        """Execute an item that is no message, or one that excludes users.

        Args:
            later: ids that were claimed after the item was sealed, and must not get it.
            place: its position in the history, if one is recorded.
        """
        kind = item[0]
        if kind == envelope.CLOSE_ALL:
            await self._table.close_all(namespace, *check_close(item[1], item[2]), later)
        elif kind == envelope.REMOVE_ALL:
            await self._remote_joins.remove_all(namespace, later)
        elif kind in EXCEPT:
            message = message_of(EXCEPT[kind], item[1])
            had = self._rewinds.meet(namespace, place, message) if place.number > 0 else ()
            exclude = frozenset((*item[2], *later, *had))
            await self._table.broadcast(namespace, message, exclude, frozenset(item[3]))
        elif kind == envelope.TAKEN:
            claim = Claim.parse(item[2])
            if claim is None:
                raise BrokenEnvelopeError("claim")
            self._ownership.taken_over(namespace, item[1], claim)
        else:
            raise BrokenEnvelopeError("kind")


def _asker(fields: object) -> ReplyTo:
    """The address of an answer that must be given; raises BrokenEnvelopeError without one."""
    to = ReplyTo.read(fields)
    if to is None:
        raise BrokenEnvelopeError("reply address")
    return to
