"""WebSockets on a port, each a member of the cluster from before its handshake is answered.

Owns the listening sockets and what happens between a request and a handler. The pool does the
rest; draining and stopping are asked of it, in the right order, by :meth:`NodeServer.shut_down`.
"""

import asyncio
import contextlib
import http
import json
import logging
import platform
import socket
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.protocol import OPEN

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.closing import INTERNAL_ERROR, NORMAL, SERVICE_RESTART
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    IdTakenError,
    InvalidValueError,
    NodeDrainingError,
)
from cluster_pool.local.connection import Connection
from cluster_pool.server.http import NO_REQUEST, answer, come_back, target_of, wants_upgrade

log = logging.getLogger("cluster_pool.server")

App = Callable[[ClusterPool, Connection], Awaitable[None]]
"""What ``--app`` names: called after the claim; its return closes with 1000."""

BACKLOG = 4096
USER_TIMEOUT_MS = 30_000
"""Unacknowledged bytes on a dead path: the kernel cuts the socket after this long."""
COMPLAIN_EVERY = 10.0
"""Seconds between two log lines about inbound messages that could not be published."""


class NodeServer:
    """A started pool's listener.

    Args:
        pool: started; stopped by :meth:`shut_down`.
        host, port: where to listen; port 0 takes a free one, which :attr:`port` then tells.
        admin_port: of the admin listener on loopback; None for none, 0 for a free one.
        app: what deals with each connection; None publishes what clients send.
        compression: negotiate permessage-deflate, which costs 25 KiB and more per connection.
    """

    def __init__(
        self,
        pool: ClusterPool,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        admin_port: int | None = None,
        app: App | None = None,
        compression: bool = False,
    ) -> None:
        self._pool = pool
        self._host = host
        self.port = port
        self.admin_port = admin_port
        self._app = app
        self._compression = compression
        self._claimed: dict[ServerConnection, Connection] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._server: Server | None = None
        self._admin: Server | None = None
        self._complain_after = 0.0

    # -- lifetime --------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises OSError when the port cannot be had."""
        self._server = await serve(
            self._handle,
            self._host,
            self.port,
            process_request=self._request,
            compression="deflate" if self._compression else None,
            max_size=self._pool.limits.message_bytes,
            server_header=None,
            backlog=BACKLOG,
        )
        self.port = _port_of(self._server)
        for listener in self._server.sockets:
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        if self.admin_port is not None:
            self._admin = await serve(
                self._handle,
                "127.0.0.1",
                self.admin_port,
                process_request=self._admin_request,
                server_header=None,
            )
            self.admin_port = _port_of(self._admin)

    async def shut_down(self, rate: float, grace: float) -> None:
        """Close every connection at a pace, leave the cluster, stop listening.

        From the first moment ``/readyz`` and new upgrades get 503.

        Args:
            rate: closes per second; raised as far as needed to be done within 80 % of ``grace``.
            grace: seconds after which whatever is left is closed at once.
        """
        count = self._pool.statistics()["connections"]
        pace = max(rate, count / (grace * 0.8))
        if pace > rate:
            log.warning("closing at %.0f a second, not %.0f, to keep the grace", pace, rate)
        try:
            async with asyncio.timeout(grace):
                await self._pool.drain_connections(pace, code=SERVICE_RESTART)
        except TimeoutError:
            log.warning("the grace is over with connections left")
        await self.stop()

    async def stop(self) -> None:
        """Close what is left with 1012, leave the cluster, stop listening."""
        await self._pool.stop()
        for server in (self._server, self._admin):
            if server is not None:
                server.close()
                for websocket in server.all_connections:
                    websocket.transport.abort()
                await server.wait_closed()
        await asyncio.gather(*self._releases, return_exceptions=True)

    # -- requests --------------------------------------------------------------------------

    async def _request(self, websocket: ServerConnection, request: Request) -> Response | None:
        """Answer a request, or claim the member it wants to be and let the handshake go on."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return answer(http.HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            return self._readiness()
        try:
            target = target_of(request.path)
            if target is None:
                return answer(http.HTTPStatus.NOT_FOUND, "not here: /ws/NAMESPACE?id=ID\n")
            if not wants_upgrade(request):
                return None
            return await self._claim(websocket, Connection(target.id, target.namespace, websocket))
        except InvalidValueError as error:
            return answer(http.HTTPStatus.BAD_REQUEST, f"{error}\n")

    def _readiness(self) -> Response:
        if self._pool.ready:
            return answer(http.HTTPStatus.OK, "ready\n")
        return come_back(f"not ready: {self._pool.state.value}\n")

    async def _claim(self, websocket: ServerConnection, connection: Connection) -> Response | None:
        connection.hold()
        try:
            await self._pool.new_connection(connection)
        except IdTakenError:
            return answer(http.HTTPStatus.CONFLICT, "this id is taken\n")
        except NodeDrainingError:
            return come_back("this node is draining\n")
        except ClusterPoolError as error:
            log.debug("no claim for %r: %s", connection, error)
            return come_back("this node cannot reach its cluster\n")
        self._claimed[websocket] = connection
        websocket.connection_lost_waiter.add_done_callback(lambda _: self._lost(websocket))
        return None

    def _lost(self, websocket: ServerConnection) -> None:
        """The client went away before its handshake was answered: release what was claimed."""
        connection = self._claimed.pop(websocket, None)
        if connection is not None:
            task = asyncio.create_task(self._release(connection))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def _release(self, connection: Connection) -> None:
        with contextlib.suppress(BackplaneUnavailableError):
            await self._pool.remove_connection(connection)

    # -- connections -----------------------------------------------------------------------

    async def _handle(self, websocket: ServerConnection) -> None:
        connection = self._claimed.pop(websocket)
        websocket.request, websocket.response = NO_REQUEST, None
        if connection.closed:
            await websocket.close(connection.close_code or NORMAL, connection.close_reason)
            return
        connection.release_hold()
        code = NORMAL
        try:
            if self._app is None:
                await self._publish(connection)
            else:
                await self._app(self._pool, connection)
        except Exception:
            code = INTERNAL_ERROR
            self._pool.counters.handler_errors += 1
            log.exception("the app failed with %r", connection)
        finally:
            if websocket.protocol.state is OPEN:
                connection.begin_close(code, "")
            await self._release(connection)

    async def _publish(self, connection: Connection) -> None:
        """Publish what the client sends; what cannot be published is counted and dropped."""
        async for message in connection:
            try:
                await self._pool.publish_inbound(connection, message)
            except ClusterPoolError as error:
                self._pool.counters.inbound_lost += 1
                now = asyncio.get_running_loop().time()
                if now >= self._complain_after:
                    self._complain_after = now + COMPLAIN_EVERY
                    log.warning("inbound messages are lost: %s", shown(str(error), 200))

    # -- admin -----------------------------------------------------------------------------

    def _admin_request(self, websocket: ServerConnection, request: Request) -> Response:
        if request.path == "/status":
            text = json.dumps(self.status(), indent=2) + "\n"
            return answer(http.HTTPStatus.OK, text, kind="application/json")
        return answer(http.HTTPStatus.NOT_FOUND, "not here: /status\n")

    def status(self) -> dict[str, Any]:
        """What the admin listener tells; nothing secret is in it."""
        return {
            **self._pool.statistics(),
            "redis": self._pool.address,
            "python": platform.python_version(),
            "websockets": version("websockets"),
        }


def _port_of(server: Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port
