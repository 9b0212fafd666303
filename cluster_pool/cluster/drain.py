"""The drain of this node in its cluster: announces it, paces it by the shared budget, reports it.

Owns the node's states from active to drained and back. ``local/drain_run.py`` closes the
connections; the budget is in Redis (``backplane/drain_budget.py``).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, Final

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.drain_budget import RedisDrainBudget
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.node_life import NodeLife
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.cluster.stopping import Stopping
from cluster_pool.core.claims import start_of
from cluster_pool.core.drain_budget import USED, Ask, Grant
from cluster_pool.core.drain_plan import announcement_of
from cluster_pool.core.identity import Identity
from cluster_pool.core.ids import shown
from cluster_pool.core.results import DrainReport, NodeState
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    DrainRefusedError,
    InvalidValueError,
    PoolClosedError,
)
from cluster_pool.local.drain_run import DrainRun, finished
from cluster_pool.local.drain_terms import Terms
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.drain")

NOTHING: Final = DrainReport(0, 0, 0.0, 0)


def check_announcement(asked: object, grace: float | None) -> float:
    """Seconds to announce, the default for None; raises InvalidValueError."""
    if asked is not None and (
        not isinstance(asked, int | float)
        or isinstance(asked, bool)
        or not 0 <= asked < (inf if grace is None else grace)
    ):
        raise InvalidValueError(
            f"announce must be a number from 0 up to the grace, not {shown(asked)}"
        )
    return announcement_of(grace, asked)


class SharedDrainBudget:
    """The cluster's drain budget as the budget of one node's drain."""

    def __init__(
        self, identity: Identity, budget: RedisDrainBudget, lease: LeaseState, timeout: float
    ) -> None:
        self._identity = identity
        self._budget = budget
        self._lease = lease
        self._timeout = timeout

    async def lease(self, ask: Ask) -> Grant:
        """See :class:`Budget`."""
        asks = replace(ask, node=self._identity.node_id)
        return await self._budget.lease(self._lease.incarnation, asks, self._timeout)

    def give_back(self, node: str) -> None:
        """See :class:`Budget`."""
        self._budget.give_back(self._lease.incarnation, self._identity.node_id, self._timeout)


class DrainController:
    """Begins, pauses, ends and undoes the drain of this node.

    Args:
        headroom: connections per second that this node can accept once it accepts any.
    """

    def __init__(
        self,
        backplane: Backplane,
        life: NodeLife,
        table: ConnectionTable,
        ownership: Ownership,
        lease: LeaseState,
        headroom: float,
    ) -> None:
        timing = backplane.setup.timing
        self._identity = backplane.identity
        self._cluster_budget = backplane.drain_budget
        self._life = life
        self._budget = SharedDrainBudget(
            self._identity, self._cluster_budget, lease, timing.timeout
        )
        self._table = table
        self._ownership = ownership
        self._lease = lease
        self._timing = timing
        self._headroom = headroom
        self._message_bytes = backplane.setup.limits.message_bytes
        self._drain: DrainRun | None = None
        self._task: asyncio.Task[DrainReport] | None = None
        self._orders: set[asyncio.Task[None]] = set()
        self._final = False
        """Whether the process ends after this drain: then it cannot be cancelled."""

    async def drain_for_user(
        self,
        max_per_second: float | None,
        message: str | bytes,
        code: int,
        grace: float | None,
        announce: float | None,
        force: bool,
    ) -> DrainReport:
        """Drain as :meth:`ClusterPool.drain_connections` says."""
        self._life.check_running()
        terms = Terms.of(max_per_second, message, code, grace, self._message_bytes)
        return await self.drain(terms, check_announcement(announce, terms.grace), force=force)

    async def drain_for_good(
        self, stopping: Stopping, grace: float, announce: float, last_grace: float | None
    ) -> DrainReport:
        """Drain because the process ends; an order to cancel it is refused.

        Args:
            last_grace: seconds that are left once no node accepts newcomers; None: no change.
        """
        self._life.check_running()
        self._final = True
        terms = Terms.of(
            stopping.max_per_second, stopping.message, stopping.code, grace, self._message_bytes
        )
        terms = replace(terms, last_grace=last_grace)
        return await self.drain(terms, check_announcement(announce, terms.grace), force=False)

    def was_alone(self) -> bool:
        """Whether all heartbeats, for at least the length of one, said that no other node lives.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        self._life.check_running()
        return self._lease.alone_for() >= self._timing.heartbeat

    async def drain(self, terms: Terms, announce: float, *, force: bool) -> DrainReport:
        """Drain this node, or join the drain that is under way.

        Raises:
            DrainRefusedError: no other live node accepts newcomers, there is no deadline, and it
                is not forced.
            PoolClosedError: the node is not running.
        """
        drain, task = await self.begin(terms, announce, force=force)
        if task is None:
            return NOTHING
        return await (asyncio.shield(task) if drain is None else finished(drain, task))

    async def begin(
        self, terms: Terms, announce: float, *, force: bool
    ) -> "tuple[DrainRun | None, asyncio.Task[DrainReport] | None]":
        """Begin a drain; returns it, None when another call began it, and its task, None when
        there is nothing to do."""
        terms = await self._permitted(terms, force)
        if self._drain is not None:
            self._drain.tighten(terms)
            self._drain.announce_at_most(announce)
            return None, self._task
        if self._life.state is NodeState.DRAINED:
            return None, None
        if self._life.state is not NodeState.ACTIVE:
            raise PoolClosedError(f"node {self._identity.node_id} is {self._life.state.value}")
        drain = self._drain = DrainRun(
            self._identity.node_id,
            self._table,
            self._budget,
            terms,
            coming=self._ownership.coming,
            nodes=self._lease.living,
            agree=self._timing.heartbeat,
        )
        self._task = asyncio.create_task(self._run(drain, announce), name="cluster_pool drain")
        return drain, self._task

    async def _permitted(self, terms: Terms, force: bool) -> Terms:
        """The terms, with a rate if no other node accepts newcomers; raises unless it is forced.

        If Redis does not answer which nodes accept newcomers, the drain is allowed.
        """
        if terms.grace is not None or self._drain is not None:
            return terms
        try:
            if await self.others_accepting():
                return terms
        except BackplaneUnavailableError as error:
            log.warning("draining without knowing who takes newcomers: %s", error)
            return terms
        if not force:
            raise DrainRefusedError(
                self._identity.node_id,
                "no other live node takes newcomers, and there is no deadline: set one or force it",
            )
        return (
            terms if terms.max_rate is not None else replace(terms, max_rate=USED * self._headroom)
        )

    async def others_accepting(self) -> int:
        """The number of other live nodes that accept newcomers; BackplaneUnavailableError."""
        deadline = deadline_in(self._timing.timeout)
        accepting = await self._cluster_budget.acceptors(deadline)
        return len({start_of(one) for one in accepting} - {start_of(self._lease.incarnation)})

    async def _run(self, drain: DrainRun, announce: float) -> DrainReport:
        try:
            if announce > 0:
                self._life.become(NodeState.ANNOUNCING)
                await drain.announce(announce)
            if not drain.cancelled:
                self._life.become(NodeState.DRAINING)
            report = await drain.run()
        finally:
            self._drain = self._task = None
            if self._life.state in (NodeState.ANNOUNCING, NodeState.DRAINING):
                self._life.become(NodeState.ACTIVE if drain.cancelled else NodeState.DRAINED)
        log.info("drained: %s", report)
        return report

    # -- control of the drain --------------------------------------------------------------

    def pause(self, paused: bool) -> bool:
        """Pause or resume; False when there is no drain."""
        if self._drain is not None:
            self._drain.pause(paused)
        return self._drain is not None

    def cancel(self) -> bool:
        """End half-way; False when there is no drain, or the process ends after it."""
        if self._drain is None or self._final:
            return False
        self._drain.cancel()
        return True

    def hurry(self) -> None:
        """Begin all remaining closes now."""
        if self._drain is not None:
            self._drain.hurry()

    def activate(self) -> bool:
        """Accept newcomers again after a drain; False when it is neither drained nor active."""
        if self._life.state is NodeState.DRAINED:
            self._life.become(NodeState.ACTIVE)
        return self._life.state is NodeState.ACTIVE

    # -- orders ----------------------------------------------------------------------------

    def execute_order(
        self, verb: str, options: dict[str, Any], answer: Callable[[str], None]
    ) -> None:
        """Execute another node's order in a task of its own; ``answer`` gets "" or why not."""

        async def execute() -> None:
            answer(await self.execute(verb, options))

        task = asyncio.create_task(execute(), name="cluster_pool order")
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)

    async def execute(self, verb: str, options: dict[str, Any]) -> str:
        """Execute an order; returns "" or why not."""
        self._life.check_running()
        try:
            return await self._execute(verb, **options)
        except DrainRefusedError as error:
            return error.reason
        except (ClusterPoolError, TypeError) as error:
            return str(error)

    async def _execute(self, verb: str, **options: Any) -> str:
        if verb == "drain":
            await self._drain_by_order(**options)
            return ""
        orders = {
            "pause": lambda: self.pause(True),
            "resume": lambda: self.pause(False),
            "cancel": self.cancel,
            "activate": self.activate,
        }
        if verb not in orders:
            return f"unknown order {shown(verb)}"
        why = "its process is ending" if self._final else f"it is {self._life.state.value}"
        return "" if orders[verb]() else f"{why}: nothing to {verb}"

    async def _drain_by_order(
        self,
        *,
        max_per_second: float | None,
        message: str | bytes,
        code: int,
        grace: float | None,
        announce: float | None,
        force: bool,
    ) -> None:
        terms = Terms.of(max_per_second, message, code, grace, self._message_bytes)
        await self.begin(terms, check_announcement(announce, terms.grace), force=force)

    def progress(self) -> dict[str, Any] | None:
        """The progress of the drain; None when there is none."""
        return None if self._drain is None else self._drain.progress()

    async def stop(self) -> None:
        """The node stops: end the drain at once."""
        for order in list(self._orders):
            order.cancel()
        await asyncio.gather(*self._orders, return_exceptions=True)
        task = self._task
        if task is not None:
            self.hurry()
            await asyncio.gather(task, return_exceptions=True)
