"""The public calls about connections of a pool's own node: members, and how they come and go."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.identity import Identity
from cluster_pool.cluster.accept import Accepting
from cluster_pool.cluster.door import Door
from cluster_pool.cluster.node import Node
from cluster_pool.cluster.public.handle import NOT_RUNNING
from cluster_pool.core.history import Wish
from cluster_pool.core.ids import check_namespace, check_not_reserved, shown
from cluster_pool.core.request import Request
from cluster_pool.exceptions import AuthenticationError, NotPermittedError, PoolClosedError
from cluster_pool.local import attachment
from cluster_pool.local.connection import Connection
from cluster_pool.local.protocol import EmptyCallback
from cluster_pool.transports.base import Ahead


class ConnectionCalls:
    """The connections of this node.

    Attributes:
        auth: authenticates clients; None: nothing does.
        door: checks handshakes before anything is claimed for them.
    """

    auth: Auth | None
    door: Door
    _ahead: Ahead
    _parts: Node | None

    def _running(self) -> Node:
        """See :class:`Calls`."""
        raise NotImplementedError

    def _started(self) -> Node:
        """See :class:`Handle`."""
        raise NotImplementedError

    async def new_connection(
        self,
        connection: Connection,
        *,
        on_conflict: str | None = None,
        timeout: float | None = None,
        rewind: int | None = None,
        since: str | None = None,
        resume: str | None = None,
    ) -> None:
        """Make a connection a member: claim its id for this node.

        When this returns, sends from anywhere reach it. Cancelling releases the claim again.

        Args:
            on_conflict: ``"takeover"`` or ``"reject"`` for this call only.
            timeout: seconds; default 2.
            rewind, since, resume: as for :meth:`accept`.

        Raises:
            NodeDrainingError: this node accepts no newcomers.
            IdTakenError: under ``"reject"``, the id is taken.
            ConnectionClosedError: a newer connection took the id over at once (4409: this one is
                closed), or the connection is closed, or its client has gone.
            MembershipLimitError: the namespace or this node is full, or the user has too many
                connections (``Limits.user_connections``).
            BackplaneUnavailableError: Redis did not answer in time, or has been away for a second
                already, and then this does not wait. A claim that may have been made
                (``maybe_executed``) is released as soon as Redis can be reached.
        """
        node, wish = self._running(), Wish.of(rewind, since, resume)
        await node.rewinds.admit(node.admission, connection, on_conflict, wish, timeout)

    async def remove_connection(
        self,
        connection: Connection,
        on_empty_namespace: EmptyCallback | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """End a connection's membership. Does not close it. A second call does nothing.

        Args:
            on_empty_namespace: called without arguments, and awaited if it is async, when this
                release left the namespace without members in the whole cluster. It is called once,
                even if the release had to be retried, up to a day later; after a crash in between
                perhaps not at all.
            timeout: seconds to wait for Redis; default 2.

        Raises:
            BackplaneUnavailableError: not released yet. It will be released, and the callback
                called, as soon as Redis can be reached.
        """
        await self._started().admission.leave(connection, on_empty_namespace, timeout)

    def accept(
        self,
        websocket: Any,
        *,
        namespace: str | None = None,
        id: str | None = None,
        user: str | None = None,
        info: Any = None,
        auth: Auth | None = None,
        identity: Identity | None = None,
        on_conflict: str | None = None,
        subprotocol: str | None = None,
        idle_timeout: float | None = None,
        metadata: dict[str, Any] | None = None,
        origins: Sequence[str] | None = None,
        request: Request | None = None,
        rewind: int | None = None,
        since: str | None = None,
        resume: str | None = None,
    ) -> AbstractAsyncContextManager[Connection, bool]:
        """Claim, accept the WebSocket if the framework has not done it, and release at the end.

        ``async with pool.accept(websocket, namespace="room", id="alice") as connection:
        await connection.run()``. Messages to the member between claim and accept wait in its
        outbox. At the end the connection is closed (1000, or 1011 after an exception) behind the
        messages sent to it; the client has ``Timing.close`` seconds for that.

        When the client leaves, its membership ends at once, whatever the body does, and the body
        ends: an iteration ends by itself, after all messages that had come; a ``send`` raises
        ``ConnectionClosedError``; a body that waits for something else is cancelled. It is
        cancelled at once, but ``Timing.close`` later if there are unread messages, and
        ``Timing.handler`` later if another task reads, or the WebSocket is read by its own
        library's methods. The context manager swallows this error and this cancellation, and no
        other: the code behind it runs. A body is never cancelled while it works on a message of its
        iteration, after its iteration has ended, or if it has closed the connection itself. A
        connection that is taken over, closed by a pool or cut ends its body in the same ways.

        If the body does not read, up to ``Limits.inbound_bytes`` of messages are kept, and further
        ones are dropped (``inbound_dropped``). If it has read before, TCP holds the client up
        instead, and that the client leaves is noticed only after ``Timing.handler`` seconds
        without a read.

        Args:
            namespace: its home; None: that of its identity.
            id: None: that of its identity, or a unique one.
            user: the person whose connection it is, who may have several, 1 to 250 bytes; None:
                that of its identity, if it has one. Another than that of its identity is refused.
            info: what other members see of it, such as ``{"name": "Alice"}``: any JSON value, of
                ``Limits.info_bytes`` (1 KiB) at most; None: that of its identity, if it has one.
            auth: authenticates the client, in place of the pool's.
            identity: of a client that the application has authenticated; nothing else does it then.
            subprotocol: the one to accept, which the client must have offered.
            origins: allowed origins for this call, in place of the pool's own.
            request: the client's request, for a pair of callables, which does not have it; without
                it neither the origin nor the client can be checked.
            rewind: how many of the last broadcasts of the namespace it gets, ahead of everything
                else, 1 to 10,000; each message comes once, and none is missing between the two.
                As many of the newest as fit into an outbox; none where no history is recorded.
                One whose id was there lately gets what it has missed instead: see
                :attr:`.Connection.recovered`.
            since: a position of the history (:meth:`position`, :class:`HistoryMessage`) up to which
                the client has everything, if the application knows that; what came after it is
                sent, in place of what the pool knows by itself. Take it from no client without its
                ``resume``: one who names a position can read on from there.
            resume: the word of :meth:`resume_word`, if the position comes from the client, which
                may then give any one from the word's on; without one, that of the word counts. A
                word of another namespace, id or user is of no use: what the pool knows counts, and
                if it knows nothing, ``recovered`` is False.

        Raises:
            OriginRefusedError, InvalidValueError: the origin is foreign, the offers of the client
                cannot be answered, or a value is not allowed. Nothing was claimed.
            AuthenticationError, AuthenticationUnavailableError, NotPermittedError: the client is
                not authenticated (401), cannot be authenticated now (503), or its identity permits
                no such namespace or id (403). Nothing was claimed.
            As :meth:`new_connection`. A WebSocket that is not accepted yet is then refused with 400
                (a value is not allowed), 403 (foreign origin), 409 (taken) or 503 and Retry-After,
                if the framework's server can do that; an open one is closed with 1008, 4409 or
                1013. If a newer connection took over the id at once, it is accepted and closed
                with 4409. Under Starlette and FastAPI the error is also starlette's HTTPException,
                so that they log no traceback; under others the endpoint must catch
                ClusterPoolError.
            TypeError: ``websocket`` is of no supported type; both ``auth`` and ``identity`` are
                given; or ``namespace`` is not, and there is no identity to take it from.
        """
        auth = _auth_of(self.auth, auth, identity, namespace)
        return Accepting(
            websocket,
            self._running,
            self.door,
            self._ahead,
            auth=auth,
            identity=identity,
            namespace=namespace,
            id=id,
            user=user,
            info=info,
            on_conflict=on_conflict,
            subprotocol=subprotocol,
            idle_timeout=idle_timeout,
            metadata=metadata,
            origins=origins,
            request=request,
            wish=Wish.of(rewind, since, resume),
        )

    def resume_word(self, connection: Connection, namespace: str | None = None) -> str:
        """A word for a client that keeps its position itself: it presents it when it comes back.

        It begins with the position where the client began: ``position.SEAL``. It is good for this
        namespace, id and user, and of no use to others.

        Args:
            namespace: one that the connection has joined; None for its home.

        Returns:
            The word; "" where this node was given no history, or the connection is no member.
        """
        where = connection.namespace if namespace is None else check_namespace(namespace)
        return self._running().rewinds.resumes.word_of(connection, where)

    def get_connection(self, namespace: str, id: str) -> Connection | None:
        """This node's connection with an id, or None.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        if self._parts is None:
            raise PoolClosedError(NOT_RUNNING)
        self._parts.life.check_running()
        return self._parts.local.get_connection(namespace, id)

    def has_namespace(self, namespace: str) -> bool:
        """Whether this node has members in a namespace. For any thread, also before the start."""
        check_not_reserved(namespace)
        return self._parts is not None and self._parts.table.namespace(namespace) is not None

    async def publish_inbound(self, connection: Connection, message: str | bytes) -> int:
        """Publish a message of a client to the inbound channel of its namespace.

        The payload is JSON: ``{"id", "node", "text"}`` or ``{"id", "node", "binary": base64}``.

        Returns:
            How many subscribers heard it.

        Raises:
            InvalidMessageError, MessageTooLargeError: not allowed.
            AuthenticationError: the identity of the connection has expired.
            PendingLimitError: too much waits for Redis already: half of
                ``Limits.node_inbound_bytes`` (a message counts three times while it is published),
                or ``Limits.pending_messages``.
            BackplaneUnavailableError: Redis did not answer in time.
        """
        node = self._running()
        if attachment.is_expired(connection):
            raise AuthenticationError("the identity of the connection has expired")
        deadline = node.backplane.deadline(None)
        node_id = node.backplane.identity.node_id
        return await node.inbound.publish(connection, node_id, message, deadline)

    async def publish_from(
        self,
        connection: Connection,
        namespace: str,
        message: str | bytes,
        *,
        timeout: float | None = None,
    ) -> int:
        """Broadcast a message of a client to a namespace of which it is a member.

        Clients of ``serve`` that speak ``cluster-pool.v1`` are told its id there and its user; all
        others get the bare message. It comes back to the client itself, too. Whether the client may
        publish there is for the caller to decide.

        Args:
            timeout: seconds; default 2.

        Returns:
            How many nodes heard it, as :meth:`broadcast_message`.

        Raises:
            InvalidMessageError, MessageTooLargeError: not allowed.
            AuthenticationError: the identity of the connection has expired.
            NotPermittedError: it is no member of the namespace, or not any more.
            PendingLimitError, BackplaneUnavailableError: as :meth:`broadcast_message`.
        """
        node = self._running()
        if attachment.is_expired(connection):
            raise AuthenticationError("the identity of the connection has expired")
        membership = node.table.membership_in(connection, namespace)
        if connection.closed or membership is None or membership.departure is not None:
            raise NotPermittedError(f"{connection!r} is no member of {shown(namespace)}")
        author = membership.id, connection.user or ""
        return await node.sending.publish(author, namespace, message, timeout)


def _auth_of(
    own: Auth | None, auth: Auth | None, identity: Identity | None, namespace: str | None
) -> Auth | None:
    """The authentication of a client of :meth:`ConnectionCalls.accept`, if there is any."""
    if auth is not None and identity is not None:
        raise TypeError("accept takes auth or identity, not both")
    auth = own if auth is None else auth
    if namespace is None and auth is None and identity is None:
        raise TypeError("accept needs a namespace")
    return auth
