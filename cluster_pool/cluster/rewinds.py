"""Gives newcomers messages of the past, ahead of everything live: the last ones of their namespace,
or, to an id that comes back, those that it has missed.

Until its handshake is answered the outbox of a newcomer holds what is live. The history is read
after the claim, so that nothing falls between the two; what both have is known by its position:
from the outbox it is removed, and what is still on its way is not delivered to the newcomer.
"""

import contextlib

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.admission import Admission
from cluster_pool.cluster.handovers import Handovers
from cluster_pool.cluster.histories import HistoryReading
from cluster_pool.cluster.positions import Accounts
from cluster_pool.cluster.tails import Tails
from cluster_pool.core.config import COUNTLESS
from cluster_pool.core.history import HistoryMessage, Position, Reader, Resumption
from cluster_pool.core.message import Outgoing, PublishedMessage, encode
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.handshake import hold_again, release_hold
from cluster_pool.local.outbox import put_ahead
from cluster_pool.local.table import ConnectionTable


class Rewinds:
    """The newcomers of one node, until all that they have from the history has passed live.

    Attributes:
        handovers: those of ids that come back faster than their former node has released them.
    """

    def __init__(
        self,
        backplane: Backplane,
        table: ConnectionTable,
        histories: HistoryReading,
        accounts: Accounts,
    ) -> None:
        self._deadline = backplane.deadline
        self._outbox_bytes = backplane.setup.limits.outbox_bytes
        self._rules = backplane.setup.histories
        self._table = table
        self._histories = histories
        self._tails = Tails(backplane, histories)
        self._accounts = accounts
        self.handovers = Handovers(backplane.identity.start, accounts, backplane.outbound)
        self._open: dict[str, dict[Connection, Position]] = {}
        """Newcomers with messages of the past, and the positions up to which they have all."""

    async def admit(
        self,
        admission: Admission,
        connection: Connection,
        on_conflict: str | None,
        last: int,
        timeout: float | None,
    ) -> None:
        """Make a connection a member, whose handshake is not answered if it is to get messages of
        the past; see :meth:`ClusterPool.new_connection`.

        Args:
            last: how many of the last messages it gets if its id was not there lately; 0 for none.
        """
        held = self._rules.of(connection.namespace) is not None and hold_again(connection)
        try:
            await self._admit(admission, connection, on_conflict, last, timeout)
        finally:
            if held:
                release_hold(connection)

    async def _admit(
        self,
        admission: Admission,
        connection: Connection,
        on_conflict: str | None,
        last: int,
        timeout: float | None,
    ) -> None:
        found = await admission.join(connection, on_conflict, timeout)
        if found is None:
            return
        try:
            await self._replay(connection, found, last)
        except BaseException:
            with contextlib.suppress(BackplaneUnavailableError):
                await admission.leave(connection, None, None)
            raise

    def forget(self, connection: Connection) -> None:
        """A connection closes: nothing live may ever come in its namespace."""
        rewinds = self._open.get(connection.namespace)
        if rewinds is None:
            return
        rewinds.pop(connection, None)
        if not rewinds:
            del self._open[connection.namespace]

    async def _replay(self, connection: Connection, found: Resumption, last: int) -> None:
        """Put the messages of the past ahead of what the outbox holds; its claim was won.

        Raises BackplaneUnavailableError when Redis did not answer in time.
        """
        member = self._table.get(connection.namespace, connection.id)
        if member is None or member.connection is not connection:
            self._put(connection, [], None)  # taken over: what is live comes to its new owner
            return
        floor, recovered = None, None
        if found.since is not None:
            since = await self.handovers.position(member, found.replaced, found.since)
            floor = await self._recover(connection, since)
            recovered = floor is not None
        if floor is None and last:
            floor = await self._rewind(connection, last)
        self._accounts.replayed(member, floor or found.last, recovered)
        if floor is not None and not connection.closed:
            self._open.setdefault(connection.namespace, {})[connection] = floor

    async def _recover(self, connection: Connection, since: Position) -> Position | None:
        """Give it all that it has missed; None if something of that is lost."""
        tail = await self._tails.read(connection.namespace, since, self._deadline(None))
        word = self._rules.reader(connection.namespace, connection.user)
        messages = tail.after(since, Reader(connection.id, connection.user, word))
        if messages is None or not self._put(connection, messages, tail.floor, whole=True):
            return None
        return tail.floor

    async def _rewind(self, connection: Connection, last: int) -> Position:
        """Give it the last messages."""
        namespace, reader = connection.namespace, Reader(connection.id, connection.user)
        floor, messages = await self._histories.tail(
            namespace, last, reader, self._deadline(None), self._outbox_bytes
        )
        self._put(connection, [_outgoing(namespace, one) for one in messages], floor)
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

    def meets(self, namespace: str) -> bool:
        """Whether there are newcomers in a namespace."""
        return namespace in self._open

    def meet(self, namespace: str, place: Position) -> set[str]:
        """A message is about to be delivered; the ids that have it already."""
        had = set()
        for connection, floor in list(self._open.get(namespace, {}).items()):
            if not self._is_there(connection) or place.is_beyond(floor):
                self.forget(connection)
            elif place.is_within(floor):
                had.add(connection.id)
        return had

    def _is_there(self, connection: Connection) -> bool:
        membership = self._table.get(connection.namespace, connection.id)
        return membership is not None and membership.connection is connection


def _outgoing(namespace: str, past: HistoryMessage) -> Outgoing:
    """A message of the past as members got it."""
    epoch, _, number = past.position.partition(".")
    source, encoded = (namespace, epoch, int(number)), encode(past.message, COUNTLESS)
    if past.id:
        return PublishedMessage(*encoded, source, (past.id, past.user))
    return Outgoing(*encoded, source)
