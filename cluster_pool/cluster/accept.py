"""``ClusterPool.accept``: a member from its handshake to its end, around an endpoint's body."""

import contextlib
import http
import logging
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.identity import Identity
from cluster_pool.auth.tokens import answered_subprotocol
from cluster_pool.cluster.body import Body
from cluster_pool.cluster.door import Door
from cluster_pool.cluster.node import Node
from cluster_pool.core.closing import ABNORMAL, NORMAL, TAKEN_OVER
from cluster_pool.core.history import Wish
from cluster_pool.core.ids import new_id
from cluster_pool.core.request import Request
from cluster_pool.exceptions import (
    AuthenticationError,
    BackplaneUnavailableError,
    ClusterPoolError,
    ConnectionClosedError,
    IdTakenError,
    InvalidValueError,
    MembershipLimitError,
    MessageTooLargeError,
    NotPermittedError,
    OriginRefusedError,
    PoolClosedError,
    WrongLoopError,
)
from cluster_pool.local import attachment, closing, handshake, reading
from cluster_pool.local.connection import Connection
from cluster_pool.local.grant import Grant
from cluster_pool.local.outbox import begin_close
from cluster_pool.transports.base import Ahead
from cluster_pool.transports.pick import transport_for

log = logging.getLogger("cluster_pool.connection")

TOO_BIG: Final = 1009
FAILED: Final = 1011


def refusal(error: ClusterPoolError) -> tuple[int, str]:
    """The HTTP status and text for a refused client, without internals of this node."""
    if isinstance(error, InvalidValueError):
        return http.HTTPStatus.BAD_REQUEST, str(error)
    if isinstance(error, OriginRefusedError):
        return http.HTTPStatus.FORBIDDEN, "this origin is not allowed"
    if isinstance(error, AuthenticationError):
        return http.HTTPStatus.UNAUTHORIZED, "not authenticated"
    if isinstance(error, NotPermittedError):
        return http.HTTPStatus.FORBIDDEN, "not permitted"
    if isinstance(error, MembershipLimitError) and error.limit == "user_connections":
        return http.HTTPStatus.TOO_MANY_REQUESTS, "this user has too many connections"
    taken = isinstance(error, ConnectionClosedError) and error.code == TAKEN_OVER
    if taken or isinstance(error, IdTakenError):
        return http.HTTPStatus.CONFLICT, "this id is taken"
    return http.HTTPStatus.SERVICE_UNAVAILABLE, "this node takes no one now"


class Accepting:
    """The context manager of one connection, which :meth:`ClusterPool.accept` returns."""

    __slots__ = (
        *("_ahead", "_auth", "_body", "_connection", "_door", "_id", "_identity", "_info"),
        *("_idle_timeout", "_metadata", "_namespace", "_node", "_on_conflict", "_origins"),
        *("_request", "_running", "_subprotocol", "_user", "_websocket", "_wish"),
    )

    def __init__(
        self,
        websocket: Any,
        running: Callable[[], Node],
        door: Door,
        ahead: Ahead,
        *,
        auth: Auth | None,
        identity: Identity | None,
        namespace: str | None,
        id: str | None,
        user: str | None,
        info: Any,
        on_conflict: str | None,
        subprotocol: str | None,
        idle_timeout: float | None,
        metadata: dict[str, Any] | None,
        origins: Sequence[str] | None,
        request: Request | None,
        wish: Wish,
    ) -> None:
        self._websocket, self._request = websocket, request
        self._running = running
        self._door = door
        self._ahead = ahead
        self._auth = auth
        self._identity = identity
        self._namespace = namespace
        self._id, self._user = id, user
        self._info = info
        self._on_conflict = on_conflict
        self._subprotocol = subprotocol
        self._idle_timeout = idle_timeout
        self._metadata = metadata
        self._origins = origins
        self._wish = wish
        self._node: Node
        self._connection: Connection
        self._body: Body

    async def __aenter__(self) -> Connection:
        transport = transport_for(self._websocket)
        try:
            self._node = self._running()
            request = transport.request() if self._request is None else self._request
            self._check_door(request, answered=transport.is_answered())
            self._connection = await self._make(request)
        except WrongLoopError:
            raise
        except ClusterPoolError as error:
            if isinstance(error, PoolClosedError):
                self._door.found_closed()
            status, text = refusal(error)
            await transport.refuse(status, text)
            raise transport.refusal(error, status, text) from error.__cause__
        self._body = Body(self._connection)
        reading.watch(self._connection, self._body, self._ahead)
        try:
            await self._join()
        except BaseException:
            self._body.release_mates()
            await reading.unwatch(self._connection)
            raise
        return self._connection

    def _check_door(self, request: Request, *, answered: bool) -> None:
        door, origins = self._door, self._origins
        if origins is None and self._auth is not None:
            origins = self._auth.origins
        if origins is not None:
            door = door.with_origins(origins)
        if self._auth is not None:
            self._subprotocol = answered_subprotocol(request, self._subprotocol)
        door.check(request, self._subprotocol, answered=answered)

    async def _make(self, request: Request) -> Connection:
        identity, namespace, id = await self._door.admit(
            request, self._auth, self._identity, self._namespace, self._id, self._user
        )
        connection = Connection(
            new_id() if id is None else id,
            namespace,
            self._websocket,
            idle_timeout=self._idle_timeout,
            metadata=self._metadata,
            request=self._request,
            info=identity.info if self._info is None and identity is not None else self._info,
        )
        if identity is not None:
            attachment.grant(connection, Grant(identity, self._auth))
        handshake.hold(connection)
        return connection

    async def _join(self) -> None:
        connection = self._connection
        try:
            await self._node.rewinds.admit(
                self._node.admission, connection, self._on_conflict, self._wish, None
            )
        except ClusterPoolError as error:
            await self._refuse(error)
            raise handshake.refusal(connection, error, *refusal(error)) from error.__cause__
        try:
            await self._answer()
        except BaseException as error:
            await self._end(FAILED, error)
            raise
        self._body.begin()

    async def _refuse(self, error: ClusterPoolError) -> None:
        """Refuse a client with an HTTP status; one that was taken over gets its 4409 instead."""
        connection = self._connection
        if isinstance(error, ConnectionClosedError) and error.code == TAKEN_OVER:
            with contextlib.suppress(ConnectionClosedError, OSError, RuntimeError):
                await handshake.accept(connection, self._subprotocol)
        else:
            await handshake.refuse(connection, *refusal(error))

    async def _answer(self) -> None:
        connection = self._connection
        try:
            await handshake.accept(connection, self._subprotocol)
        except ConnectionClosedError as error:
            raise handshake.refusal(connection, error, *refusal(error)) from error.__cause__
        except (OSError, RuntimeError) as error:
            if not closing.is_lost(connection) and not isinstance(error, OSError):
                raise
            gone = ConnectionClosedError(connection.close_code or ABNORMAL)
            raise handshake.refusal(connection, gone, *refusal(gone)) from error

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        over = self._body.end(error)
        if isinstance(error, MessageTooLargeError):
            handshake.refusal(
                self._connection, error, http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)
            )
        try:
            code, reason = self._closing_of(error, over)
            await self._end(code, None if over else error, reason)
        finally:
            self._body.release_mates()
        return over

    def _closing_of(self, error: BaseException | None, over: bool) -> tuple[int, str]:
        if error is None or over:
            return NORMAL, ""
        if isinstance(error, MessageTooLargeError):
            return TOO_BIG, ""
        asked = isinstance(error, Exception) and handshake.closing_of(self._connection, error)
        return asked or (FAILED, "")

    async def _end(self, code: int, error: BaseException | None, reason: str = "") -> None:
        connection = self._connection
        begin_close(connection, code, reason)
        try:
            if error is None or isinstance(error, Exception):  # a cancelled body must not wait
                # A server cuts the socket when its endpoint returns.
                await closing.wait_close_begun(connection)
                await reading.tell_end(connection)
        finally:
            try:
                await self._node.admission.leave(connection, None, None)
            except BackplaneUnavailableError as unreleased:
                log.debug("released later: %s", unreleased)
            finally:
                await reading.unwatch(connection)
