"""Delivers broadcasts that ask how many connections have got them, and answers that."""

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.cluster.replies import Answers
from cluster_pool.core.message import Outgoing
from cluster_pool.core.results import SendResult
from cluster_pool.core.tally import Tally, TallyRequest
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import deliver
from cluster_pool.local.pinging import expect
from cluster_pool.local.table import ConnectionTable


class Count:
    """Counts what becomes of one broadcast here.

    Args:
        tell: gets the tally, once: when all is known, at the deadline at the latest.
        delivered: connections that have got it otherwise.
        deadline: until when clients are waited for; None for not at all.
    """

    def __init__(
        self, tell: Callable[[Tally], None], delivered: int, deadline: float | None
    ) -> None:
        self._tell: Callable[[Tally], None] | None = tell
        self._delivered = delivered
        self._refused = self._received = self._timed_out = self._waiting = 0
        self._deadline = deadline
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection, result: SendResult) -> None:
        """It was given to a connection, or refused."""
        if not result:
            self._refused += 1
            return
        if self._deadline is not None:
            self._waiting += 1
            if expect(connection, self._received_by, self._deadline):
                return
            self._waiting -= 1
        self._delivered += 1

    def _received_by(self, result: SendResult) -> None:
        self._waiting -= 1
        if result is SendResult.RECEIVED:
            self._received += 1
        else:
            self._timed_out += 1
        if self._timer is not None and not self._waiting:
            self._end()

    def close(self) -> None:
        """It was given to all: answer, or wait for the clients."""
        if not self._waiting or self._deadline is None:
            self._end()
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._deadline, self._end)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tell, self._tell = self._tell, None
        if tell is not None:
            late = self._timed_out + self._waiting
            tell(Tally(self._delivered, self._refused, self._received, late))


class Tallies:
    """Delivers to the members of this node, and answers."""

    def __init__(self, table: ConnectionTable, answers: Answers, start: str) -> None:
        self._table = table
        self._tell = answers.tell_tally
        self._start = start

    async def deliver(
        self,
        namespace: str,
        message: Outgoing,
        exclude: Collection[str],
        users: Collection[str],
        request: TallyRequest,
        had: int,
    ) -> None:
        """Deliver to every member but the excluded, and answer.

        Args:
            had: members among the excluded that have the message, or get it otherwise.
        """
        deadline = deadline_in(request.within_ms / 1000) if request.receipts else None
        count = Count(partial(self._tell, request.to, self._start), had, deadline)
        async for part in self._table.parts(namespace, exclude):
            for one in part:
                if one.connection.user not in users:
                    count.add(one.connection, deliver(one.connection, message))
        count.close()
