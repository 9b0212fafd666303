"""What a node of the cluster can do about its own drain: the drain side of :class:`ClusterPool`."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

from cluster_pool.cluster.drain import DrainController, check_announcement
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.sender import Sender
from cluster_pool.cluster.signals import Signals, in_main_thread
from cluster_pool.cluster.stopping import LastDrain, Stopping, drain_for
from cluster_pool.core.closing import SERVICE_RESTART
from cluster_pool.core.identity import Identity
from cluster_pool.core.results import DrainReport, NodeState
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    DrainRefusedError,
    PoolClosedError,
)
from cluster_pool.local.drain_run import Terms
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.drain")

SOON = 0.5
"""Seconds for what is only nice to know while the process ends."""


@functools.cache
def _say_no_signals() -> None:
    """Once in a process: a program's tests enter it a thousand times."""
    log.warning("drain_on_signal is not in the main thread: signals do not drain this node")


class DrainingNode(Sender):
    """A sender that is a node, and drains. Not used by itself."""

    _identity: Identity
    _state: NodeState
    _drain_controller: DrainController
    _lease: LeaseState
    _table: ConnectionTable

    async def drain_connections(
        self,
        max_per_second: float | None = None,
        message: str | bytes = "",
        code: int = SERVICE_RESTART,
        *,
        grace: float | None = None,
        announce: float = 0.0,
        force: bool = False,
    ) -> DrainReport:
        """Close this node's connections at a pace that all draining nodes share.

        All nodes that drain at a time close at most the budget together, in any second, unless a
        deadline forces more, which the report says. This node takes no newcomers from the end of
        the announcement on, and none when it is done, until :meth:`activate`. Idle connections go
        first, otherwise in random order, each namespace's evenly apart; what was sent before a
        close reaches whoever reads. A client that does not answer its close is cut (after
        ``Timing.flush`` and ``Timing.close``, or earlier when a deadline is near), and delays
        nobody. Without Redis it goes on with its last share, and never stalls.

        A second call joins the drain under way, paused or not, which goes on: its rate, if it names
        one, the earlier deadline and the earlier end of the announcement hold, and both get the
        report. Cancelling the first call cancels the drain.

        Args:
            max_per_second: closes per second of the whole cluster, more than 0; the smallest that
                any drainer or :meth:`set_drain_budget` names holds. None: 70 % of what the nodes
                that take newcomers can take (``headroom``).
            message: sent to each connection ahead of its close; "" sends nothing.
            code: the close code; 1012 is the one on which every client library comes back.
            grace: seconds until everyone must be closed, the announcement included; the rate is
                raised evenly, and early, as far as that needs. None: as long as it takes.
            announce: seconds for which this node says that it will drain (:attr:`ready` is false)
                and still takes newcomers, so that load balancers notice first.
            force: also when no other live node takes newcomers and there is no grace.

        Returns:
            When all are closed: how many, how many by force, how long it took.

        Raises:
            InvalidValueError: an argument is not allowed.
            DrainRefusedError: no other live node takes newcomers; see ``force``.
            PoolClosedError: this node was not started, or was stopped.
        """
        self._check_started()
        terms = Terms.of(max_per_second, message, code, grace, self.limits.message_bytes)
        seconds = check_announcement(announce, terms.grace)
        return await self._drain_controller.drain(terms, seconds, force=force)

    async def run_until_signal(self, stopping: Stopping | None = None) -> DrainReport:
        """Wait for SIGTERM or SIGINT, then drain; for a program whose last words this is.

        ``async with pool, serve(…): await pool.run_until_signal()``. A second signal closes
        everyone who is left at once; the same one within ``Timing.signal_repeat`` of the first is
        no second. Whoever had the signals before has them again afterwards.

        Args:
            stopping: rate, grace and announcement; see :class:`Stopping`.

        Returns:
            What :meth:`drain_connections` returns.

        Raises:
            ClusterPoolError: not called in the main thread.
            PoolClosedError: not started, or stopped.
        """
        self._check_started()
        with Signals(self.timing.signal_repeat) as signals:
            return await drain_for(self, await signals.next(), signals, stopping or Stopping())

    @contextlib.asynccontextmanager
    async def drain_on_signal(self, stopping: Stopping | None = None) -> AsyncIterator[None]:
        """Inside, SIGTERM and SIGINT drain this node first, and then do what they would have done.

        For servers that close every socket when they are told to stop, before they run the end of
        an application's lifespan: uvicorn does. In the lifespan, behind the pool:
        ``async with pool, pool.drain_on_signal(): yield``. It holds back whoever has the signals
        when it is entered, by ``signal.signal`` or ``loop.add_signal_handler``. A second signal is
        handed on at once; the same one within ``Timing.signal_repeat`` of the first is no second.
        Several pools of one process drain at the same time, and it is handed on after the last.

        Left without a signal (a server that ends by itself) it drains whoever is still connected.
        Outside the main thread no signal can be taken: that is logged once, and the rest is done.

        Args:
            stopping: rate, grace and announcement; see :class:`Stopping`.
        """
        with contextlib.ExitStack() as stack:
            signals = None
            if in_main_thread():
                signals = stack.enter_context(Signals(self.timing.signal_repeat, hands_on=True))
            else:
                _say_no_signals()
            last = LastDrain(self, signals, stopping or Stopping())
            try:
                yield
                running = self._state is not NodeState.STOPPED
                await last.finish(needed=running and len(self._table) > 0)
            finally:
                await last.stop()

    async def drain_for_good(
        self, stopping: Stopping, grace: float, announce: float, last_grace: float | None
    ) -> DrainReport:
        """Drain because the process ends; a cancel from elsewhere is refused.

        Args:
            last_grace: seconds that are left once nobody takes newcomers; None: as many as before.
        """
        self._check_started()
        self._drain_controller.final = True
        terms = Terms.of(
            stopping.max_per_second,
            stopping.message,
            stopping.code,
            grace,
            self.limits.message_bytes,
        )
        terms = replace(terms, last_grace=last_grace)
        announcement = check_announcement(announce, terms.grace)
        return await self._drain_controller.drain(terms, announcement, force=False)

    async def alone(self) -> bool:
        """Whether no other node is alive; False, too, when Redis does not say so soon."""
        try:
            return len(set((await self._registry.living(self._deadline(SOON))).values())) <= 1
        except BackplaneUnavailableError:
            return False

    def was_alone(self) -> bool:
        """Whether every heartbeat said so, of at least as long as one lasts.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        self._check_started()
        return self._lease.alone_for() >= self.timing.heartbeat

    def hurry_drain(self) -> None:
        """Begin every close that is left in the drain of this node, and wait for none of them."""
        self._own_loop()
        self._drain_controller.hurry()

    async def pause_drain(
        self, node_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Pause the drain of a node, by default of this one; as :meth:`Publisher.pause_drain`."""
        await self._order(node_id or self._identity.node_id, "pause", timeout)

    async def resume_drain(
        self, node_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Resume the drain of a node, by default of this one; as :meth:`Publisher.resume_drain`."""
        await self._order(node_id or self._identity.node_id, "resume", timeout)

    async def cancel_drain(
        self, node_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Cancel the drain of a node, by default of this one; as :meth:`Publisher.cancel_drain`."""
        await self._order(node_id or self._identity.node_id, "cancel", timeout)

    async def activate(self, node_id: str | None = None, *, timeout: float | None = None) -> None:
        """Take newcomers again after a drain; as :meth:`Publisher.activate`."""
        await self._order(node_id or self._identity.node_id, "activate", timeout)

    async def _order(
        self, node_id: str, verb: str, timeout: float | None, **options: object
    ) -> None:
        """Orders to this node itself need no Redis."""
        if node_id != self._identity.node_id:
            await super()._order(node_id, verb, timeout, **options)
            return
        self._check_started()
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._drain_controller.execute_order(verb, options, answer.set_result)
        refusal = await answer
        if refusal:
            raise DrainRefusedError(node_id, refusal)

    def _check_started(self) -> None:
        self._own_loop()
        if self._state is NodeState.STOPPED:
            raise PoolClosedError("not started, or stopped")
