"""Executes decoded items at this node: messages, closes, takeovers, questions and orders.

It never awaits a single connection; a fan-out over many yields in between.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.inbox import Heard
from cluster_pool.cluster.dispatcher import MESSAGES, Run, Turn, message_of
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.cluster.positions import Accounts
from cluster_pool.cluster.remote_joins import RemoteJoins
from cluster_pool.cluster.replies import Answers
from cluster_pool.cluster.rewinds import Rewinds
from cluster_pool.cluster.tallies import Tallies
from cluster_pool.cluster.unsealing import Unsealing
from cluster_pool.core import envelope
from cluster_pool.core.claims import Claim
from cluster_pool.core.closing import check_close
from cluster_pool.core.config import check_on_conflict
from cluster_pool.core.envelope import BrokenEnvelopeError, ReplyTo
from cluster_pool.core.history import Position
from cluster_pool.core.ids import check_id, check_namespace, check_user
from cluster_pool.core.message import Outgoing, Source
from cluster_pool.core.results import SendResult
from cluster_pool.core.tally import TallyRequest
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership
from cluster_pool.local.outbox import deliver, kick
from cluster_pool.local.pinging import expect
from cluster_pool.local.table import ConnectionTable

EXCEPT: Final = {other: kind for kind, other in envelope.EXCEPT.items()}
"""The kinds of broadcasts that exclude users, with the kinds of their messages."""
FROM: Final = {other: kind for kind, other in envelope.FROM.items()}
"""The kinds of broadcasts that clients have published, with the kinds of their messages."""

PLAIN: Final = 3
"""Fields of a broadcast that is a message and the ids that do not get it."""

ExecuteOrder = Callable[[str, dict[str, Any], Callable[[str], None]], None]
"""Executes an order with its options, and answers it by the third argument: "" or why not."""


class Receipt(NamedTuple):
    """An answer that is wanted to an item.

    Attributes:
        tell: gets it.
        within_ms: milliseconds in which the client's receipt is wanted; 0 if that is not.
    """

    tell: Callable[[SendResult], None]
    within_ms: int

    def await_of(self, connection: Connection) -> bool:
        """Await it, if it is wanted and can be had: of all that is in the outbox."""
        if not self.within_ms:
            return False
        return expect(connection, self.tell, deadline_in(self.within_ms / 1000))


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
        accounts: Accounts,
        orders: Mapping[str, Callable[[Callable[[str], None]], None]],
        execute_order: ExecuteOrder,
        unsealing: Unsealing | None,
        turn: Turn,
    ) -> None:
        self._topology = backplane.topology
        self._ours = f"{backplane.identity.start}."
        self._head = len(backplane.setup.keys.prefix) + 2
        self._counters = backplane.setup.counters
        self._table = table
        self._ownership = ownership
        self._answers = answers
        self._tallies = Tallies(table, answers, backplane.identity.start)
        self._remote_joins = remote_joins
        self._rewinds = rewinds
        self._accounts = accounts
        self._handovers = rewinds.handovers
        self._orders = orders
        self._execute_order = execute_order
        self._unsealing = unsealing
        self._turn = turn

    # -- to one ----------------------------------------------------------------------------

    def hand_out(self, run: Run) -> None:
        """Deliver messages to one member each; without a connection they count as undelivered."""
        find, takes = self._ownership.find, self._rewinds.takes
        for claim, item, message in run:
            membership = find(item[1], item[2], claim)
            _, epoch, number = message.source or ("", "", 0)
            if membership is None:
                self._counters.undelivered += 1
            elif not (epoch and takes(membership, Position(epoch, number), message)):
                deliver(membership.connection, message)
            if epoch:
                self.reached(item[1], epoch, number)

    def reached(self, namespace: str, epoch: str, number: int) -> None:
        """All in the history of a namespace up to here was given to the members here."""
        self._accounts.reached(namespace, Position(epoch, number))

    def execute(self, kind: int, claim: str, item: list[Any], mark: tuple[str, int]) -> None:
        """Execute an item that is more than a message, and answer it if it asks for that."""
        if kind == envelope.COMMAND:
            self._order(item[1], item[2], _asker(item[3]))
        elif kind == envelope.QUESTION:
            self._question(claim, item, _asker(item[3]))
        elif kind in (envelope.JOIN, envelope.LEAVE):
            self._membership(kind, claim, item)
        elif kind == envelope.PLACE:
            self._handovers.told(item)
        else:
            to = ReplyTo.read(item[5])
            receipt = None
            if to is not None and self._is_ours(claim):
                receipt = Receipt(partial(self._answers.reply, to), envelope.receipt_ms(item))
            result = self._act(kind, claim, item, receipt, mark)
            if result in (SendResult.ABSENT, SendResult.PARKED):
                self._counters.undelivered += 1
            if result is not None and receipt is not None:
                receipt.tell(result)

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

    def _act(
        self,
        kind: int,
        claim: str,
        item: list[Any],
        receipt: Receipt | None,
        mark: tuple[str, int],
    ) -> SendResult | None:
        """Execute a close or a message; None when the answer waits for a receipt of the client."""
        membership = self._ownership.find(item[1], item[2], claim)
        connection = None if membership is None else membership.connection
        if kind == envelope.CLOSE:
            code, reason = check_close(item[3], item[4])
            if connection is None:
                return SendResult.ABSENT
            waits = receipt is not None and receipt.await_of(connection)
            kick(connection, code, reason)
            return None if waits else SendResult.DELIVERED
        message = message_of(kind, item[3], (item[1], *mark))
        if membership is None or connection is None:
            # It has left since Redis found it here: the history, if it has the message, keeps it.
            kept = mark[1] and self._accounts.comes_back(item[1], item[2], claim)
            return SendResult.PARKED if kept else SendResult.ABSENT
        had = mark[1] and self._rewinds.takes(membership, Position(*mark), message)
        result = SendResult.DELIVERED if had else deliver(connection, message)
        waits = receipt is not None and bool(result) and receipt.await_of(connection)
        if result and item[4]:
            kick(connection, *check_close(*item[4]))
        return None if waits else result

    async def _found(self, namespace: str, heard: Heard) -> None:
        """Deliver what was read from a history and had been targeted at members here, to those that
        have missed it."""
        later = self._came_later(namespace, heard)
        found = self._topology.of(namespace).receiver.found_target
        number = heard.position - heard.messages
        for id, reader, sealed, *parked in envelope.read_items(heard.payload[heard.items_offset :]):
            number += 1
            if monotonic() >= self._turn.ends:
                await self._turn.yield_now()
            place, member = Position(heard.epoch, number), self._table.get(namespace, id)
            if member is None or not self._accounts.lacks(member, reader, place):
                continue
            unsealing = self._unsealing
            item = sealed if unsealing is None else unsealing.recorded_target(heard, sealed)
            if item is None or (item[1], item[2]) != (namespace, id):
                continue
            if id in later or self._accounts.replays(member, place):
                continue  # it was for a former member of this id, perhaps at another node
            if not parked:  # else it was published to nobody, and not missed
                found()
            message = message_of(item[0], item[3], (namespace, *place))
            if not self._rewinds.takes(member, place, message):
                deliver(member.connection, message)
        self.reached(namespace, heard.epoch, heard.position)

    # -- to all ----------------------------------------------------------------------------

    async def broadcast(self, heard: Heard) -> None:
        """Deliver messages published to a namespace, by a node or by a user's own PUBLISH, or those
        that were targeted at its members and read from its history."""
        namespace = heard.channel[self._head : -1]
        if not heard.items_offset:
            message = Outgoing(*envelope.raw_message(heard.payload))
            await self._table.broadcast(namespace, message, frozenset())
        elif heard.targeted:
            await self._found(namespace, heard)
        else:
            await self._published(namespace, heard)

    async def _published(self, namespace: str, heard: Heard) -> None:
        """Deliver an envelope. Consecutive messages that exclude no id are written together."""
        turn, unsealing = self._turn, self._unsealing
        run: list[Outgoing] = []
        later: Collection[str] = self._came_later(namespace, heard) if heard.time else ()
        recorded = heard.position > 0
        number = (heard.position or heard.number) - heard.messages
        try:
            for sealed in envelope.read_items(heard.payload[heard.items_offset :]):
                number += 1
                if monotonic() >= turn.ends:
                    await turn.yield_now()
                item = sealed
                if unsealing is not None and heard.time:
                    read = unsealing.recorded(heard, namespace, sealed)
                    if read is None:
                        continue
                    item = read
                elif unsealing is not None:
                    opened = unsealing.broadcast(heard, namespace, sealed)
                    if opened is None:
                        continue
                    item, later = opened
                source = (namespace, heard.epoch, number)
                to_all = not later and not (recorded and self._rewinds.meets(namespace))
                if to_all and item[0] in MESSAGES and not item[2] and len(item) == PLAIN:
                    run.append(message_of(item[0], item[1], source))
                elif to_all and item[0] in FROM:
                    run.append(_from_client(item, source))
                else:
                    await self._fan_out(namespace, run)
                    await self._control(source, item, later, heard)
        finally:
            await self._fan_out(namespace, run)
            if recorded:
                self.reached(namespace, heard.epoch, heard.position)

    def _came_later(self, namespace: str, heard: Heard) -> list[str]:
        """The members here that claimed after something was published that was read late.

        A claim later than now is from before the clock of Redis was set back, and tells nothing.
        """
        time = 1000 * heard.time + 999
        if self._ownership.newest <= time:
            return []
        now = self._topology.of(namespace).redis_time_at_most()
        members = self._table.namespace(namespace) or {}
        claims = [(id, one.claim) for id, one in members.items()]
        return [id for id, claim in claims if claim is not None and time < claim.time <= now]

    async def _fan_out(self, namespace: str, run: list[Outgoing]) -> None:
        if run:
            await self._table.broadcast(namespace, Outgoing.join(tuple(run)), frozenset())
            run.clear()

    async def _control(
        self, source: Source, item: list[Any], later: Collection[str], heard: Heard
    ) -> None:
        """Execute an item that is no message, or one that not all members get.

        Args:
            later: ids that were claimed after the item was sealed, or published, and must not get
                it.
            heard: the envelope that has it.
        """
        kind, namespace = item[0], source[0]
        if kind == envelope.CLOSE_ALL:
            await self._table.close_all(namespace, *check_close(item[1], item[2]), later)
        elif kind == envelope.REMOVE_ALL:
            await self._remote_joins.remove_all(namespace, later)
        elif kind in MESSAGES or kind in EXCEPT or kind in FROM:
            await self._message(source, item, later, heard)
        elif kind == envelope.TAKEN:
            claim = Claim.parse(item[2])
            if claim is None:
                raise BrokenEnvelopeError("claim")
            self._handovers.taken(namespace, item[1], claim)
            self._ownership.taken_over(namespace, item[1], claim)
        else:
            raise BrokenEnvelopeError("kind")

    async def _message(
        self, source: Source, item: list[Any], later: Collection[str], heard: Heard
    ) -> None:
        """Deliver a broadcast to those who get it now, and say how many have got it if it asks."""
        namespace = source[0]
        message, ids, users = _broadcast_of(item, source)
        left_out, had = {*ids, *later}, 0
        if heard.position and self._rewinds.meets(namespace):

            def is_for(one: Membership[Connection]) -> bool:
                return one.id not in left_out and one.connection.user not in users

            taken = self._rewinds.meet(namespace, Position(*source[1:]), message, is_for)
            members = [self._table.get(namespace, id) for id in taken]
            had = sum(one is not None and is_for(one) for one in members)
            later = (*later, *taken)
        exclude = frozenset((*ids, *later))
        request = TallyRequest.read(item)
        if request is None or self._is_late(namespace, heard, request):
            await self._table.broadcast(namespace, message, exclude, users)
        else:
            await self._tallies.deliver(namespace, message, exclude, users, request, had)

    def _is_late(self, namespace: str, heard: Heard, request: TallyRequest) -> bool:
        """Whether what was read from a history is too old for an answer."""
        now = self._topology.of(namespace).redis_time_at_most() // 1000
        return 0 < heard.time < now - request.within_ms


def _broadcast_of(item: list[Any], source: Source) -> tuple[Outgoing, list[str], frozenset[str]]:
    """The message of a broadcast, and the ids and the users that do not get it."""
    kind = item[0]
    if kind in FROM:
        return _from_client(item, source), [], frozenset()
    users = frozenset(item[3]) if kind in EXCEPT else frozenset()
    return message_of(EXCEPT.get(kind, kind), item[1], source), item[2], users


def _from_client(item: list[Any], source: Source) -> Outgoing:
    """The message of a broadcast that a client has published."""
    kind, payload, id, user = item
    author = check_id(id), check_user(user) if user else ""
    return message_of(FROM[kind], payload, source, author)


def _asker(fields: object) -> ReplyTo:
    """The address of an answer that must be given; raises BrokenEnvelopeError without one."""
    to = ReplyTo.read(fields)
    if to is None:
        raise BrokenEnvelopeError("reply address")
    return to
