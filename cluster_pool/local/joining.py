"""The memberships of a connection: it joins and leaves, and tells what others see of it."""

import json
from collections.abc import Callable
from typing import Any

from cluster_pool.core.closing import NORMAL
from cluster_pool.core.history import Wish
from cluster_pool.core.ids import check_namespace, shown
from cluster_pool.core.profiles import encode_info
from cluster_pool.exceptions import AuthenticationError, ClusterPoolError, NotPermittedError
from cluster_pool.local import closing
from cluster_pool.local.outbox import begin_close
from cluster_pool.local.profiles import info_in, set_info
from cluster_pool.local.state import ConnectionState


class Joining(ConnectionState):
    """The part of :class:`.Connection` that is about its memberships."""

    __slots__ = ()

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces in which it is a member now: its home first, then in order of joining."""
        return tuple(
            one.namespace for one in self._memberships if one.departure is None and not one.person
        )

    async def join(
        self,
        namespace: str,
        *,
        id: str | None = None,
        on_conflict: str | None = None,
        info: Any = None,
        timeout: float | None = None,
        since: str | None = None,
        resume: str | None = None,
    ) -> bool | None:
        """Become a member of one more namespace, until :meth:`leave` or the end of the connection.

        When this returns, broadcasts to the namespace and sends to the id there reach it. It is a
        membership like the first one, with an owner, a place in ``members`` and ``count``, and a
        last-one callback. Messages from one sender arrive in order within each namespace; between
        two namespaces there is no order. If another connection takes the id over, only this
        membership ends, which ``on("left")`` tells. Joining again under the same id does nothing.
        Cancelling releases the claim again.

        Args:
            id: unique in the namespace; None for the id of this connection.
            on_conflict: ``"takeover"`` or ``"reject"``; None for the rule of the pool, by which,
                however, an id is taken over only from a connection of the same user (or, without
                users, from any).
            info: what other members see of it there; see :meth:`update_info`.
            timeout: seconds; default 2.
            since, resume: as for :meth:`ClusterPool.accept`.

        Returns:
            Where the namespace has a history: whether the client gets all that was sent there
            while its id was away, as :attr:`.Connection.recovered` says it of the first namespace.
            An id is not away after :meth:`leave`: it begins anew.

        Raises:
            InvalidValueError: ``info`` is not JSON, too deep, or too large.
            IdTakenError: the id is taken, and may not be taken over; or a newer claim took it at
                once.
            MembershipLimitError: this connection (``Limits.connection_namespaces``), the namespace
                or the node has as many as the limits allow.
            ConnectionClosedError: it is closed, or is closed meanwhile.
            ClusterPoolError: it is no member of a pool, or a member there under another id.
            AuthenticationError, NotPermittedError: its identity has expired, or permits no such
                namespace.
            NodeDrainingError, BackplaneUnavailableError: as :meth:`ClusterPool.new_connection`.
        """
        self._services.check_loop()
        namespace = check_namespace(namespace)
        if self._grant is not None:
            self._grant.check_join(namespace)
        wish = Wish.of(None, since, resume)
        text = None if info is None else self._check_info(info)
        recovered = await self._claim(namespace, id, on_conflict, timeout, wish, text)
        if text is not None and info_in(self, namespace) != text:  # it was a member before
            set_info(self, namespace, text)
            await self._services.inform(self, namespace, timeout)
        return recovered

    async def _claim(
        self,
        namespace: str,
        id: str | None,
        on_conflict: str | None,
        timeout: float | None,
        wish: Wish,
        info: str | None,
    ) -> bool | None:
        """Claim the membership; undo that if the identity has changed or expired meanwhile."""
        recovered = await self._services.join(self, namespace, id, on_conflict, timeout, wish, info)
        if self._grant is not None:
            try:
                self._grant.check_join(namespace)
            except (AuthenticationError, NotPermittedError):
                self._services.withdraw(self, namespace)
                raise
        return recovered

    @property
    def info(self) -> Any:
        """Its info at home, which other members see; None for nothing. A copy: see
        :meth:`update_info`."""
        text = info_in(self, self.namespace)
        return json.loads(text) if text else None

    async def update_info(
        self, info: Any, *, namespace: str | None = None, timeout: float | None = None
    ) -> None:
        """Replace what other members see of it: in ``members``, ``presence`` and ``watch``.

        Updates of one connection that are awaited one after another are seen in that order. Each is
        a call to Redis and an event for each watcher: for what changes ten times a second, send
        messages. Redis keeps it as long as the member.

        Args:
            info: any JSON value, of ``Limits.info_bytes`` (1 KiB) and 32 levels of lists and
                objects at most; None for nothing.
            namespace: one that it has joined; None for its home.
            timeout: seconds; default 2.

        Raises:
            InvalidValueError: it is not JSON, too deep, or too large. The info is as before.
            ClusterPoolError: it is no member of that namespace, or is none any more when Redis
                answers: another connection has taken the id over, say.
            ConnectionClosedError: it was closed meanwhile.
            AuthenticationError: its identity has expired.
            BackplaneUnavailableError: Redis did not answer in time, or the member could not be
                registered again in Redis, which had lost it. The info is registered when its node
                next registers its members, at the latest when Redis is back.
        """
        self._services.check_loop()
        namespace = self.namespace if namespace is None else check_namespace(namespace)
        if namespace not in self.namespaces:
            raise ClusterPoolError(f"{self!r} is no member of {shown(namespace)}")
        if self._grant is not None and self._grant.expired:
            raise AuthenticationError("the identity has expired")
        set_info(self, namespace, "" if info is None else self._check_info(info))
        await self._services.inform(self, namespace, timeout)

    def _check_info(self, info: Any) -> str:
        return encode_info(info, self._services.limits.info_bytes)

    async def leave(
        self,
        namespace: str,
        *,
        on_empty_namespace: Callable[[], Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        """End the membership in one namespace; leaving its home closes the connection (1000).

        Leaving a namespace that it is no member of does nothing. A connection that closes leaves
        all of its namespaces by itself. After that this still waits for the release, and calls the
        callback.

        Args:
            on_empty_namespace: called without arguments, and awaited if it is async, when this was
                the last member of the namespace in the whole cluster; once.
            timeout: seconds to wait for Redis; default 2.

        Raises:
            BackplaneUnavailableError: not released yet. It will be released, and the callback
                called, as soon as Redis can be reached; but not if an earlier join of the
                namespace is still under way.
        """
        self._services.check_loop()
        if check_namespace(namespace) == self.namespace:
            closing.tell_owner(self)
            begin_close(self, NORMAL, "")
        await self._services.leave(self, namespace, on_empty_namespace, timeout)
