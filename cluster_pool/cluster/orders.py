"""Orders to nodes about their drains, and the progress of all drains in the cluster."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.replies import Replies
from cluster_pool.core import envelope
from cluster_pool.core.config import check_above_zero
from cluster_pool.core.envelope import ReplyTo
from cluster_pool.core.ids import check_node_id
from cluster_pool.core.results import DrainProgress
from cluster_pool.exceptions import (
    DrainRefusedError,
    InvalidValueError,
    MessageTooLargeError,
    NodeUnreachableError,
)

BESIDE_MESSAGE: Final = 1024
"""Bytes of an order without its message, at most."""


class OwnNode(Protocol):
    """The node in this process, which executes orders without Redis."""

    async def execute(self, verb: str, options: dict[str, Any]) -> str:
        """Execute an order; returns "" or why not."""


class NodeOrders:
    """Sends orders to nodes and waits for their answers."""

    def __init__(self, backplane: Backplane, replies: Replies, own: OwnNode | None) -> None:
        self._deadline = backplane.deadline
        self._identity = backplane.identity
        self._outbound = backplane.outbound
        self._leases = backplane.leases
        self._budget = backplane.drain_budget
        self._sealed = backplane.setup.seals is not None
        self._message_bytes = backplane.setup.limits.message_bytes
        self._replies = replies
        self._own = own

    async def give(self, node_id: str, verb: str, timeout: float | None, **options: object) -> None:
        """Send a node an order about its drain, and wait for its answer.

        Raises:
            DrainRefusedError, NodeUnreachableError, InvalidValueError, BackplaneUnavailableError:
                as :meth:`OrderCalls.drain_node`.
        """
        node_id = check_node_id(node_id)
        if self._own is not None and node_id == self._identity.node_id:
            refusal = await self._own.execute(verb, options)
        else:
            refusal = await self._ask(node_id, verb, options, self._deadline(timeout))
        if refusal:
            raise DrainRefusedError(node_id, refusal)

    async def _ask(
        self, node_id: str, verb: str, options: dict[str, object], deadline: float
    ) -> str:
        start = await self._leases.start_of(node_id, deadline) if self._sealed else ""
        to, answer = self._replies.expect()
        try:
            item = self._item(verb, options, to)
            send = self._outbound.send_to_node
            if start is None or not await send(node_id, start, item, deadline):
                raise NodeUnreachableError(node_id, "is not there: nobody listens under this id")
            async with asyncio.timeout_at(deadline):
                return str(await answer)
        except TimeoutError:
            raise NodeUnreachableError(node_id, "did not answer in time") from None
        finally:
            self._replies.forget(to)

    def _item(self, verb: str, options: dict[str, object], to: ReplyTo) -> bytes:
        try:
            item = envelope.command(verb, options, to)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidValueError(f"what is ordered has no form to be sent in: {error}") from None
        if len(item) > self._message_bytes + BESIDE_MESSAGE:
            raise MessageTooLargeError(len(item), self._message_bytes)
        return item

    def drains(self, timeout: float | None) -> Coroutine[Any, Any, list[DrainProgress]]:
        """The drains of all nodes, as of their last renewal."""
        return self._budget.progress(self._deadline(timeout))

    def budget(self, timeout: float | None) -> Coroutine[Any, Any, float | None]:
        """Closes per second that the cluster allows its drains; None when that is not set."""
        return self._budget.budget(self._deadline(timeout))

    def set_budget(self, rate: float | None, timeout: float | None) -> Coroutine[Any, Any, None]:
        """Set the closes per second of all drains in this cluster; None removes the limit."""
        checked = None if rate is None else check_above_zero("rate", rate)
        return self._budget.set_budget(checked, self._deadline(timeout))
