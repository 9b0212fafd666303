"""The admin listener, for those on this machine only: ``/status``."""

import http
import json
import platform
from importlib.metadata import version
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.server.http import answer, split_target


class AdminListener:
    """Answers plain GETs on loopback."""

    def __init__(self, pool: ClusterPool, port: int) -> None:
        self._pool = pool
        self.port = port
        self._server: Server | None = None

    async def start(self) -> None:
        """Listen; :attr:`port` then tells where. Raises OSError when the port cannot be had."""
        self._server = await serve(
            self._no_websockets,
            "127.0.0.1",
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
        if split_target(request.path)[0] == "/status":
            text = json.dumps(self.status(), indent=2) + "\n"
            return answer(http.HTTPStatus.OK, text, kind="application/json")
        return answer(http.HTTPStatus.NOT_FOUND, "not here: /status\n")

    async def _no_websockets(self, websocket: ServerConnection) -> None:
        """Never called: every request is answered above."""
