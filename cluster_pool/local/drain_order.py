"""The order of closes in a drain: idle before busy, each namespace spread evenly."""

from collections import deque
from random import Random

from cluster_pool.core.pacing import stratified
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import is_busy
from cluster_pool.local.table import ConnectionTable


class DrainOrder:
    """The connections of a node in the order in which a drain closes them, each once.

    A connection that is busy when its turn comes (a handler is running, or bytes wait to be
    written) is closed after all idle ones.
    """

    def __init__(self, table: ConnectionTable, random: Random) -> None:
        self._table = table
        self._random = random
        self._order: deque[Connection] = deque()
        self._busy: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self._order) + len(self._busy)

    def refill(self) -> None:
        """Add the open connections; later calls add those that have come since."""
        self._order.extend(stratified(self._open_by_namespace(), self._random))

    def next(self) -> Connection | None:
        """The next to be closed; None when none is left."""
        while self._order:
            connection = self._order.popleft()
            if connection.closed:
                continue
            if not is_busy(connection):
                return connection
            self._busy.append(connection)
        while self._busy:
            connection = self._busy.popleft()
            if not connection.closed:
                return connection
        return None

    def _open_by_namespace(self) -> list[list[Connection]]:
        groups = [
            [
                one.connection
                for one in (self._table.namespace(name) or {}).values()
                if one.home and not one.connection.closed
            ]
            for name in self._table.namespaces()
        ]
        return [group for group in groups if group]
