"""Every request to the port of the WebSockets, and its answer.

Owns the order of the checks: all other checks come before the claim, since a claim may take the id
from another connection. When a handshake is answered with 101, its connection is a member already.
"""

import http
import logging

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.rules import REWIND, NamespaceRules
from cluster_pool.cluster.answers import HEALTHY, readiness
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.client_frames import V1
from cluster_pool.core.closing import TAKEN_OVER
from cluster_pool.core.handshake import check_forms
from cluster_pool.core.ids import new_id, shown
from cluster_pool.core.proxies import Proxies
from cluster_pool.core.request import Request as KeptRequest
from cluster_pool.exceptions import (
    AuthenticationError,
    AuthenticationUnavailableError,
    ClusterPoolError,
    ConnectionClosedError,
    IdTakenError,
    InvalidValueError,
    MembershipLimitError,
    NodeDrainingError,
    NotPermittedError,
    OriginRefusedError,
)
from cluster_pool.local import attachment, handshake
from cluster_pool.local.connection import Connection
from cluster_pool.local.grant import Grant
from cluster_pool.server.framed_clients import FramedClients
from cluster_pool.server.handshake_bounds import peer_of
from cluster_pool.server.http import (
    Target,
    answer,
    come_back,
    response_of,
    split_target,
    target_of,
)
from cluster_pool.server.static import CLIENT_PATH, client_file
from cluster_pool.server.websocket import NodeWebSocket

log = logging.getLogger("cluster_pool.server")


class Handshakes:
    """Answers requests, and claims ids for those that ask for a WebSocket.

    Args:
        proxies: those whose headers about clients and hosts are trusted.
        auth: authenticates clients; None: any client may have any id in any namespace.
        rules: where clients may get messages of the past.
        framed: serves clients of ``cluster-pool.v1``; None: an application serves all, and
            connections keep their request for it.
    """

    def __init__(
        self,
        pool: ClusterPool,
        proxies: Proxies,
        auth: Auth | None,
        rules: NamespaceRules,
        framed: FramedClients | None,
    ) -> None:
        self._pool = pool
        self._rules = rules
        self._auth = auth
        self._proxies = proxies
        self._framed = framed
        self._keeps_requests = framed is None

    async def answer(self, websocket: ServerConnection, request: Request) -> Response | None:
        """The answer to a request; None lets the handshake of a member go on.

        Refusals are logged here, except those of claims, which the pool logs.
        """
        response = await self._answer(websocket, request)
        if response is not None and response.status_code in (400, 401, 403, 404, 426):
            status = f"{response.status_code} {response.reason_phrase}"
            path, _ = split_target(request.path)  # the query may have a token
            log.debug(
                "refused %s for %s: %s", peer_of(websocket.transport), shown(path, 200), status
            )
        return response

    async def _answer(self, websocket: ServerConnection, request: Request) -> Response | None:
        path, _ = split_target(request.path)
        if path == "/healthz":
            return response_of(HEALTHY)
        if path == "/readyz":
            return response_of(readiness(self._pool))
        if path == CLIENT_PATH:
            return response_of(client_file(request.method))
        try:
            target = target_of(request.path)
            if target is None:
                return answer(http.HTTPStatus.NOT_FOUND, "not here: /ws/NAMESPACE?id=ID\n")
            assert isinstance(websocket, NodeWebSocket)
            forwarded = request.headers.get_all("X-Forwarded-For")
            client = self._proxies.client(peer_of(websocket.transport), forwarded)
            refused = websocket.bounds.check(websocket, client)
            if refused is not None:
                return refused
            response = websocket.protocol.accept(request)
            if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
                check_forms(request.headers.get_all)  # the library's text would repeat a token
                return response
            self._check_origin(websocket, request)
            websocket.count_inflated()
            if websocket.newcomers.crowded(websocket.transport):
                return websocket.newcomers.refuse(websocket.transport)
            member = await self._member(websocket, request, target)
            return await self._claim(websocket, member, target) or response
        except InvalidValueError as error:
            return answer(http.HTTPStatus.BAD_REQUEST, f"{error}\n")
        except OriginRefusedError:
            return answer(http.HTTPStatus.FORBIDDEN, "this origin is not allowed\n")
        except AuthenticationError:
            challenge = {"WWW-Authenticate": "Bearer"}
            return answer(http.HTTPStatus.UNAUTHORIZED, "not authenticated\n", headers=challenge)
        except NotPermittedError:
            return answer(http.HTTPStatus.FORBIDDEN, "not permitted\n")
        except AuthenticationUnavailableError:
            return come_back("this client cannot be authenticated now\n")

    def _check_origin(self, websocket: ServerConnection, request: Request) -> None:
        headers = request.headers
        hosts = self._proxies.hosts(
            peer_of(websocket.transport),
            headers.get_all("Host"),
            headers.get_all("X-Forwarded-Host"),
        )
        self._pool.door.check_origin(headers.get_all("Origin"), hosts)

    async def _member(
        self, websocket: NodeWebSocket, request: Request, target: Target
    ) -> Connection:
        """The connection that the client asks for, if it may have it."""
        if target.rewind and not self._rules.permit(REWIND, target.namespace):
            raise NotPermittedError("no rule permits this")
        kept = None
        if self._keeps_requests or self._auth is not None:
            forwarded = request.headers.get_all("X-Forwarded-For")
            client = self._proxies.client(peer_of(websocket.transport), forwarded)
            # A target may be absolute: then, too, authentication sees the path that counts.
            where = "?".join(split_target(request.path))
            kept = KeptRequest.of_target(where, request.headers.raw_items(), client)
        identity, namespace, id = None, target.namespace, target.id
        if self._auth is not None:
            assert kept is not None
            identity, namespace, id = await self._pool.door.admit(
                kept, self._auth, None, namespace, id
            )
        if not self._keeps_requests:
            renews = kept is not None and websocket.protocol.subprotocol == V1
            kept = KeptRequest(kept.path, client=kept.client) if kept and renews else None
        info = None if identity is None else identity.info
        id = new_id() if id is None else id
        connection = Connection(id, namespace, websocket, request=kept, info=info)
        if identity is not None:
            attachment.grant(connection, Grant(identity, self._auth))
        return connection

    async def _claim(
        self, websocket: NodeWebSocket, connection: Connection, target: Target
    ) -> Response | None:
        """Make the connection a member; None when it is one, else the answer that refuses it."""
        if self._framed is not None and websocket.protocol.subprotocol == V1:
            handshake.hold(connection, self._framed.greet(websocket, connection))
        else:
            handshake.hold(connection)
        identity = connection.identity
        # An id that is only in the URL may be that of another user's connection.
        others = identity is not None and connection.id != identity.id
        try:
            on_conflict = "reject" if others else None
            await self._pool.new_connection(
                connection,
                on_conflict=on_conflict,
                rewind=target.rewind or None,
                since=target.since,
                resume=target.resume,
            )
        except IdTakenError:
            return answer(http.HTTPStatus.CONFLICT, "this id is taken\n")
        except ConnectionClosedError as error:
            if error.code != TAKEN_OVER:
                return come_back("closed meanwhile\n")
            # A newer connection has the id: the client gets 4409, as if it had been a member.
        except NodeDrainingError:
            return come_back("this node is draining\n")
        except MembershipLimitError as error:
            if error.limit == "user_connections":  # another node would refuse it, too
                status = http.HTTPStatus.TOO_MANY_REQUESTS
                return answer(status, "this user has too many connections\n")
            return come_back("this node is full\n")
        except (AuthenticationError, InvalidValueError):  # the token is revoked, the info too large
            raise
        except ClusterPoolError:
            return come_back("this node cannot reach its cluster\n")
        if self._framed is not None and websocket.protocol.subprotocol == V1:
            handshake.replace_first(connection, self._framed.welcome(connection))
        websocket.own(connection)
        return None
