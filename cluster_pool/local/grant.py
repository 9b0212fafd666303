"""The identity with which a connection was accepted, and how that is renewed."""

import time
from collections.abc import Callable
from typing import Any

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.identity import Identity
from cluster_pool.auth.tokens import bearing
from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.ids import shown
from cluster_pool.core.request import Request
from cluster_pool.exceptions import (
    AuthenticationError,
    ConnectionClosedError,
    NotPermittedError,
)


class Grant:
    """The identity of one connection.

    Args:
        auth: authenticates again; None: the identity cannot be renewed.

    Attributes:
        identity: the present one.
    """

    __slots__ = ("_auth", "identity")

    def __init__(self, identity: Identity, auth: Auth | None) -> None:
        self.identity = identity
        self._auth = auth

    @property
    def expired(self) -> bool:
        """Whether the identity does not count any more, by the clock of the machine."""
        expires = self.identity.expires
        return expires is not None and expires <= time.time()

    def check_join(self, namespace: str) -> None:
        """Raise unless the connection may join a namespace now; see :meth:`Connection.join`."""
        if self.expired:
            raise AuthenticationError("the identity has expired")
        if not self.identity.permits(namespace):
            raise NotPermittedError(f"the identity permits no namespace {shown(namespace)}")

    async def renew(
        self, connection: Any, request: Request, token: str, check: Callable[[Identity], None]
    ) -> None:
        """See :meth:`Connection.renew`; ``check`` raises if a token was revoked."""
        if self._auth is None:
            raise AuthenticationError("this connection was accepted without auth")
        found = await self._auth.identify(bearing(request, token))
        if connection.closed:
            raise ConnectionClosedError(connection.close_code or ABNORMAL, connection.close_reason)
        if found.user != self.identity.user:
            raise AuthenticationError("the token is of another user")
        if not found.permits(connection.namespace) or found.id not in (None, connection.id):
            raise AuthenticationError("the token permits another connection")
        check(found)
        self.identity = found
