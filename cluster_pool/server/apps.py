"""Handles open connections: an application serves them, or their messages are published to Redis.

Owns the tasks that run the application, reports of its errors and hangs, and the close after it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from websockets.asyncio.server import ServerConnection

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.client_frames import V1
from cluster_pool.core.closing import INTERNAL_ERROR, NORMAL
from cluster_pool.core.quiet import Quiet, fault, others
from cluster_pool.local import closing, handshake
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import begin_close
from cluster_pool.server.framed_clients import FramedClients
from cluster_pool.server.inbound import Inbound
from cluster_pool.server.websocket import NodeWebSocket

log = logging.getLogger("cluster_pool.server")

App = Callable[[ClusterPool, Connection], Awaitable[None]]
"""An application: called with each connection after its claim; its return closes with 1000."""


class Apps:
    """Runs the application for each connection.

    Args:
        app: None publishes what clients send to the inbound channel of their namespace.
        framed: serves clients of ``cluster-pool.v1``, if there is no application.
    """

    def __init__(self, pool: ClusterPool, app: App | None, framed: FramedClients | None) -> None:
        self._pool = pool
        self._app = app
        self._framed = framed
        self._inbound = Inbound(pool)
        self._running: dict[NodeWebSocket, asyncio.Task[Any]] = {}
        self._quiet = Quiet()

    @property
    def running(self) -> int:
        """The number of applications that have not returned."""
        return len(self._running)

    def cancel_all(self) -> None:
        """Cancel every application that has not returned."""
        for task in self._running.values():
            task.cancel()

    async def handle(self, websocket: ServerConnection) -> None:
        """Serve one connection whose handshake is done, and close it at the end."""
        assert isinstance(websocket, NodeWebSocket)
        connection = websocket.member
        assert connection is not None
        websocket.opened()
        handshake.release_hold(connection)
        if connection.closed:  # closed since its claim: it gets its messages, and then the close
            closing.silence(connection)
            await websocket.wait_closed()
            return
        code = NORMAL
        try:
            if self._app is not None:
                await self._run(self._app, websocket, connection)
            elif self._framed is not None and websocket.protocol.subprotocol == V1:
                await self._framed.serve(connection)
            else:
                await self._inbound.publish_all(connection)
        except Exception as error:
            code = INTERNAL_ERROR
            self._failed(connection, error)
        finally:
            begin_close(connection, code, "")
            closing.silence(connection)

    async def _run(self, app: App, websocket: NodeWebSocket, connection: Connection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running[websocket] = task
        try:
            await app(self._pool, connection)
        finally:
            del self._running[websocket]

    def _failed(self, connection: Connection, error: Exception) -> None:
        self._pool.counters.handler_errors += 1
        times = self._quiet.due(fault(error), asyncio.get_running_loop().time())
        if times:
            log.error("the app failed with %r%s", connection, others(times), exc_info=error)

    def client_gone(self, websocket: NodeWebSocket) -> None:
        """Give the application of a client that is gone its time to return."""
        if websocket in self._running:
            websocket.loop.call_later(self._pool.timing.handler, self._look_for_hang, websocket)

    def _look_for_hang(self, websocket: NodeWebSocket) -> None:
        """Report an application that has not returned, and so keeps its memory."""
        if websocket in self._running:
            self._pool.counters.handler_hangs += 1
            if times := self._quiet.due("hang", websocket.loop.time()):
                log.error(
                    "the app has not returned since the end of %r%s",
                    websocket.member,
                    others(times),
                )
