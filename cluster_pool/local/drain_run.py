"""Closes a node's connections at the pace that a budget grants, and waits until they are closed.

Owns the pacing and the order. The budget decides how many this node may close: a task of its own
asks it, so that a budget that does not answer never holds up a close.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any, Final

from cluster_pool.core.drain_budget import RENEWAL, Grant
from cluster_pool.core.drain_plan import DrainPlan, reserve_of
from cluster_pool.core.pacing import STEP, Pacer, PeakRate
from cluster_pool.core.results import DrainReport
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.closing import cut, is_gone
from cluster_pool.local.connection import Connection
from cluster_pool.local.drain_order import DrainOrder
from cluster_pool.local.drain_terms import Budget, Terms
from cluster_pool.local.outbox import begin_close, deliver
from cluster_pool.local.sweeper import look
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.drain")

REASON: Final = "draining"
YIELD_EVERY: Final = 200
"""Closes in one step before other tasks run."""


class DrainRun:
    """One drain of one node.

    Args:
        coming: whether more connections will still be added to the table.
        nodes: the number of nodes, as far as it is known.
        agree: seconds between two readings that no node accepts newcomers, before it is believed.
    """

    def __init__(
        self,
        node: str,
        table: ConnectionTable,
        budget: Budget,
        terms: Terms,
        *,
        coming: Callable[[], bool] = lambda: False,
        nodes: int = 1,
        agree: float = 0.0,
    ) -> None:
        self._time = asyncio.get_running_loop().time
        now = self._time()
        self._table = table
        self._budget = budget
        self._message, self._code = terms.message, terms.code
        self._coming = coming
        self._asked_at = now
        self._plan = DrainPlan(node, now, nodes=nodes, agree=agree)
        self._renew = asyncio.Event()
        self.tighten(terms)
        self._drain_order = DrainOrder(table, random.Random())
        self._peak = PeakRate()
        self._begun = 0
        self._forced = 0
        self._closing: deque[Connection] = deque()
        self._ended = asyncio.Event()
        self._announcing: asyncio.Timeout | None = None
        self._over_budget = self._alone = self._hastened = False
        self.cancelled = False
        self.hurried = False

    # -- orders during the drain -----------------------------------------------------------

    def tighten(self, terms: Terms) -> None:
        """Use the rate of new terms, if they have one, and the earlier of both deadlines.

        A paused drain goes on: a new call for a drain means that.
        """
        plan = self._plan
        if terms.max_rate is not None:
            plan.max_rate = terms.max_rate
        if terms.last_grace is not None:
            plan.last_grace = terms.last_grace
        if terms.grace is not None:
            deadline = asyncio.get_running_loop().time() + terms.grace
            plan.end_by(deadline, reserve_of(terms.grace))
        self.pause(False)

    def pause(self, paused: bool) -> None:
        """Close no connection for a while, or go on; the deadline does not change."""
        self._plan.paused = paused
        self._renew.set()

    def cancel(self) -> None:
        """Close no more connections, and end."""
        self.cancelled = True
        self._ended.set()

    def hurry(self) -> None:
        """Begin every close at once, and end without waiting for them."""
        self.hurried = True
        self._ended.set()

    async def announce(self, seconds: float) -> None:
        """Wait while other nodes learn of the drain; it may be cancelled or hurried meanwhile.

        Before a stop of the process they learn it from the budget, and do not count on this node.
        """
        plan = self._plan
        plan.announcing = plan.last_grace is not None
        telling = self._renewing() if plan.announcing else contextlib.nullcontext()
        with contextlib.suppress(TimeoutError):
            async with telling, asyncio.timeout(seconds) as self._announcing:
                await self._ended.wait()
        self._announcing, plan.announcing, plan.grant = None, False, None

    def announce_at_most(self, seconds: float) -> None:
        """Shorten an announcement that is under way to ``seconds`` from now."""
        limit = self._announcing
        if limit is not None and not limit.expired():
            ends = asyncio.get_running_loop().time() + seconds
            limit.reschedule(min(limit.when() or ends, ends))

    # -- closing ---------------------------------------------------------------------------

    async def run(self) -> DrainReport:
        """Close all connections. Ends when all are closed, or when it is cancelled or hurried."""
        plan = self._plan
        plan.began = asyncio.get_running_loop().time()
        self._drain_order.refill()
        plan.total = len(self._drain_order)
        try:
            async with self._renewing():
                await self._close_at_pace()
        finally:
            self._budget.give_back(plan.node)
        if not self.cancelled and not self.hurried:
            await self._wait_closed()
        return self.report()

    def report(self) -> DrainReport:
        """The report so far."""
        seconds = asyncio.get_running_loop().time() - self._asked_at
        forced = self._forced + sum(one._forced for one in self._closing)
        return DrainReport(
            self._begun, forced, seconds, self._peak.peak, self.cancelled, self._over_budget
        )

    def progress(self) -> dict[str, Any]:
        """The progress, for ``/status`` and metrics."""
        now, plan = self._time(), self._plan
        remaining = len(self._drain_order)
        left = plan.time_left(now)
        return {
            "paused": plan.paused,
            "remaining": remaining,
            "closed": self._begun,
            "rate": _finite(plan.rate(now, remaining)),
            "budget": _finite(plan.grant.budget if plan.grant else inf),
            "needed": _finite(plan.grant.needed if plan.grant else 0.0),
            "seconds_left": _finite(left),
            "over_budget": self._over_budget,
        }

    async def _close_at_pace(self) -> None:
        time = asyncio.get_running_loop().time
        pacer = Pacer(time(), random.random())
        while not self.cancelled:
            due = pacer.due(time(), inf if self.hurried else self._rate(time()))
            for at in range(int(min(due, len(self._drain_order)))):
                connection = self._drain_order.next()
                if connection is None:
                    break
                self._close(connection)
                if at % YIELD_EVERY == YIELD_EVERY - 1:
                    await asyncio.sleep(0)
            self._look_at_closing(time())
            if not self._drain_order:
                self._drain_order.refill()
                if not self._drain_order and (self.hurried or not self._coming()):
                    return
            await asyncio.sleep(0 if self.hurried else STEP)

    def _rate(self, now: float) -> float:
        return self._plan.rate(now, len(self._drain_order))

    def _close(self, connection: Connection) -> None:
        now = asyncio.get_running_loop().time()
        self._begun += 1
        self._table.counters.drained += 1
        self._peak.note(now)
        self._closing.append(connection)
        try:
            if self._message is not None:
                deliver(connection, self._message)
            begin_close(connection, self._code, REASON, self._plan.deadline - now)
        except Exception:
            self._table.counters.drain_errors += 1
            log.exception("closing %r failed: it is cut", connection)
            cut(connection)

    def _look_at_closing(self, now: float) -> None:
        """Drop connections whose socket is gone, oldest first; cut the oldest at its deadline."""
        while self._closing:
            oldest = self._closing[0]
            look(oldest, now)
            if not is_gone(oldest):
                return
            self._forced += oldest._forced
            self._closing.popleft()

    async def _wait_closed(self) -> None:
        time, plan = asyncio.get_running_loop().time, self._plan
        while self._closing and not self._ended.is_set():
            self._look_at_closing(time())
            if plan.hastened and time() >= plan.deadline:
                return
            if self._closing:
                await asyncio.sleep(STEP)

    # -- the budget ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _renewing(self) -> AsyncIterator[None]:
        """Renew the share while the body runs."""
        task = asyncio.create_task(self._renew_forever(), name="cluster_pool drain lease")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _renew_forever(self) -> None:
        loop, plan = asyncio.get_running_loop(), self._plan
        while True:
            self._renew.clear()
            sent = loop.time()
            try:
                grant = await self._budget.lease(plan.ask(sent, len(self._drain_order)))
            except BackplaneUnavailableError as error:
                plan.unanswered()
                log.debug("no lease on the drain budget: %s", error)
            except Exception:
                plan.unanswered()
                log.exception("asking for a lease on the drain budget failed by itself")
            else:
                plan.granted(grant, sent)
                self._tell(grant)
            pause = plan.grant.renew if plan.grant is not None else RENEWAL
            pause = min(pause, plan.until_agreed(sent))
            try:
                async with asyncio.timeout_at(sent + pause):
                    await self._renew.wait()
            except TimeoutError:
                continue

    def _tell(self, grant: Grant) -> None:
        if self._plan.hastened != self._hastened:
            self._hastened = self._plan.hastened
            why = "no node is left that takes newcomers, or will"
            why = why if self._hastened else "a node takes newcomers again"
            log.info("%s: closing within %.1f s", why, self._plan.deadline - self._time())
        if self._hastened:
            self.announce_at_most(0)
        if self._plan.alone() and not self._alone:
            log.warning("no live node takes newcomers: only a deadline closes connections now")
        self._alone = self._plan.alone()
        if self._plan.over_budget() and not self._over_budget:
            self._over_budget = True
            self._table.counters.drains_over_budget += 1
            log.warning(
                "deadlines need %.0f closes a second, over the budget of %.0f: they are kept",
                grant.needed,
                grant.budget,
            )


async def finished(drain: DrainRun, task: "asyncio.Task[DrainReport]") -> DrainReport:
    """Wait for a drain that the caller began: cancelling the caller cancels the drain."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        drain.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


def _finite(number: float) -> float | None:
    return None if number == inf else round(number, 3)
