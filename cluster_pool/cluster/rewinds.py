"""Gives newcomers the last messages of their namespace, ahead of everything live.

Until its handshake is answered the outbox of a newcomer holds what is live. The history is read
after the claim, so that nothing falls between the two; what both have is known by its position:
from the outbox it is removed, and what is still on its way is not delivered to the newcomer.
"""

import contextlib

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.admission import Admission
from cluster_pool.cluster.histories import HistoryReading
from cluster_pool.core.config import COUNTLESS
from cluster_pool.core.history import HistoryMessage, Position, Reader
from cluster_pool.core.message import Outgoing, PublishedMessage, encode
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import put_ahead
from cluster_pool.local.table import ConnectionTable


class Rewind:
    """One newcomer.

    Attributes:
        last: how many messages it gets.
        floor: the position up to which it has everything; None until the history was read.
        live: messages with their positions that were delivered meanwhile, to it or to others.
    """

    __slots__ = ("connection", "floor", "last", "live")

    def __init__(self, connection: Connection, last: int) -> None:
        self.connection = connection
        self.last = last
        self.floor: Position | None = None
        self.live: list[tuple[Position, Outgoing]] = []


class Rewinds:
    """The newcomers of one node, until all that they have from the history has passed live."""

    def __init__(
        self, backplane: Backplane, table: ConnectionTable, histories: HistoryReading
    ) -> None:
        self._deadline = backplane.deadline
        self._outbox_bytes = backplane.setup.limits.outbox_bytes
        self._table = table
        self._histories = histories
        self._open: dict[str, dict[Connection, Rewind]] = {}

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
            last: how many of the last messages it gets, 0 for none.
        """
        if not last:
            return await admission.join(connection, on_conflict, timeout)
        rewind = self.begin(connection, last)
        try:
            await admission.join(connection, on_conflict, timeout)
        except BaseException:
            self._end(rewind)
            raise
        try:
            await self.replay(rewind)
        except BaseException:
            self._end(rewind)
            with contextlib.suppress(BackplaneUnavailableError):
                await admission.leave(connection, None, None)
            raise

    def begin(self, connection: Connection, last: int) -> Rewind:
        """Note live messages for a newcomer from now on, before its claim is sent."""
        rewind = Rewind(connection, last)
        self._open.setdefault(connection.namespace, {}).setdefault(connection, rewind)
        return rewind

    def forget(self, connection: Connection) -> None:
        """A connection closes: nothing live may ever come in its namespace."""
        rewinds = self._open.get(connection.namespace)
        if rewinds is None:
            return
        rewinds.pop(connection, None)
        if not rewinds:
            del self._open[connection.namespace]

    def _end(self, rewind: Rewind) -> None:
        """It needs nothing more."""
        connection = rewind.connection
        if self._open.get(connection.namespace, {}).get(connection) is rewind:
            self.forget(connection)

    async def replay(self, rewind: Rewind) -> None:
        """Put the last messages ahead of what the outbox holds; its claim was won.

        Raises BackplaneUnavailableError when Redis did not answer in time.
        """
        connection = rewind.connection
        floor, messages = await self._histories.tail(
            connection.namespace,
            rewind.last,
            Reader(connection.id, connection.user),
            self._deadline(None),
            self._outbox_bytes,
        )
        had = {id(message) for place, message in rewind.live if place.is_within(floor)}
        self._table.counters.rewinds += 1
        self._table.counters.rewound += len(messages)
        put_ahead(connection, [_outgoing(connection.namespace, one) for one in messages], had)
        rewind.floor = floor
        rewind.live.clear()
        if not floor.epoch:
            self._end(rewind)

    def meets(self, namespace: str) -> bool:
        """Whether there are newcomers in a namespace."""
        return namespace in self._open

    def meet(self, namespace: str, place: Position, message: Outgoing) -> set[str]:
        """A message is about to be delivered; the ids that have it already."""
        had = set()
        for connection, rewind in list(self._open.get(namespace, {}).items()):
            if rewind.floor is None:
                rewind.live.append((place, message))
            elif not self._is_there(connection) or place.is_beyond(rewind.floor):
                self._end(rewind)
            elif place.is_within(rewind.floor):
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
