"""Refuses handshakes before anything is claimed for them; counts and logs the refusals.

Owns the order: the origin of the page, the offers of the client, then its identity.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Final, Self

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.identity import Identity
from cluster_pool.core.handshake import check_offers
from cluster_pool.core.ids import shown
from cluster_pool.core.origins import Origins, remedy
from cluster_pool.core.quiet import Quiet, others
from cluster_pool.core.request import Request
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import (
    AuthenticationError,
    AuthenticationUnavailableError,
    ClusterPoolError,
    InvalidValueError,
    NotPermittedError,
    OriginRefusedError,
)

log = logging.getLogger("cluster_pool.door")

MINUTE: Final = 60.0
"""Seconds between two lines about one origin."""


class Door:
    """Checks handshakes by their headers alone, the same for every library.

    Attributes:
        opened: whether the pool was ever started.
    """

    def __init__(self, origins: Iterable[str] | None, counters: Counters) -> None:
        self._origins = Origins(origins)
        self._counters = counters
        self._quiet = Quiet(MINUTE)
        self.opened = False

    def with_origins(self, origins: Iterable[str]) -> Self:
        """A door with other origins, which counts and logs together with this one."""
        other = type(self)(origins, self._counters)
        other._quiet = self._quiet
        return other

    def check_origin(self, origins: Sequence[str], hosts: Sequence[str]) -> None:
        """Check the origin of a page: see :class:`Origins`.

        Args:
            origins, hosts: every value of the header ``Origin``, and of ``Host``.

        Raises:
            OriginRefusedError: it is foreign. Counted, and logged once a minute.
        """
        if self._origins.allow(origins, hosts):
            return
        self._counters.origins_refused += 1
        origin, host = ", ".join(origins), ", ".join(hosts)
        if times := self._quiet.due(origin, time.monotonic()):
            log.info(
                "refused a page of a foreign origin (403): Origin %s, Host %s; --origin %s (in "
                "Python: origins=) would allow it, or a proxy that passes the Host with its port%s",
                *(shown(origin, 300), shown(host, 300), remedy(origins), others(times)),
            )
        raise OriginRefusedError(origin, host)

    def check(self, request: Request, subprotocol: str | None, *, answered: bool) -> None:
        """Check the handshake of a connection that is about to be claimed.

        Args:
            subprotocol: that of the answer.
            answered: whether it was answered already.

        Raises:
            OriginRefusedError: see :meth:`check_origin`.
            InvalidValueError: see :func:`check_offers`.
        """
        headers = request.headers
        self.check_origin(headers.get_all("origin"), headers.get_all("host"))
        if not answered:
            check_offers(request, subprotocol)

    async def admit(
        self,
        request: Request,
        auth: Auth | None,
        identity: Identity | None,
        namespace: str | None,
        id: str | None,
        user: str | None = None,
    ) -> tuple[Identity | None, str, str | None]:
        """Authenticate a client, and decide where its connection belongs.

        Args:
            identity: it is authenticated already.
            namespace, id, user: those that a call or a URL names, if it names any.

        Returns:
            Its identity, its home namespace and its id, which is None if any will do.

        Raises:
            AuthenticationError, AuthenticationUnavailableError, NotPermittedError: it may not
                connect like this. Counted, and logged at level DEBUG.
            InvalidValueError: no namespace is named, or ``user`` may not name one.
        """
        try:
            if identity is None and auth is not None:
                identity = await auth.identify(request)
            if identity is not None:
                identity.check_of_user(user)
                identity.check_of_time(time.time())
                return identity, identity.home(namespace), identity.own_id(id)
        except ClusterPoolError as error:
            self._count_refused(error, request)
            raise
        if namespace is None:
            raise InvalidValueError("neither the call nor an identity names a namespace")
        return None if user is None else Identity(user=user), namespace, id

    def _count_refused(self, error: ClusterPoolError, request: Request) -> None:
        counters = self._counters
        if isinstance(error, AuthenticationError):
            counters.unauthenticated += 1
        elif isinstance(error, NotPermittedError):
            counters.not_permitted += 1
        elif isinstance(error, AuthenticationUnavailableError):
            counters.unverified += 1
        log.debug("refused %r: %s", request, error)

    def found_closed(self) -> None:
        """A handshake came while the pool does not run.

        If it never ran, all clients are refused. That is logged now and then, since otherwise only
        the clients learn of it, by the status of the answer.
        """
        if self.opened:
            return
        if times := self._quiet.due("never opened", time.monotonic()):
            log.error(
                "everybody is refused (503): this pool was never started; async with pool, or "
                "await pool.start() where the server runs no lifespan%s",
                others(times),
            )
