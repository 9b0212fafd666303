"""The pool without a cluster: one process, no Redis."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

from cluster_pool.core.closing import NORMAL, SERVICE_RESTART, check_close
from cluster_pool.core.config import Limits, Timing, check_on_conflict
from cluster_pool.core.drain_budget import HEADROOM
from cluster_pool.core.ids import (
    check_excluded,
    check_excluded_users,
    check_id,
    check_namespace,
    check_not_reserved,
    check_users,
    user_namespace,
)
from cluster_pool.core.message import Message, outgoing, to_json
from cluster_pool.core.results import Delivery, DrainReport, SendResult
from cluster_pool.exceptions import ClusterPoolError, InvalidValueError
from cluster_pool.local.connection import Connection
from cluster_pool.local.drain_run import DrainRun, finished
from cluster_pool.local.drain_terms import LocalBudget, Terms
from cluster_pool.local.memberships import LocalMemberships
from cluster_pool.local.outbox import begin_close, deliver, kick
from cluster_pool.local.protocol import EmptyCallback
from cluster_pool.local.table import ConnectionTable


class ConnectionsPool:
    """Connections by namespace and id, in this process alone.

    Works with or without ``async with``, whose end closes all connections and waits for that.

    Args:
        on_conflict: ``"takeover"`` closes the older connection of an id with 4409, ``"reject"``
            raises IdTakenError for the newer one.
        limits, timing: see :class:`Limits` and :class:`Timing`.
        table: the connections of a :class:`ClusterPool`. This object is then its ``local``: it
            sends and closes here, and the cluster decides about membership.
    """

    def __init__(
        self,
        *,
        on_conflict: str = "takeover",
        limits: Limits | None = None,
        timing: Timing | None = None,
        table: ConnectionTable | None = None,
    ) -> None:
        takeover = check_on_conflict(on_conflict)
        self._drain: DrainRun | None = None
        self._drain_task: asyncio.Task[DrainReport] | None = None
        self._memberships: LocalMemberships | None = None
        if table is None:
            self._memberships = LocalMemberships(
                limits or Limits(), timing or Timing(), takeover, self._is_draining
            )
            table = self._memberships.table
        self._table = table

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._drain is not None:
            self._drain.hurry()
        for connection in self._table.connections():
            begin_close(connection, SERVICE_RESTART, "")
        await self._table.stop()

    # -- membership ------------------------------------------------------------------------

    async def new_connection(self, connection: Connection) -> None:
        """Make a connection a member.

        Raises:
            IdTakenError: with ``on_conflict="reject"``, the id is taken by a client that has shown
                that it lives; one that does not within ``Timing.sign_of_life`` is cut.
            ConnectionClosedError: it is closed, or was closed while that was found out.
            NodeDrainingError: a drain has begun.
        """
        await self._own().add(connection)

    async def remove_connection(
        self, connection: Connection, on_empty_namespace: EmptyCallback | None = None
    ) -> None:
        """End a connection's memberships. Does not close it. A second call does nothing.

        Args:
            on_empty_namespace: called without arguments, and awaited if it is async, when this was
                the last member of its home namespace; also if the pool had closed it before.
        """
        own = self._own()
        own.depart(connection)
        await own.leave(connection, connection.namespace, on_empty_namespace, None)

    def _own(self) -> LocalMemberships:
        """The memberships that this pool decides about."""
        if self._memberships is None:
            raise ClusterPoolError("membership belongs to the ClusterPool: use its methods")
        self._table.check_loop()
        return self._memberships

    def _is_draining(self) -> bool:
        return self._drain is not None

    async def join(
        self,
        namespace: str,
        id: str,
        joined: str,
        *,
        as_id: str | None = None,
        on_conflict: str | None = None,
    ) -> SendResult:
        """Have a member's connection join one more namespace, as :meth:`.Connection.join`.

        Args:
            namespace, id: the member.
            as_id: the id in ``joined``; None for the id of the connection.

        Returns:
            DELIVERED when it has joined, or had before; ABSENT; or REFUSED when the id is taken, a
            limit is reached, the pool drains or the connection is closing.
        """
        own = self._own()
        connection = self.get_connection(check_namespace(namespace), check_id(id))
        if connection is None:
            return SendResult.ABSENT
        try:
            await own.join(connection, joined, as_id, on_conflict, None)
        except InvalidValueError:
            raise
        except ClusterPoolError:
            return SendResult.REFUSED
        return SendResult.DELIVERED

    async def leave(self, namespace: str, id: str, left: str) -> SendResult:
        """Have a member's connection leave a namespace; it stays open, unless that is its home.

        Its ``left`` handlers are called with ``"removed"``. DELIVERED when it has left, or was not
        there; or ABSENT.
        """
        own = self._own()
        connection = self.get_connection(check_namespace(namespace), check_id(id))
        if connection is None:
            return SendResult.ABSENT
        membership = self._table.membership_in(connection, check_namespace(left))
        if membership is not None:
            own.remove(membership)
        return SendResult.DELIVERED

    async def remove_all(self, namespace: str) -> int:
        """End all memberships of a namespace, as :meth:`leave` for each; returns how many."""
        own, removed = self._own(), 0
        async for part in self._table.parts(check_namespace(namespace)):
            removed += len(part)
            for membership in part:
                own.remove(membership)
        return removed

    # -- sending ---------------------------------------------------------------------------

    async def send(self, namespace: str, id: str, message: Message) -> SendResult:
        """Send one message to one member: DELIVERED, ABSENT, or REFUSED when it is closing."""
        self._table.check_loop()
        namespace, id = check_namespace(namespace), check_id(id)
        framed = outgoing(message, self._table.limits.message_bytes)
        if self._table.namespace_busy(namespace):
            await self._table.wait_fanned_out(namespace)
        return self._table.send(namespace, id, framed)

    async def send_json(self, namespace: str, id: str, value: Any) -> SendResult:
        """Send ``value`` as JSON text; as :meth:`send`."""
        return await self.send(namespace, id, to_json(value))

    async def send_then_close(
        self, namespace: str, id: str, message: Message, code: int = NORMAL, reason: str = ""
    ) -> SendResult:
        """Send one message to one member and close its connection behind it, once."""
        code, reason = check_close(code, reason)
        result = await self.send(namespace, id, message)
        connection = self.get_connection(namespace, id)
        if result and connection is not None:
            kick(connection, code, reason)
        return result

    async def send_json_then_close(
        self, namespace: str, id: str, value: Any, code: int = NORMAL, reason: str = ""
    ) -> SendResult:
        """Send ``value`` as JSON text and close behind it; as :meth:`send_then_close`."""
        return await self.send_then_close(namespace, id, to_json(value), code, reason)

    async def broadcast_message(
        self,
        namespace: str,
        message: Message,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
    ) -> int:
        """Send one message to every member but the excluded ids; returns how many got it.

        Connections of the excluded users do not get it either.
        """
        self._table.check_loop()
        namespace = check_namespace(namespace)
        framed = outgoing(message, self._table.limits.message_bytes)
        chosen = frozenset(check_excluded(exclude))
        users = frozenset(check_excluded_users(exclude_users))
        return await self._table.broadcast(namespace, framed, chosen, users)

    async def broadcast_json_message(
        self,
        namespace: str,
        value: Any,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
    ) -> int:
        """Send ``value`` as JSON text to every member; as :meth:`broadcast_message`."""
        text = to_json(value)
        return await self.broadcast_message(namespace, text, exclude, exclude_users=exclude_users)

    # -- closing ---------------------------------------------------------------------------

    async def close(
        self, namespace: str, id: str, code: int = NORMAL, reason: str = ""
    ) -> SendResult:
        """Begin to close one member's connection: DELIVERED or ABSENT."""
        self._table.check_loop()
        namespace, id = check_namespace(namespace), check_id(id)
        code, reason = check_close(code, reason)
        connection = self.get_connection(namespace, id)
        if connection is None:
            return SendResult.ABSENT
        kick(connection, code, reason)
        return SendResult.DELIVERED

    async def close_all(self, namespace: str, code: int = NORMAL, reason: str = "") -> int:
        """Begin to close every member; they are no members any more. Returns how many."""
        self._table.check_loop()
        namespace = check_namespace(namespace)
        return await self._table.close_all(namespace, *check_close(code, reason))

    # -- users -----------------------------------------------------------------------------

    async def send_user(self, user: str, message: Message) -> Delivery:
        """Send one message to every connection of a user; tells how many got it."""
        self._table.check_loop()
        namespace = user_namespace(user)
        framed = outgoing(message, self._table.limits.message_bytes)
        if self._table.namespace_busy(namespace):
            await self._table.wait_fanned_out(namespace)
        members = list((self._table.namespace(namespace) or {}).values())
        return Delivery.of(deliver(one.connection, framed) for one in members)

    async def online(self, users: Iterable[str]) -> dict[str, int]:
        """The number of connections of each of some users, 0 for none."""
        self._table.check_loop()
        namespaces = {user: user_namespace(user) for user in check_users(users)}
        return {user: len(self._table.namespace(n) or ()) for user, n in namespaces.items()}

    async def close_user(self, user: str, code: int = NORMAL, reason: str = "") -> int:
        """Begin to close every connection of a user; returns how many."""
        self._table.check_loop()
        return await self._table.close_all(user_namespace(user), *check_close(code, reason))

    # -- draining --------------------------------------------------------------------------

    async def drain_connections(
        self,
        max_per_second: float | None = None,
        message: Message = "",
        code: int = SERVICE_RESTART,
        *,
        grace: float | None = None,
    ) -> DrainReport:
        """Close every connection at a pace, and accept no newcomers meanwhile.

        Idle connections go first, otherwise the order is random, with the members of each namespace
        spread evenly. Messages sent before reach clients that read. A client that does not answer
        its close is cut, and delays no other. A second call joins the drain under way, and resumes
        a paused one: its rate, if it names one, and the earlier deadline apply, and both calls get
        the report. Cancelling the first call cancels the drain.

        Args:
            max_per_second: closes per second, more than 0; None: 200.
            message: sent to each ahead of its close; "" sends nothing.
            code: the close code; after 1012 every client library comes back.
            grace: seconds until all must be closed: the rate is raised as far as that needs. None:
                no limit.

        Returns:
            When all are closed: how many, how many by force, how long it took.

        Raises:
            InvalidValueError: an argument is not allowed.
        """
        self._table.check_loop()
        terms = Terms.of(max_per_second, message, code, grace, self._table.limits.message_bytes)
        if self._drain is not None and self._drain_task is not None:
            self._drain.tighten(terms)
            return await asyncio.shield(self._drain_task)
        if terms.max_rate is None:
            terms = replace(terms, max_rate=HEADROOM)
        drain = self._drain = DrainRun("", self._table, LocalBudget(), terms)
        task = self._drain_task = asyncio.create_task(drain.run(), name="cluster_pool drain")
        try:
            return await finished(drain, task)
        finally:
            self._drain = self._drain_task = None

    async def pause_drain(self) -> None:
        """Close none for a while; newcomers are still refused. Without a drain it does nothing."""
        self._table.check_loop()
        if self._drain is not None:
            self._drain.pause(True)

    async def resume_drain(self) -> None:
        """Go on after :meth:`pause_drain`; the deadline has not changed."""
        self._table.check_loop()
        if self._drain is not None:
            self._drain.pause(False)

    async def cancel_drain(self) -> None:
        """End a drain half-way: the rest stays, newcomers are accepted, the report says so."""
        self._table.check_loop()
        if self._drain is not None:
            self._drain.cancel()

    # -- reading ---------------------------------------------------------------------------

    def get_connection(self, namespace: str, id: str) -> Connection | None:
        """The connection with an id, or None."""
        check_not_reserved(namespace)
        membership = self._table.get(namespace, id)
        return None if membership is None else membership.connection

    def has_namespace(self, namespace: str) -> bool:
        """Whether a namespace has members. Looking creates nothing."""
        check_not_reserved(namespace)
        return self._table.namespace(namespace) is not None

    def statistics(self) -> dict[str, Any]:
        """A snapshot of counters and sizes."""
        return {
            "connections": len(self._table),
            "namespaces": self._table.namespace_count(),
            **self._table.counters.as_dict(),
        }
