"""The inbound channels: publishes messages of clients, and counts their bytes on this node.

Owns the count of a node: messages received and not handled yet, those that wait for their turn, and
those on their way to Redis. It never reads from a client; code that does adds its bytes to
``unread``.
"""

import asyncio
import base64
import json
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

from cluster_pool.backplane.topology import Topology
from cluster_pool.core.config import Limits
from cluster_pool.core.keys import Keys
from cluster_pool.core.message import encode
from cluster_pool.exceptions import PendingLimitError
from cluster_pool.local.connection import Connection

COPIES: Final = 3
"""Copies of a message while it is published: the original, the JSON, and the written command."""
SHARE: Final = 2
"""One part in so many of the node's bytes is for messages that are being published."""


class InboundChannel:
    """Publishes inbound messages; bounded in number and bytes.

    Attributes:
        unread: bytes that were received and not handled yet, as their owners count them.
        waiting: bytes of messages that wait for :meth:`room`.
    """

    def __init__(self, topology: Topology, keys: Keys, limits: Limits) -> None:
        self._topology = topology
        self._keys = keys
        self._limits = limits
        self._pending = 0
        self._publishing = 0
        self.waiting = 0
        self._queue: deque[tuple[asyncio.Future[None], int]] = deque()
        self.unread = 0
        self._told: list[Callable[[], None]] = []

    @property
    def size(self) -> int:
        """Bytes of all messages of clients that this node still holds."""
        return self.unread + self.waiting + self._publishing

    def server_of(self, namespace: str) -> Hashable:
        """The server of Redis that has a namespace, to be compared with others."""
        return self._topology.of(namespace)

    def on_room(self, told: Callable[[], None]) -> None:
        """Call ``told`` from now on whenever fewer bytes wait or are being published."""
        self._told.append(told)

    async def room(self, message: str | bytes) -> None:
        """Wait, in order, until :meth:`publish` accepts this message, if it is called at once."""
        cost = _cost(message)
        if not self._queue and self._fits(cost):
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.append((turn, cost))
        self.waiting += cost // COPIES
        try:
            await turn
        finally:
            self._queue.remove((turn, cost))
            self.waiting -= cost // COPIES
            loop.call_soon(self._wake)  # when this one is counted as being published

    async def publish(
        self, connection: Connection, node: str, message: str | bytes, deadline: float
    ) -> int:
        """Publish one message; errors as :meth:`ClusterPool.publish_inbound`."""
        cost = _cost(message)
        if not self._fits(cost):
            raise PendingLimitError(
                f"{self._pending} inbound messages wait for Redis, {self._publishing} bytes"
            )
        payload = _payload(connection.id, node, message, self._limits.message_bytes)
        self._pending += 1
        self._publishing += cost
        try:
            channel = self._keys.inbound(connection.namespace)
            heard = await self._topology.publish(channel, payload, deadline)
        finally:
            self._pending -= 1
            self._publishing -= cost
            self._wake()
        return heard

    def _fits(self, cost: int) -> bool:
        if not self._pending:
            return True
        return (
            self._pending < self._limits.pending_messages
            and self._publishing + cost <= self._limits.node_inbound_bytes // SHARE
        )

    def _wake(self) -> None:
        if self._queue:
            turn, cost = self._queue[0]
            if not turn.done() and self._fits(cost):
                turn.set_result(None)
        for told in self._told:
            told()


def _cost(message: str | bytes) -> int:
    """Bytes of memory that publishing a message needs."""
    if isinstance(message, str) and not message.isascii():
        return COPIES * len(str.encode(message, errors="replace"))
    return COPIES * len(message)


def _payload(id: str, node: str, message: str | bytes, limit: int) -> bytes:
    fields = {"id": id, "node": node}
    text, payload = encode(message, limit)
    if text:
        fields["text"] = payload.decode()
    else:
        fields["binary"] = base64.b64encode(payload).decode()
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
