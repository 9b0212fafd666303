"""The public calls about the drain of a pool's own node; :class:`DrainController` does the work."""

import contextlib
import functools
import logging
from collections.abc import AsyncIterator
from typing import Final

from cluster_pool.cluster.node import Node
from cluster_pool.cluster.public.orders import OrderCalls
from cluster_pool.cluster.signals import Signals, in_main_thread
from cluster_pool.cluster.stopping import LastDrain, Stopping, drain_for
from cluster_pool.core.closing import SERVICE_RESTART
from cluster_pool.core.config import Timing
from cluster_pool.core.results import DrainReport, NodeState

log = logging.getLogger("cluster_pool.drain")

SOON: Final = 0.5
"""The time-out in seconds of a reading that is optional while the process ends."""


@functools.cache
def _warn_no_signals() -> None:
    """Log this once per process, since tests of a program may enter it a thousand times."""
    log.warning("drain_on_signal is not in the main thread: signals do not drain this node")


class DrainCalls(OrderCalls):
    """The drain of this node: begun by its user, by a signal, or by the end of the process."""

    timing: Timing
    _parts: Node | None

    def _running(self) -> Node:
        """See :class:`Calls`."""
        raise NotImplementedError

    def _started(self) -> Node:
        """See :class:`Handle`."""
        raise NotImplementedError

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

        All draining nodes together close at most the budget in any second, unless a deadline forces
        more, which the report says. This node accepts no newcomers from the end of the announcement
        on, also after the drain, until :meth:`activate`. Idle connections go first, otherwise the
        order is random, with the members of each namespace spread evenly. Messages sent before a
        close reach a client that reads. A client that does not answer its close is cut (after
        ``Timing.flush`` and ``Timing.close``, or earlier when a deadline is near), and delays no
        other. Without Redis the drain goes on with its last share, and never stalls.

        A second call joins the drain under way, and resumes a paused one: its rate, if it names
        one, the earlier deadline and the earlier end of the announcement apply, and both calls get
        the report. Cancelling the first call cancels the drain.

        Args:
            max_per_second: closes per second of the whole cluster, more than 0; the smallest that
                any drainer or :meth:`set_drain_budget` names applies. None: 70 % of the
                ``headroom`` of all nodes that accept newcomers.
            message: sent to each connection ahead of its close; "" sends nothing.
            code: the close code; after 1012 every client library comes back.
            grace: seconds until all must be closed, with the announcement; the rate is raised
                evenly, and early, as far as that needs. None: no limit.
            announce: seconds for which this node announces the drain (:attr:`ready` is false) and
                still accepts newcomers, so that load balancers notice first.
            force: drain even if no other live node accepts newcomers and there is no grace.

        Returns:
            When all are closed: how many, how many by force, how long it took.

        Raises:
            InvalidValueError: an argument is not allowed.
            DrainRefusedError: no other live node accepts newcomers; see ``force``.
            PoolClosedError: this node was not started, or was stopped.
        """
        return await self._running().drains.drain_for_user(
            max_per_second, message, code, grace, announce, force
        )

    async def run_until_signal(self, stopping: Stopping | None = None) -> DrainReport:
        """Wait for SIGTERM or SIGINT, then drain; for a program that ends after this.

        ``async with pool, serve(…): await pool.run_until_signal()``. A second signal closes the
        remaining connections at once; the same signal within ``Timing.signal_repeat`` of the first
        does not count as a second. The former handlers are restored afterwards.

        Args:
            stopping: rate, grace and announcement; see :class:`Stopping`.

        Returns:
            The report, as :meth:`drain_connections` does.

        Raises:
            ClusterPoolError: not called in the main thread.
            PoolClosedError: not started, or stopped.
        """
        node = self._running()
        node.life.check_running()
        with Signals(node.setup.timing.signal_repeat) as signals:
            return await drain_for(self, await signals.next(), signals, stopping or Stopping())

    @contextlib.asynccontextmanager
    async def drain_on_signal(self, stopping: Stopping | None = None) -> AsyncIterator[None]:
        """While it is entered, SIGTERM and SIGINT drain this node before their usual effect.

        For servers that close every socket on a signal, before they run the end of an application's
        lifespan, as uvicorn does. In the lifespan, behind the pool:
        ``async with pool, pool.drain_on_signal(): yield``. It holds back the handlers that are set
        when it is entered, by ``signal.signal`` or ``loop.add_signal_handler``, and hands the
        signal on to them after the drain. A second signal is handed on at once; the same signal
        within ``Timing.signal_repeat`` of the first does not count as a second. Several pools of
        one process drain at the same time, and the signal is handed on after the last.

        If it ends without a signal (the server ends by itself), it drains the clients that are
        still connected. Outside the main thread no signal can be caught: that is logged once, and
        it works without signals.

        Args:
            stopping: rate, grace and announcement; see :class:`Stopping`.
        """
        with contextlib.ExitStack() as stack:
            signals = None
            if in_main_thread():
                signals = stack.enter_context(Signals(self.timing.signal_repeat, hands_on=True))
            else:
                _warn_no_signals()
            last = LastDrain(self, signals, stopping or Stopping())
            try:
                yield
                await last.finish(needed=self._holds_connections())
            finally:
                await last.stop()

    def _holds_connections(self) -> bool:
        node = self._parts
        if node is None or node.life.state is NodeState.STOPPED:
            return False
        return len(node.table) > 0

    async def drain_for_good(
        self, stopping: Stopping, grace: float, announce: float, last_grace: float | None
    ) -> DrainReport:
        """Drain because the process ends; an order to cancel it is refused.

        Args:
            last_grace: seconds that are left once no node accepts newcomers; None: no change.
        """
        return await self._running().drains.drain_for_good(stopping, grace, announce, last_grace)

    async def alone(self) -> bool:
        """Whether no other node is alive; False if Redis does not answer soon."""
        return await self._running().directory.alone(SOON)

    def was_alone(self) -> bool:
        """Whether all heartbeats, for at least the length of one, said that no other node lives.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        return self._running().drains.was_alone()

    def hurry_drain(self) -> None:
        """Begin all remaining closes of this node's drain, and wait for none of them."""
        self._started().drains.hurry()

    async def pause_drain(
        self, node_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Pause the drain of a node, by default of this one; as :meth:`Publisher.pause_drain`."""
        await self._order_own(node_id, "pause", timeout)

    async def resume_drain(
        self, node_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Resume the drain of a node, by default of this one; as :meth:`Publisher.resume_drain`."""
        await self._order_own(node_id, "resume", timeout)

    async def cancel_drain(
        self, node_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Cancel the drain of a node, by default of this one; as :meth:`Publisher.cancel_drain`."""
        await self._order_own(node_id, "cancel", timeout)

    async def activate(self, node_id: str | None = None, *, timeout: float | None = None) -> None:
        """Accept newcomers again after a drain; as :meth:`Publisher.activate`."""
        await self._order_own(node_id, "activate", timeout)

    async def _order_own(self, node_id: str | None, verb: str, timeout: float | None) -> None:
        node = self._running()
        await node.orders.give(node_id or node.backplane.identity.node_id, verb, timeout)
