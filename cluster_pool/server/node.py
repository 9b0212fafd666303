"""WebSockets on a port, each a member of the cluster from before its handshake is answered.

Owns the listening sockets and what happens between a request and a handler. The pool does the
rest, draining among it; :meth:`NodeServer.stop` ends both, in the right order.
"""

import asyncio
import contextlib
import functools
import http
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.closing import INTERNAL_ERROR, NORMAL, TAKEN_OVER
from cluster_pool.core.handshake import check_subprotocols
from cluster_pool.core.ids import shown
from cluster_pool.core.proxies import Proxies
from cluster_pool.core.quiet import Quiet, fault, others
from cluster_pool.core.request import Request as Asked
from cluster_pool.exceptions import (
    ClusterPoolError,
    ConnectionClosedError,
    IdTakenError,
    InvalidValueError,
    NodeDrainingError,
    OriginRefusedError,
)
from cluster_pool.local.connection import Connection
from cluster_pool.server.admin import AdminListener
from cluster_pool.server.agent import AgentListener
from cluster_pool.server.disconnect_queue import DisconnectQueue
from cluster_pool.server.http import (
    NO_REQUEST,
    Target,
    answer,
    choose_subprotocol,
    come_back,
    split_target,
    target_of,
    unlocated,
    without_body_for_head,
)
from cluster_pool.server.inbound import Inbound
from cluster_pool.server.intake import Intake
from cluster_pool.server.keepalive import Keepalive, NodeWebSocket
from cluster_pool.server.newcomers import Newcomers
from cluster_pool.server.turns import Turns

log = logging.getLogger("cluster_pool.server")

App = Callable[[ClusterPool, Connection], Awaitable[None]]
"""What ``--app`` names: called after the claim; its return closes with 1000."""

BACKLOG = 4096
"""Connections that may wait for being accepted; the kernel's limit (somaxconn) may be lower."""
ACCEPTS = 8
"""Of them are accepted in one turn of the loop, each of which costs 0.4 ms until it is open."""
PING_INTERVAL = 20.0
"""Seconds."""
USER_TIMEOUT_MS = 30_000
"""Unacknowledged bytes on a dead path: the kernel cuts the socket after this long."""
PATIENCE = 1.0
"""Seconds, when the node stops, for clients to answer a close, and then for apps to return."""


class NodeServer:
    """A started pool's listener.

    Args:
        pool: started, or started by :meth:`start_with`; stopped by :meth:`stop`.
        host, port: where to listen; port 0 takes a free one, which :attr:`port` then tells.
        admin_port: of the admin listener; None for none, 0 for a free one.
        admin_host, admin_token: where it listens, and what it wants as ``Authorization: Bearer``;
            elsewhere than on loopback a token is a must.
        admin_names: names by which it may be asked for without a token, besides ``localhost``,
            ``admin_host`` and IP addresses; ``*`` for any.
        agent_port: where HAProxy's agent-check is answered; None for nowhere, 0 for a free one.
        agent_host: on which address.
        subprotocols: what is spoken, the best one first: an offer without any of them is refused
            with 400, and who offers nothing is answered without. None of them: offers are ignored.
        forwarded_allow_ips: addresses and networks of the proxies that are believed in
            ``X-Forwarded-For`` (whose address a client has) and ``X-Forwarded-Host`` (which host it
            asked for); ``*`` for everybody. None: nobody.
        app: what deals with each connection; None publishes what clients send. It is not cancelled
            when its connection has ended (``connection.closed`` tells), but when the node stops.
        compression: negotiate permessage-deflate, which costs 25 KiB and more per connection.
        ping_interval: seconds between pings; a client that says nothing at all from one to the
            next is closed with 1011.
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
        app: App | None = None,
        compression: bool = False,
        ping_interval: float = PING_INTERVAL,
    ) -> None:
        self._pool = pool
        self._host = host
        self.port = port
        self._admin = (
            None
            if admin_port is None
            else AdminListener(pool, admin_port, admin_host, admin_token, admin_names)
        )
        self._agent = None if agent_port is None else AgentListener(pool, agent_port, agent_host)
        self._subprotocols = check_subprotocols(subprotocols)
        self._proxies = Proxies(forwarded_allow_ips)
        self._app = app
        self._running: dict[NodeWebSocket, asyncio.Task[Any]] = {}
        self._inbound = Inbound(pool)
        self._compression = compression
        self._keepalive = Keepalive(ping_interval, self._client_gone)
        self._intake: Intake | None = None
        self._server: Server | None = None
        self._quiet = Quiet()
        self._leaving: asyncio.Task[None] | None = None

    @property
    def admin_port(self) -> int | None:
        """Of the admin listener; None for none."""
        return None if self._admin is None else self._admin.port

    @property
    def agent_port(self) -> int | None:
        """Where HAProxy's agent-check is answered; None for nowhere."""
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
            What the start of the pool raises.
        """
        joining = asyncio.ensure_future(starting)
        try:
            await asyncio.sleep(0)  # what belongs to the pool is made when its start begins
            if not joining.done():
                await self.start()
            await joining
        finally:
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)

    async def _listen(self, intake: Intake, newcomers: Newcomers) -> Server:
        server = await serve(
            self._handle,
            self._host,
            self.port,
            process_request=self._answer,
            process_response=without_body_for_head,
            compression="deflate" if self._compression else None,
            subprotocols=[Subprotocol(name) for name in self._subprotocols],
            select_subprotocol=choose_subprotocol,
            max_size=self._pool.limits.message_bytes,
            max_queue=None,  # the intake counts bytes, not frames
            server_header=None,
            ping_interval=None,
            create_connection=cast(
                "type[ServerConnection]",
                functools.partial(
                    NodeWebSocket,
                    keepalive=self._keepalive,
                    departures=DisconnectQueue(),
                    intake=intake,
                    turns=Turns(),
                    newcomers=newcomers,
                ),
            ),
            backlog=ACCEPTS,  # asyncio accepts as many in a turn as it lets wait; uvloop one
        )
        self.port = next(iter(server.sockets)).getsockname()[1]
        for listener in server.sockets:
            with socket.fromfd(listener.fileno(), listener.family, listener.type) as same:
                same.listen(BACKLOG)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        return server

    async def stop(self) -> None:
        """Close what is left with 1012, leave the cluster, stop listening; within seconds.

        Clients that do not answer their close, and apps that do not return, are cut after
        ``PATIENCE``.
        """
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._pool.stop())
        try:
            if not await _done_in_time(self._leaving):
                self._keepalive.abort_all()
            await asyncio.shield(self._leaving)
        finally:
            await self._stop_listening()

    async def _stop_listening(self) -> None:
        await self._keepalive.stop()
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
                for task in self._running.values():
                    task.cancel()
                if not await _done_in_time(closed):
                    log.warning("%d apps do not end", len(self._running))
                    closed.cancel()

    # -- requests --------------------------------------------------------------------------

    async def _answer(self, websocket: ServerConnection, request: Request) -> Response | None:
        """Answer a request, and log who is refused; refused claims the pool logs."""
        response = await self._request(websocket, request)
        if response is not None and response.status_code in (400, 403, 404, 426):
            status = f"{response.status_code} {response.reason_phrase}"
            log.debug("refused %s for %s: %s", _peer(websocket), shown(request.path, 200), status)
        return response

    async def _request(self, websocket: ServerConnection, request: Request) -> Response | None:
        """Answer a request, or claim the member it wants to be and let the handshake go on."""
        path, _ = split_target(request.path)
        if path == "/healthz":
            return answer(http.HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            return self._readiness()
        try:
            target = target_of(request.path)
            if target is None:
                return answer(http.HTTPStatus.NOT_FOUND, "not here: /ws/NAMESPACE?id=ID\n")
            # Whatever can be refused is, before the claim takes the id from somebody.
            response = websocket.protocol.accept(request)
            if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
                return response
            self._check_origin(websocket, request)
            assert isinstance(websocket, NodeWebSocket)
            websocket.count_inflated()
            if websocket.newcomers.crowded(websocket.transport):
                return websocket.newcomers.turn_away(websocket.transport)
            member = self._member(websocket, request, target)
            return await self._claim(websocket, member) or response
        except InvalidValueError as error:
            return answer(http.HTTPStatus.BAD_REQUEST, f"{error}\n")
        except OriginRefusedError:
            return answer(http.HTTPStatus.FORBIDDEN, "this origin is not allowed\n")

    def _check_origin(self, websocket: ServerConnection, request: Request) -> None:
        headers = request.headers
        hosts = self._proxies.hosts(
            _peer(websocket), headers.get_all("Host"), headers.get_all("X-Forwarded-Host")
        )
        self._pool.door.check_origin(headers.get_all("Origin"), hosts)

    def _member(self, websocket: NodeWebSocket, request: Request, target: Target) -> Connection:
        """The connection to be; it keeps its request if there is an app that may ask for it."""
        kept = None
        if self._app is not None:
            forwarded = request.headers.get_all("X-Forwarded-For")
            client = self._proxies.client(_peer(websocket), forwarded)
            kept = Asked.of_target(request.path, request.headers.raw_items(), client)
        return Connection(target.id, target.namespace, websocket, request=kept)

    def _readiness(self) -> Response:
        if self._pool.ready:
            return answer(http.HTTPStatus.OK, "ready\n")
        trouble = unlocated(self._pool.trouble, self._pool.address)
        why = f": {trouble}" if trouble else ""
        return come_back(f"not ready: {self._pool.state.value}{why}\n")

    async def _claim(self, websocket: NodeWebSocket, connection: Connection) -> Response | None:
        connection.hold()
        try:
            await self._pool.new_connection(connection)
        except IdTakenError:
            return answer(http.HTTPStatus.CONFLICT, "this id is taken\n")
        except ConnectionClosedError as error:
            if error.code != TAKEN_OVER:
                return come_back("closed meanwhile\n")
            # A newer connection has the id: the client learns it from the close code, as any other.
        except NodeDrainingError:
            return come_back("this node is draining\n")
        except ClusterPoolError:
            return come_back("this node cannot reach its cluster\n")
        websocket.own(connection)
        return None

    # -- connections -----------------------------------------------------------------------

    async def _handle(self, websocket: ServerConnection) -> None:
        assert isinstance(websocket, NodeWebSocket)
        connection = websocket.member
        assert connection is not None
        websocket.request, websocket.response = NO_REQUEST, None
        websocket.handled = True
        websocket.read_on()
        connection.release_hold()
        if connection.closed:  # since its claim: it got what was sent to it, and then the close
            connection.silence()
            await websocket.wait_closed()
            return
        code = NORMAL
        try:
            if self._app is None:
                await self._inbound.publish_all(connection)
            else:
                await self._run_app(self._app, websocket, connection)
        except Exception as error:
            code = INTERNAL_ERROR
            self._app_failed(connection, error)
        finally:
            connection.begin_close(code, "")
            connection.silence()

    def _app_failed(self, connection: Connection, error: Exception) -> None:
        self._pool.counters.handler_errors += 1
        times = self._quiet.due(fault(error), asyncio.get_running_loop().time())
        if times:
            log.error("the app failed with %r%s", connection, others(times), exc_info=error)

    async def _run_app(self, app: App, websocket: NodeWebSocket, connection: Connection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running[websocket] = task
        try:
            await app(self._pool, connection)
        finally:
            del self._running[websocket]

    def _client_gone(self, websocket: NodeWebSocket) -> None:
        if websocket in self._running:
            websocket.loop.call_later(self._pool.timing.handler, self._look_for_hang, websocket)

    def _look_for_hang(self, websocket: NodeWebSocket) -> None:
        """An app that never returns holds what it holds; say so, once."""
        if websocket in self._running:
            self._pool.counters.handler_hangs += 1
            if times := self._quiet.due("hang", websocket.loop.time()):
                log.error(
                    "the app has not returned since the end of %r%s",
                    websocket.member,
                    others(times),
                )


def _peer(websocket: ServerConnection) -> str | None:
    """The address that the request comes from; None for a unix socket, or one that is gone."""
    name = websocket.transport.get_extra_info("peername")
    return name[0] if isinstance(name, tuple) else None


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:  # the latter for a name that is none
        why = getattr(error, "strerror", None) or error
        raise InvalidValueError(f"cannot listen on {where}: {why}") from error


async def _done_in_time(task: "asyncio.Task[Any]") -> bool:
    done, _ = await asyncio.wait((task,), timeout=PATIENCE)
    return bool(done)
