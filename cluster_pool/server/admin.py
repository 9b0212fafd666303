"""The admin listener: ``/status`` and ``/metrics``, for this machine or with a token."""

import asyncio
import functools
import http
import ipaddress
from collections.abc import Sequence
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from cluster_pool.auth.tokens import is_bearer
from cluster_pool.cluster.answers import UNAUTHORIZED, metrics, status
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.ids import shown
from cluster_pool.core.loopback import is_loopback
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.server.http import (
    answer,
    response_of,
    split_target,
    without_body_for_head,
)
from cluster_pool.server.newcomers import PATIENCE, Newcomers
from cluster_pool.server.turns import read_in_turns


class _Visitor(ServerConnection):
    """A socket at the admin port; only its request is read."""

    def __init__(self, *arguments: Any, newcomers: Newcomers, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._newcomers = newcomers
        self._reader = read_in_turns(self.protocol)
        """Grants no frame: nothing behind the request is parsed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Go on if a descriptor is left: see :class:`Newcomers`."""
        tcp = cast("asyncio.Transport", transport)  # uvloop's is none by type
        if self._newcomers.admit(tcp, ours=True):
            super().connection_made(tcp)

    def data_received(self, data: bytes) -> None:
        """Read the request, and drop whatever comes behind it."""
        if self._asks():
            super().data_received(data)
        if not self._asks():
            self._reader.discard()

    def _asks(self) -> bool:
        """Whether its request is not complete yet."""
        return self.request is None and self.protocol.handshake_exc is None

    def eof_received(self) -> bool:  # type: ignore[override]  # theirs never keeps it open
        """Keep the socket for the answer if the request was complete."""
        if self.request is not None:
            return True
        super().eof_received()
        return False


class AdminListener:
    """Answers plain GETs.

    With a token, requests without it get 401. Without a token, requests for a Host that is not
    known here get 403.

    Args:
        names: what a Host may be besides ``localhost``, ``host`` and IP addresses; ``*`` for any.

    Raises:
        InvalidValueError: it would listen elsewhere than on loopback without a token.
    """

    def __init__(
        self,
        pool: ClusterPool,
        port: int,
        host: str = "127.0.0.1",
        token: str | None = None,
        names: Sequence[str] = (),
    ) -> None:
        check_admin_host(host, token)
        self._pool = pool
        self._host = host
        self._names = {"localhost", *(name.lower().rstrip(".") for name in (host, *names))}
        self._token = token
        self.port = port
        self._server: Server | None = None

    async def start(self, newcomers: Newcomers) -> None:
        """Listen; :attr:`port` then tells where. Raises OSError when the port cannot be had."""
        self._server = await serve(
            self._no_websockets,
            self._host,
            self.port,
            process_request=self._answer,
            process_response=without_body_for_head,
            create_connection=cast(
                "type[ServerConnection]", functools.partial(_Visitor, newcomers=newcomers)
            ),
            close_timeout=PATIENCE,
            server_header=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    def close(self) -> Server | None:
        """Stop listening, and return the server, whose end can be waited for."""
        if self._server is not None:
            self._server.close()
        return self._server

    def _answer(self, websocket: ServerConnection, request: Request) -> Response:
        if not self._authorized(request):
            return response_of(UNAUTHORIZED)
        if not self._asked_by_name(request.headers.get_all("Host")):
            text = "this Host is not allowed here; --admin-name NAME allows it, and a token any\n"
            return answer(http.HTTPStatus.FORBIDDEN, text)
        path, _ = split_target(request.path)
        if path == "/status":
            return response_of(status(self._pool))
        if path == "/metrics":
            return response_of(metrics(self._pool))
        return answer(http.HTTPStatus.NOT_FOUND, "not here: /status and /metrics\n")

    def _authorized(self, request: Request) -> bool:
        if not self._token:
            return True
        said = request.headers.get_all("Authorization")
        return is_bearer([one.encode("utf-8", "surrogateescape") for one in said], self._token)

    def _asked_by_name(self, hosts: Sequence[str]) -> bool:
        """Whether the request names this listener, or proves by a token that it may ask.

        A stranger's page can have its own name resolve to loopback (DNS rebinding). Its requests
        then carry that name as their Host, so a name that is not known here is refused. An IP
        address cannot be rebound, and such a page does not have the token.
        """
        if self._token or "*" in self._names or not hosts:
            return True
        names = [host_name(host) for host in hosts]
        return all(name in self._names or _is_address(name) for name in names)

    async def _no_websockets(self, websocket: ServerConnection) -> None:
        """Do nothing; never called, since every request is answered above."""


def check_admin_host(host: str, token: str | None) -> None:
    """Refuse an admin listener that others can reach and that wants no token.

    Raises:
        InvalidValueError: ``host`` is not loopback, and there is no token.
    """
    if not token and not is_loopback(host):
        raise InvalidValueError(
            f"an admin listener on {shown(host)} needs a token: others can reach it"
        )


def host_name(host: str) -> str:
    """Return the name in a Host header: in lower case, without port, brackets and last dot."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
