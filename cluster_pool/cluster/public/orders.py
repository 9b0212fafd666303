"""The public calls that send orders to nodes; :class:`NodeOrders` does the work."""

from cluster_pool.cluster.public.handle import Calls
from cluster_pool.core.closing import SERVICE_RESTART
from cluster_pool.core.results import DrainProgress


class OrderCalls(Calls):
    """Drains of nodes anywhere in the cluster."""

    async def drain_node(
        self,
        node_id: str,
        max_per_second: float | None = None,
        message: str | bytes = "",
        code: int = SERVICE_RESTART,
        *,
        grace: float | None = None,
        announce: float | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Make a node drain; returns when it has begun, and the node goes on by itself.

        It announces the drain (``/readyz`` is 503, newcomers are still accepted), closes its
        connections at its share of the cluster's budget, and stays drained until it is activated
        or stopped. A second call during the drain, also while it is paused, makes it go on with the
        new rate and the earlier deadline.

        Args:
            node_id: the node.
            max_per_second: closes per second of all draining nodes together; None: 70 % of the
                headroom of the nodes that accept newcomers.
            message: sent to each connection ahead of its close; "" sends nothing.
            code: the close code.
            grace: seconds until all must be closed; None for no limit.
            announce: seconds to announce; None: 5, or a quarter of the grace if that is less.
            force: drain even if no other live node accepts newcomers and there is no deadline.
            timeout: seconds to wait for the node's answer; default 2.

        Raises:
            DrainRefusedError: the node refuses; the error has the reason.
            NodeUnreachableError: there is no such live node, or it did not answer.
            InvalidValueError: an argument cannot be sent: a number of 2**64 or more, a set, a
                message over ``Limits.message_bytes``.
            BackplaneUnavailableError: Redis did not answer.
        """
        await self._running().orders.give(
            node_id,
            "drain",
            timeout,
            max_per_second=max_per_second,
            message=message,
            code=code,
            grace=grace,
            announce=announce,
            force=force,
        )

    async def pause_drain(self, node_id: str, *, timeout: float | None = None) -> None:
        """Pause the drain of a node: it closes no connection. Errors as :meth:`drain_node`.

        Its deadline, if it has one, does not change.
        """
        await self._running().orders.give(node_id, "pause", timeout)

    async def resume_drain(self, node_id: str, *, timeout: float | None = None) -> None:
        """Resume a paused drain; errors as :meth:`drain_node`."""
        await self._running().orders.give(node_id, "resume", timeout)

    async def cancel_drain(self, node_id: str, *, timeout: float | None = None) -> None:
        """End a node's drain half-way: it is active again; errors as :meth:`drain_node`."""
        await self._running().orders.give(node_id, "cancel", timeout)

    async def activate(self, node_id: str, *, timeout: float | None = None) -> None:
        """Make a drained node accept newcomers again; errors as :meth:`drain_node`."""
        await self._running().orders.give(node_id, "activate", timeout)

    async def drains(self, *, timeout: float | None = None) -> list[DrainProgress]:
        """The drains of all nodes, as of their last renewal; sorted by node."""
        return await self._running().orders.drains(timeout)

    async def drain_budget(self, *, timeout: float | None = None) -> float | None:
        """Closes per second that the cluster allows its drains; None when that is not set."""
        return await self._running().orders.budget(timeout)

    async def set_drain_budget(self, rate: float | None, *, timeout: float | None = None) -> None:
        """Set the closes per second of all drains in this cluster; None removes the limit.

        Drains under way follow at their next renewal. The rate of a single drain can only lower it.
        """
        await self._running().orders.set_budget(rate, timeout)
