"""Gives newcomers messages of the past, ahead of everything live: the last ones of their namespace,
or, to an id that comes back, those that it has missed.

Until its handshake is answered the outbox of a newcomer holds what is live. The history is read
after the claim, so that nothing falls between the two; what both have is known by its position:
from the outbox it is removed, and what is still on its way is not delivered to the newcomer.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.admission import Admission
from cluster_pool.cluster.handovers import Handovers
from cluster_pool.cluster.histories import HistoryReading
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.member_accounts import Member
from cluster_pool.cluster.memory_losses import MemoryLosses
from cluster_pool.cluster.positions import Accounts
from cluster_pool.cluster.resumes import Resumes
from cluster_pool.cluster.tails import Tails
from cluster_pool.core.history import (
    Position,
    Resumption,
    Wish,
)
from cluster_pool.core.message import Outgoing
from cluster_pool.core.past import Broadcast, Reader, outgoing_of
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.handshake import hold_again, release_hold
from cluster_pool.local.outbox import put_ahead
from cluster_pool.local.table import ConnectionTable


class Hold:
    """The live messages for a member, until those of the past lie ahead of them.

    Attributes:
        floor: the position up to which it has everything; None until that is known.
        overflowed: more was live than fits into ``limit`` bytes, and is not here.
    """

    __slots__ = ("_limit", "_size", "floor", "member", "messages", "overflowed")

    def __init__(self, member: Member, limit: int) -> None:
        self.member = member
        self.messages: list[tuple[Position, Outgoing]] = []
        self.floor: Position | None = None
        self.overflowed = False
        self._limit = limit
        self._size = 0

    def put(self, place: Position, message: Outgoing) -> None:
        """Keep a message."""
        self._size += message.size
        if self._size > self._limit:
            self.overflowed = True
            self.messages.clear()
        if not self.overflowed:
            self.messages.append((place, message))


class Rewinds:
    """The newcomers of one node, until all that they have from the history has passed live.

    Attributes:
        resumes: where they begin.
        handovers: those of ids that come back faster than their former node has released them.
    """

    def __init__(
        self,
        backplane: Backplane,
        table: ConnectionTable,
        histories: HistoryReading,
        accounts: Accounts,
        lease: LeaseState,
    ) -> None:
        self._deadline = backplane.deadline
        self._outbox_bytes = backplane.setup.limits.outbox_bytes
        self._rules = backplane.setup.histories
        self._losses = MemoryLosses(backplane, lease)
        self._table = table
        self._histories = histories
        self._tails = Tails(backplane, histories)
        self._accounts = accounts
        self.resumes = Resumes(backplane, accounts)
        self._one_at_a_time = asyncio.Lock()
        """Those for whom one reading was made come by one in each turn of the loop."""
        self.handovers = Handovers(backplane.identity.start, accounts, backplane.outbound)
        self._open: dict[str, dict[Member, Position]] = {}
        """Newcomers with messages of the past, and the positions up to which they have all."""
        self._holds: dict[str, dict[Member, Hold]] = {}

    async def stop(self) -> None:
        """Wait for what is being read; that ends with the links to Redis."""
        await self._tails.stop()

    async def admit(
        self,
        admission: Admission,
        connection: Connection,
        on_conflict: str | None,
        wish: Wish,
        timeout: float | None,
    ) -> None:
        """Make a connection a member, whose handshake is not answered if it is to get messages of
        the past; see :meth:`ClusterPool.new_connection`."""
        await self.resumes.prepare(connection.namespace)
        with self._held(connection):
            found = await admission.join(connection, on_conflict, timeout)
            if found is None:
                return
            try:
                await self._replay(connection, found, wish)
            except BaseException:
                self._put(connection, [], None)  # nothing live comes without the past
                with contextlib.suppress(BackplaneUnavailableError):
                    await admission.leave(connection, None, None)
                raise

    @contextlib.contextmanager
    def _held(self, connection: Connection) -> Iterator[None]:
        """Hold what is sent to a connection, if it may get some of the past, and is not held."""
        held = self._rules.of(connection.namespace) is not None and hold_again(connection)
        try:
            yield
        finally:
            if held:
                release_hold(connection)

    async def _replay(self, connection: Connection, found: Resumption, wish: Wish) -> None:
        """Put the messages of the past ahead of what the outbox holds; its claim was won.

        Raises BackplaneUnavailableError when Redis did not answer in time.
        """
        member = self._table.get(connection.namespace, connection.id)
        if member is None or member.connection is not connection:
            self._put(connection, [], None)  # taken over: what is live comes to its new owner
            return
        start = await self.resumes.start_of(member, found, wish)
        floor, recovered = None, None
        for one in start.tries:
            floor = floor or await self._recover(member, one)
            recovered = floor is not None
        if not start.tries and (start.lost or await self.is_forgotten(connection.namespace, found)):
            recovered = False
        if floor is None and wish.last:
            floor = await self._rewind(connection, wish.last)
        self._accounts.replayed(member, floor or found.last, recovered, start.first)
        if floor is not None:
            self.note(member, floor)

    async def is_forgotten(self, namespace: str, found: Resumption) -> bool:
        """Whether an id that is not known may have been there, before Redis lost that.

        Raises BackplaneUnavailableError when Redis did not answer in time.
        """
        return await self._losses.concern(namespace, found.last)

    async def _recover(self, member: Member, found: Resumption) -> Position | None:
        """Give it all that it has missed; None if something of that is lost."""
        past = await self.missed(member, found)
        if past is None or not self._put(member.connection, past[1], past[0], whole=True):
            return None
        return past[0]

    async def missed(
        self, member: Member, found: Resumption
    ) -> tuple[Position, list[Outgoing]] | None:
        """The messages that an id that comes back has missed, and the position up to which these
        are all; None if one of them is lost.

        Raises BackplaneUnavailableError when Redis did not answer in time.
        """
        namespace, user = member.namespace, member.connection.user
        stored = found.since or found.last
        since = await self.handovers.position(member, found.replaced, stored)
        if since != stored:
            self._accounts.handed_over(member, since)
        tail = await self._tails.read(namespace, since, self._deadline(None))
        reader = Reader(member.id, user, self._rules.reader(namespace, user))
        async with self._one_at_a_time:
            await asyncio.sleep(0)
            messages = tail.after(since, reader)
        return None if messages is None else (tail.floor, messages)

    async def _rewind(self, connection: Connection, last: int) -> Position:
        """Give it the last messages."""
        namespace, reader = connection.namespace, Reader(connection.id, connection.user)
        floor, messages = await self._histories.tail(
            namespace, last, reader, self._deadline(None), self._outbox_bytes
        )
        past = [
            outgoing_of(
                namespace,
                Position.of(one.position) or floor,
                Broadcast(one.message, one.id, one.user),
            )
            for one in messages
        ]
        self._put(connection, past, floor)
        self._table.counters.rewinds += 1
        self._table.counters.rewound += len(messages)
        return floor

    def _put(
        self,
        connection: Connection,
        messages: list[Outgoing],
        floor: Position | None,
        *,
        whole: bool = False,
    ) -> bool:
        """Put messages ahead, instead of all those up to ``floor``; None: instead of all."""

        def is_among(message: Outgoing) -> bool:
            space, epoch, number = message.source or ("", "", 0)
            return space == connection.namespace and (
                floor is None or Position(epoch, number).is_within(floor)
            )

        return put_ahead(connection, messages, is_among, whole=whole)

    # -- what is live ----------------------------------------------------------------------

    def hold(self, member: Member, limit: int) -> Hold:
        """Hold what is live for a member that is about to claim its id."""
        hold = Hold(member, limit)
        self._holds.setdefault(member.namespace, {})[member] = hold
        return hold

    def release(self, hold: Hold) -> None:
        """Hold nothing more."""
        holds = self._holds[hold.member.namespace]
        del holds[hold.member]
        if not holds:
            del self._holds[hold.member.namespace]

    def note(self, member: Member, floor: Position) -> None:
        """A member has all up to a position, of which some may be on its way."""
        if not member.connection.closed:
            self._open.setdefault(member.namespace, {})[member] = floor

    def forget(self, member: Member) -> None:
        """All that it has from the past has come by, or it ends."""
        newcomers = self._open.get(member.namespace)
        if newcomers is None:
            return
        newcomers.pop(member, None)
        if not newcomers:
            del self._open[member.namespace]

    def meets(self, namespace: str) -> bool:
        """Whether there are newcomers in a namespace."""
        return namespace in self._open or namespace in self._holds

    def meet(
        self,
        namespace: str,
        place: Position,
        message: Outgoing,
        is_for: Callable[[Member], bool],
    ) -> set[str]:
        """A broadcast is about to be delivered; the ids that must not get it now: they have it, or
        it is held for those whom it does not leave out."""
        members = [*self._holds.get(namespace, ()), *self._open.get(namespace, ())]
        return {one.id for one in members if self._takes(one, place, message, is_for(one))}

    def takes(self, member: Member, place: Position, message: Outgoing) -> bool:
        """Whether a message to a member must not be delivered now: it has it, or it is held."""
        return self.meets(member.namespace) and self._takes(member, place, message, True)

    def _takes(self, member: Member, place: Position, message: Outgoing, wanted: bool) -> bool:
        hold = self._holds.get(member.namespace, {}).get(member)
        if hold is not None:
            if wanted:
                hold.put(place, message)
            return True
        floor = self._open.get(member.namespace, {}).get(member)
        if floor is None:
            return False
        if not self.is_there(member) or place.is_beyond(floor):
            self.forget(member)
        return place.is_within(floor)

    def is_there(self, member: Member) -> bool:
        """Whether it is a member still."""
        return self._table.get(member.namespace, member.id) is member
