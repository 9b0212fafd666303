"""Serves clients that speak the subprotocol ``cluster-pool.v1``: greets and reads them.

Owns what one client may do in a second, and what happens to frames that are no requests.
:mod:`.client_calls` carries requests out, :mod:`cluster_pool.core.client_requests` reads them.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from functools import partial
from sys import getsizeof
from typing import Final

from cluster_pool.auth.rules import NamespaceRules
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core import client_frames
from cluster_pool.core.client_requests import RefusedRequestError, largest_frame, read_request
from cluster_pool.core.closing import POLICY, UNSUPPORTED
from cluster_pool.core.message import Message, Outgoing
from cluster_pool.exceptions import PoolClosedError
from cluster_pool.local import attachment
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import deliver, throw_out
from cluster_pool.server.client_calls import RATE, Bound, ClientCalls
from cluster_pool.server.losses import Losses
from cluster_pool.server.websocket import NodeWebSocket
from cluster_pool.transports.framed import FramedWriter

PUBLISHED_PER_SECOND: Final = 20
MOST_INVALID: Final = 10
INVALID_WITHIN: Final = 10.0
"""So many frames that cannot be answered within so many seconds close a connection."""


class FramedClients:
    """Serves the clients of a node.

    Args:
        rules: where they may publish, and tell others their info.
        rate: messages, changes of info and renewals of one client in a second; and joins, of which
            as many may come at once as the namespaces that it may have.
    """

    def __init__(self, pool: ClusterPool, rules: NamespaceRules, rate: int) -> None:
        self._pool = pool
        self._rate = rate
        self._at_once = {
            Bound.WORDS: rate,
            Bound.JOINS: max(rate, pool.limits.connection_namespaces),
        }
        self._calls = ClientCalls(pool, rules)
        self._losses = Losses()
        pool.on("gap", self._losses.tell)

    def greet(self, websocket: NodeWebSocket, connection: Connection) -> Outgoing:
        """Prepare a connection that is not claimed yet, and return the welcome for it."""
        limit = self._pool.limits.message_bytes
        websocket.protocol.max_message_size = largest_frame(limit)
        writer = attachment.writer_of(connection)
        attachment.write_by(connection, FramedWriter(writer, connection.namespace))
        connection.on("left", partial(_tell_left, connection))
        return self.welcome(connection, claimed=False)

    def welcome(self, connection: Connection, *, claimed: bool = True) -> Outgoing:
        """The welcome for a connection; after its claim that says what it has got of the past."""
        who = connection.id, connection.namespace, connection.user, connection.expires
        resume = self._pool.resume_word(connection) if claimed else ""
        return client_frames.welcome(*who, connection.recovered, resume)

    async def serve(self, connection: Connection) -> None:
        """Carry out the requests of one client, one after another, until it is closed."""
        self._losses.clients.add(connection)
        try:
            await self._serve(connection)
        finally:
            self._losses.clients.discard(connection)

    async def _serve(self, connection: Connection) -> None:
        client = _Client(connection, self._rate, self._at_once)
        held = self._pool.inbound
        async for frame in connection:
            if connection.closed:
                continue  # nothing can be answered any more
            size = getsizeof(frame)  # one wide character makes all of a text four times as large
            held.unread += size
            try:
                await self._handle(client, frame)
            finally:
                held.unread -= size
            del frame  # else it is kept until the next one comes

    async def _handle(self, client: "_Client", frame: Message) -> None:
        if not isinstance(frame, str):
            throw_out(client.connection, UNSUPPORTED, "frames must be text")
            return
        try:
            await self._carry_out(client, frame)
        except RefusedRequestError as error:
            self._pool.counters.client_requests_refused += 1
            client.refuse(error)
            await asyncio.sleep(
                0
            )  # nothing was awaited, perhaps: many of these must hold up no one

    async def _carry_out(self, client: "_Client", frame: str) -> None:
        limits = self._pool.limits
        request = read_request(frame, limits.message_bytes, limits.info_bytes)
        bound = self._calls.bound_of(client.connection, request)
        if bound is not None and not client.may_go_on(bound):
            why = f"more than {self._rate} in a second"
            raise RefusedRequestError(request.ref, RATE, why)
        recovered = await self._calls.execute(client.connection, request)
        self._pool.counters.client_requests += 1
        if request.ref is not None:
            expires = client.connection.expires if request.verb == "renew" else None
            resume = ""
            if request.verb == "join" and request.namespace is not None:
                with contextlib.suppress(PoolClosedError):
                    resume = self._pool.resume_word(client.connection, request.namespace)
            answer = client_frames.done(request.ref, expires, recovered, resume)
            deliver(client.connection, answer)
        self._calls.finish(client.connection, request)


class _Client:
    """One client while it is served: how much it may ask for."""

    __slots__ = ("_at_once", "_due", "_invalid", "_rate", "connection")

    def __init__(self, connection: Connection, rate: int, at_once: Mapping[Bound, int]) -> None:
        self.connection = connection
        self._rate = rate
        self._at_once = at_once
        self._due: dict[Bound, float] = {}
        self._invalid: deque[float] | None = None

    def may_go_on(self, bound: Bound) -> bool:
        """Count a request, if that is within the rate."""
        now = asyncio.get_running_loop().time()
        due = max(self._due.get(bound, 0.0), now) + 1 / self._rate
        if due - now > (self._at_once[bound] + 0.5) / self._rate:
            return False
        self._due[bound] = due
        return True

    def refuse(self, error: RefusedRequestError) -> None:
        """Answer a request that is not carried out; count it if that cannot be answered."""
        if error.ref is not None:
            deliver(self.connection, client_frames.refused(error.ref, error.code, str(error)))
        elif error.unreadable:
            self._count_invalid()

    def _count_invalid(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._invalid is None:
            self._invalid = deque(maxlen=MOST_INVALID)
        self._invalid.append(now)
        if len(self._invalid) == MOST_INVALID and now - self._invalid[0] <= INVALID_WITHIN:
            throw_out(self.connection, POLICY, "too many frames that are no requests")


def _tell_left(connection: Connection, namespace: str, cause: str) -> None:
    """Tell a client which membership it has lost."""
    deliver(connection, client_frames.left(namespace, cause))
