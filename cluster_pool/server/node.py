"""WebSockets on a port, each a member of the cluster from before its handshake is answered.

Owns the listening sockets, and the order in which the listeners start and stop. :mod:`.handshakes`
answers requests, :mod:`.apps` serves open connections, and the pool does the rest, such as drains;
:meth:`NodeServer.stop` ends both, in the right order.
"""

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.rules import NamespaceRules, with_rules
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.handshake import check_subprotocols
from cluster_pool.core.proxies import Proxies
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.server.admin import AdminListener
from cluster_pool.server.agent import AgentListener
from cluster_pool.server.apps import App, Apps
from cluster_pool.server.disconnect_queue import DisconnectQueue
from cluster_pool.server.framed_clients import PUBLISHED_PER_SECOND, FramedClients
from cluster_pool.server.handshake_bounds import MAX_HANDSHAKES, HandshakeBounds
from cluster_pool.server.handshakes import Handshakes
from cluster_pool.server.http import choose_subprotocol, without_body_for_head
from cluster_pool.server.intake import Intake
from cluster_pool.server.keepalive import PING_INTERVAL, Keepalive
from cluster_pool.server.newcomers import Newcomers
from cluster_pool.server.turns import Turns
from cluster_pool.server.websocket import NodeWebSocket
from cluster_pool.transports.deflate import SHARED

log = logging.getLogger("cluster_pool.server")

BACKLOG: Final = 4096
"""Connections that may wait to be accepted; the kernel's limit (somaxconn) may be lower."""
ACCEPTS: Final = 8
"""Connections that are accepted in one turn of the loop; each costs 0.4 ms until it is open."""
USER_TIMEOUT_MS: Final = 30_000
"""Unacknowledged bytes on a dead path: the kernel cuts the socket after this long."""
PATIENCE: Final = 1.0
"""Seconds, when the node stops, for clients to answer a close, and then for apps to return."""


class NodeServer:
    """The listeners of a pool.

    Args:
        pool: started, or started by :meth:`start_with`; stopped by :meth:`stop`.

    The other arguments are the settings of the same name: see :class:`.settings.NodeSettings`.

    Attributes:
        port: the port of the WebSockets; for 0, the free one that was chosen, once it listens.
    """

    def __init__(
        self,
        pool: ClusterPool,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        admin_port: int | None = None,
        admin_host: str = "127.0.0.1",
        admin_token: str | None = None,
        admin_names: Sequence[str] = (),
        agent_port: int | None = None,
        agent_host: str = "127.0.0.1",
        subprotocols: Sequence[str] = (),
        forwarded_allow_ips: str | Sequence[str] | None = None,
        auth: Auth | None = None,
        namespace_rules: Sequence[str] = (),
        published_per_second: int = PUBLISHED_PER_SECOND,
        app: App | None = None,
        compression: bool = False,
        ping_interval: float = PING_INTERVAL,
        max_handshakes: int = MAX_HANDSHAKES,
        max_per_address: int | None = None,
    ) -> None:
        self._pool = pool
        self._host = host
        self.port = port
        self._admin = _admin_of(pool, admin_port, admin_host, admin_token, admin_names)
        self._agent = None if agent_port is None else AgentListener(pool, agent_port, agent_host)
        self._subprotocols = check_subprotocols(subprotocols)
        self._compression = compression
        proxies = Proxies(forwarded_allow_ips)
        rules = NamespaceRules(namespace_rules)
        self._framed = FramedClients(pool, rules, published_per_second) if app is None else None
        self._handshakes = Handshakes(pool, proxies, with_rules(auth, rules), rules, self._framed)
        self._bounds = HandshakeBounds(pool.counters, proxies, max_handshakes, max_per_address)
        self._apps = Apps(pool, app, self._framed)
        self._keepalive = Keepalive(ping_interval)
        self._intake: Intake | None = None
        self._server: Server | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def admin_port(self) -> int | None:
        """The port of the admin listener; None if there is none."""
        return None if self._admin is None else self._admin.port

    @property
    def agent_port(self) -> int | None:
        """The port of HAProxy's agent-check; None if there is none."""
        return None if self._agent is None else self._agent.port

    # -- lifetime --------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen.

        Raises:
            InvalidValueError: the host or a port cannot be had.
        """
        intake = self._intake = Intake(self._pool.inbound, self._pool.limits)
        newcomers = Newcomers(self._pool.counters)
        with _explained(f"{self._host} port {self.port}"):
            self._server = await self._listen(intake, newcomers)
        if self._admin is not None:
            with _explained(f"the admin port {self._admin.port}"):
                await self._admin.start(newcomers)
        if self._agent is not None:
            with _explained(f"the agent port {self._agent.port}"):
                await self._agent.start(newcomers)
        self._keepalive.start()

    async def start_with(self, starting: Coroutine[Any, Any, Any]) -> None:
        """Listen while the pool starts, which may have to wait: newcomers get 503 until it is up.

        Args:
            starting: the start of the pool.

        Raises:
            InvalidValueError: the host or a port cannot be had; the pool is not started then.
            Errors of the pool's start.
        """
        joining = asyncio.ensure_future(starting)
        try:
            await asyncio.sleep(0)  # let the start make the parts of the pool
            if not joining.done():
                await self.start()
            await joining
        finally:
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)

    async def _listen(self, intake: Intake, newcomers: Newcomers) -> Server:
        made = functools.partial(
            NodeWebSocket,
            keepalive=self._keepalive,
            disconnects=DisconnectQueue(),
            intake=intake,
            turns=Turns(),
            newcomers=newcomers,
            bounds=self._bounds,
            on_gone=self._apps.client_gone,
        )
        server = await serve(
            self._apps.handle,
            self._host,
            self.port,
            process_request=self._handshakes.answer,
            process_response=without_body_for_head,
            compression=None,  # its own is made anew for each connection
            extensions=[SHARED] if self._compression else None,
            subprotocols=[Subprotocol(name) for name in self._subprotocols],
            select_subprotocol=functools.partial(
                choose_subprotocol, framed=self._framed is not None
            ),
            max_size=self._pool.limits.message_bytes,
            max_queue=None,  # the intake counts bytes, not frames
            server_header=None,
            ping_interval=None,
            create_connection=cast("type[ServerConnection]", made),
            backlog=ACCEPTS,  # asyncio accepts as many in a turn as it lets wait; uvloop one
        )
        self.port = next(iter(server.sockets)).getsockname()[1]
        for listener in server.sockets:
            _set_up(listener)
        return server

    async def stop(self) -> None:
        """Close all connections with 1012, stop the pool, stop listening; within seconds.

        Clients that do not answer their close are cut after ``PATIENCE``, and apps that do not
        return are cancelled.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._pool.stop())
        try:
            if not await _done_in_time(self._stopping):
                self._keepalive.abort_all()
            await asyncio.shield(self._stopping)
        finally:
            await self._stop_listening()

    async def _stop_listening(self) -> None:
        await self._keepalive.stop()
        self._bounds.stop()
        if self._intake is not None:
            self._intake.stop()
        if self._agent is not None:
            self._agent.close()
        servers = [self._server, None if self._admin is None else self._admin.close()]
        for server in filter(None, servers):
            server.close()
            self._keepalive.abort_all()
            closed = asyncio.create_task(server.wait_closed())
            if not await _done_in_time(closed):
                self._apps.cancel_all()
                if not await _done_in_time(closed):
                    log.warning("%d apps do not end", self._apps.running)
                    closed.cancel()


def _admin_of(
    pool: ClusterPool, port: int | None, host: str, token: str | None, names: Sequence[str]
) -> AdminListener | None:
    return None if port is None else AdminListener(pool, port, host, token, names)


def _set_up(listener: socket.socket) -> None:
    """Allow more waiting connections than are accepted in a turn; let the kernel cut dead ones."""
    with socket.fromfd(listener.fileno(), listener.family, listener.type) as same:
        same.listen(BACKLOG)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:  # UnicodeError for an invalid host name
        why = getattr(error, "strerror", None) or error
        raise InvalidValueError(f"cannot listen on {where}: {why}") from error


async def _done_in_time(task: "asyncio.Task[Any]") -> bool:
    done, _ = await asyncio.wait((task,), timeout=PATIENCE)
    return bool(done)
