"""The admin listener, for those on this machine or with a token: ``/status``, ``/metrics``."""

import hmac
import http
import ipaddress
import json
import platform
from importlib.metadata import version
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.server.http import answer, split_target
from cluster_pool.server.metrics import CONTENT_TYPE, render


class AdminListener:
    """Answers plain GETs; those without the token, if there is one, with 401.

    Raises:
        InvalidValueError: it would listen elsewhere than on loopback without a token.
    """

    def __init__(
        self, pool: ClusterPool, port: int, host: str = "127.0.0.1", token: str | None = None
    ) -> None:
        if not token and not _is_loopback(host):
            raise InvalidValueError(
                f"an admin listener on {shown(host)} needs a token: others can reach it"
            )
        self._pool = pool
        self._host = host
        self._expected = f"Bearer {token}".encode() if token else None
        self.port = port
        self._server: Server | None = None

    async def start(self) -> None:
        """Listen; :attr:`port` then tells where. Raises OSError when the port cannot be had."""
        self._server = await serve(
            self._no_websockets,
            self._host,
            self.port,
            process_request=self._answer,
            server_header=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    def close(self) -> Server | None:
        """Stop listening; the server that is then waited for."""
        if self._server is not None:
            self._server.close()
        return self._server

    def status(self) -> dict[str, Any]:
        """What ``/status`` tells; nothing secret is in it."""
        return {
            **self._pool.statistics(),
            "redis": self._pool.address,
            "python": platform.python_version(),
            "websockets": version("websockets"),
            "redis_py": version("redis"),
        }

    def _answer(self, websocket: ServerConnection, request: Request) -> Response:
        if not self._authorized(request):
            response = answer(http.HTTPStatus.UNAUTHORIZED, "a token is wanted\n")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        path, _ = split_target(request.path)
        if path == "/status":
            text = json.dumps(self.status(), indent=2) + "\n"
            return answer(http.HTTPStatus.OK, text, kind="application/json")
        if path == "/metrics":
            return answer(http.HTTPStatus.OK, render(self._pool.statistics()), kind=CONTENT_TYPE)
        return answer(http.HTTPStatus.NOT_FOUND, "not here: /status and /metrics\n")

    def _authorized(self, request: Request) -> bool:
        if self._expected is None:
            return True
        said = request.headers.get_all("Authorization")
        return len(said) == 1 and hmac.compare_digest(
            said[0].encode("utf-8", "surrogateescape"), self._expected
        )

    async def _no_websockets(self, websocket: ServerConnection) -> None:
        """Never called: every request is answered above."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
