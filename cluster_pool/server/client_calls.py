"""Carries out what clients of ``cluster-pool.v1`` ask for, and says why it was not.

The reasons are for strangers: none tells anything about the cluster.
"""

import contextlib
from enum import Enum
from typing import Final

from cluster_pool.auth.rules import INFO, PUBLISH, NamespaceRules
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.client_requests import INVALID, ClientRequest, RefusedRequestError
from cluster_pool.core.closing import NORMAL
from cluster_pool.exceptions import (
    AuthenticationError,
    AuthenticationUnavailableError,
    BackplaneUnavailableError,
    ClusterPoolError,
    ConnectionClosedError,
    IdTakenError,
    InvalidValueError,
    MembershipLimitError,
    NodeDrainingError,
    NotPermittedError,
    PendingLimitError,
    PoolClosedError,
)
from cluster_pool.local import attachment
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import begin_close
from cluster_pool.server.attempts import Attempts

NOT_ALLOWED: Final = "not_allowed"
RATE: Final = "rate"
UNAVAILABLE: Final = "unavailable", "this is not possible now: try again"
BRIEFLY: Final = 0.01
"""Seconds to wait for Redis where that was in vain lately, and the request is done without it."""
ANSWERS: Final[dict[type[ClusterPoolError], tuple[str, str]]] = {
    IdTakenError: ("taken", "this id is taken there"),
    MembershipLimitError: ("limit", "there are too many already"),
    NodeDrainingError: ("draining", "this node takes no newcomers: come back"),
    ConnectionClosedError: ("closing", "this connection is being closed"),
    AuthenticationError: ("expired", "the identity has expired"),
    AuthenticationUnavailableError: UNAVAILABLE,
    NotPermittedError: (NOT_ALLOWED, "this is not permitted there"),
    BackplaneUnavailableError: UNAVAILABLE,
    PendingLimitError: UNAVAILABLE,
    PoolClosedError: UNAVAILABLE,
}
"""The code and the reason of each error."""


class Bound(Enum):
    """The kinds of requests that are bounded in rate, each by itself."""

    WORDS = "words"
    """Messages, infos, and renewals."""
    JOINS = "joins"


class ClientCalls:
    """The verbs of clients, for all connections of a node.

    Args:
        rules: where clients may publish, and tell others their info.
    """

    def __init__(self, pool: ClusterPool, rules: NamespaceRules) -> None:
        self._pool = pool
        self._rules = rules
        self._attempts = Attempts()

    def bound_of(self, connection: Connection, request: ClientRequest) -> Bound | None:
        """Which rate of its client a request counts in; None for a leave, which counts in none."""
        if request.verb == "leave":
            return None
        if request.verb != "join":
            return Bound.WORDS
        again = request.namespace in connection.namespaces  # another way to change an info
        return Bound.WORDS if again and request.info is not None else Bound.JOINS

    async def execute(self, connection: Connection, request: ClientRequest) -> bool | None:
        """Carry out a request; of a join, returns whether what was missed there comes.

        Raises:
            RefusedRequestError: it was not.
        """
        try:
            where = request.namespace or connection.namespace
            return await self._execute(connection, request, where)
        except ClusterPoolError as error:
            code, reason = self._answer(request, error)
            raise RefusedRequestError(request.ref, code, reason) from error

    def finish(self, connection: Connection, request: ClientRequest) -> None:
        """Do what comes after the answer: a client that leaves its home is closed."""
        if request.verb == "leave" and request.namespace == connection.namespace:
            begin_close(connection, NORMAL, "")

    async def _execute(
        self, connection: Connection, request: ClientRequest, where: str
    ) -> bool | None:
        if request.verb == "renew":
            await connection.renew(request.token)
        elif request.verb == "leave":
            await self._leave(connection, where)
        else:
            self._check(connection, request, where)
            server = self._pool.inbound.server_of(where)
            if not self._attempts.allowed(server):
                raise BackplaneUnavailableError("tried in vain lately")
            with self._attempts.begin(server):
                return await self._ask(connection, request, where)
        return None

    def _check(self, connection: Connection, request: ClientRequest, where: str) -> None:
        """Raise unless the client may do this there, and do it now."""
        if attachment.is_expired(connection):
            raise AuthenticationError("the identity has expired")
        if request.verb == "join":
            permitted = request.info is None or self._rules.permit(INFO, where)
        else:
            verb = PUBLISH if request.verb == "publish" else INFO
            permitted = self._rules.permit(verb, where) and where in connection.namespaces
        if not permitted:
            raise NotPermittedError("no rule permits this")

    async def _ask(self, connection: Connection, request: ClientRequest, where: str) -> bool | None:
        if request.verb == "publish":
            await self._pool.publish_from(connection, where, request.message)
        elif request.verb == "info":
            await connection.update_info(request.info, namespace=where)
        else:
            on_conflict = "reject" if _is_stranger(connection) else None
            return await connection.join(
                where,
                on_conflict=on_conflict,
                info=request.info,
                since=request.since,
                resume=request.resume,
            )
        return None

    async def _leave(self, connection: Connection, where: str) -> None:
        """Leave; that is done when Redis does not hear of it yet, too."""
        if where == connection.namespace:
            return
        server = self._pool.inbound.server_of(where)
        with contextlib.suppress(BackplaneUnavailableError):
            if not self._attempts.allowed(server):
                await connection.leave(where, timeout=BRIEFLY)
            else:
                with self._attempts.begin(server):
                    await connection.leave(where)

    def _answer(self, request: ClientRequest, error: ClusterPoolError) -> tuple[str, str]:
        if isinstance(error, AuthenticationError) and request.verb == "renew":
            return NOT_ALLOWED, "this token does not renew this connection"
        for kind, answer in ANSWERS.items():
            if isinstance(error, kind):
                return answer
        return INVALID, str(error) if isinstance(error, InvalidValueError) else "not possible"


def _is_stranger(connection: Connection) -> bool:
    """Whether it is a guest of an authenticated pool who chose its id: those are no one user."""
    identity = connection.identity
    return identity is not None and identity.user is None and identity.id != connection.id
