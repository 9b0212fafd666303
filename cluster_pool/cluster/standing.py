"""Asks, under ``on_conflict="reject"``, whether the client of a connection with an id still lives.

A node that claims an id of another living node asks that node. The owner pings the client. If the
client answers, the owner answers DELIVERED; else it cuts the connection, releases the id and
answers ABSENT, and the claim is tried again.
"""

import asyncio
from collections.abc import Callable

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.outbound import Outbound
from cluster_pool.cluster.pending_claim import PendingClaim
from cluster_pool.cluster.replies import Replies
from cluster_pool.core import envelope
from cluster_pool.core.claims import Claim
from cluster_pool.core.config import Timing
from cluster_pool.core.results import SendResult
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership
from cluster_pool.local.table import ConnectionTable

ASKED = 0.9
"""The part of its remaining time for which a claim waits for the owner's answer, at most."""


class Standing:
    """Asks other nodes about their connections, and answers about those of this one."""

    def __init__(
        self,
        outbound: Outbound,
        replies: Replies,
        table: ConnectionTable,
        timing: Timing,
    ) -> None:
        self._outbound = outbound
        self._replies = replies
        self._table = table
        self._timing = timing
        self._questions: dict[tuple[str, str, Claim], asyncio.Task[bool]] = {}
        self._answers: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Cancel all questions and answers."""
        tasks = [*self._questions.values(), *self._answers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- asking ----------------------------------------------------------------------------

    def question(self, namespace: str, id: str, claim: Claim) -> "asyncio.Task[bool]":
        """Ask whether the connection of a claim has gone, and released its id.

        Simultaneous callers share one question, which has a deadline of its own. It ends without
        an error: if the owner does not answer, the connection has not gone.
        """
        key = (namespace, id, claim)
        task = self._questions.get(key)
        if task is None:
            task = self._questions[key] = asyncio.create_task(self._ask(namespace, id))
            task.add_done_callback(lambda _: self._questions.pop(key, None))
        return task

    async def has_gone(self, pending: PendingClaim, standing: Claim) -> bool:
        """Whether the connection of the claim that stands has gone, for one that wants its id.

        It does not wait for the owner's answer up to the deadline of the claim, so that the caller
        gets IdTakenError in time.
        """
        left = pending.deadline - asyncio.get_running_loop().time()
        gone = self.question(pending.membership.namespace, pending.membership.id, standing)
        await asyncio.wait(
            (gone, pending.won), timeout=left * ASKED, return_when=asyncio.FIRST_COMPLETED
        )
        return gone.done() and not gone.cancelled() and gone.result()

    async def _ask(self, namespace: str, id: str) -> bool:
        allowed = 2 * self._timing.timeout + self._timing.sign_of_life
        to, word = self._replies.expect()
        try:
            async with asyncio.timeout(allowed):
                item = envelope.question(namespace, id, to)
                deadline = deadline_in(self._timing.timeout)
                result = await self._outbound.send(namespace, id, item, deadline)
                if result is SendResult.ROUTED:
                    result = await word
                return result is SendResult.ABSENT
        except (TimeoutError, ClusterPoolError):
            return False
        finally:
            self._replies.forget(to)

    # -- answering -------------------------------------------------------------------------

    def asked(
        self, membership: Membership[Connection] | None, tell: Callable[[SendResult], None]
    ) -> None:
        """Another node asks about a member of this one, or one that has left (None)."""
        if membership is None:
            tell(SendResult.ABSENT)
            return
        task = asyncio.create_task(self._answer(membership, tell))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(
        self, membership: Membership[Connection], tell: Callable[[SendResult], None]
    ) -> None:
        if await self._table.signs.of(membership.connection):
            tell(SendResult.DELIVERED)
            return
        if membership.departure is not None:
            await asyncio.wait((membership.departure.over,), timeout=self._timing.timeout)
        tell(SendResult.ABSENT)
