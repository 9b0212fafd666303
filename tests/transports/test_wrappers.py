"""Wrappers of an ASGI ``send``: known ones are looked through, others are not."""

from typing import Any

from starlette._exception_handler import wrap_app_handling_exceptions
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from cluster_pool.transports.wrappers import innermost, is_of_server, name_of
from tests.support import async_test


class Server:
    """Stands for a server's object."""

    async def send(self, event: Any) -> None:
        """ASGI's."""

    async def receive(self) -> Any:
        """ASGI's."""
        return {"type": "websocket.connect"}


class Counting:
    """A middleware that sees every message."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(event: Any) -> None:
            await send(event)

        await self.app(scope, receive, counted)


async def found_by_an_endpoint(*middleware: Any, session: bool = False) -> tuple[Server, Any]:
    """The innermost ``send`` that an endpoint of Starlette sees under these."""
    found: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        found.append(innermost(websocket._send))

    app: Any = Starlette(
        routes=[WebSocketRoute("/", endpoint)], middleware=[Middleware(one) for one in middleware]
    )
    if session:
        app = _sessions()(app, "secret")
    server = Server()
    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "app": None}
    await app(scope, server.receive, server.send)
    return server, found[0]


def _sessions() -> Any:
    from starlette.middleware.sessions import SessionMiddleware

    return SessionMiddleware


@async_test
async def test_the_servers_send_is_found_under_starlettes_own_wrappers() -> None:
    """They look at answers to HTTP requests alone."""
    server, found = await found_by_an_endpoint()
    assert found == server.send


@async_test
async def test_a_middleware_that_sees_messages_is_not_looked_through() -> None:
    """Its own function is found instead of the server's."""
    _, found = await found_by_an_endpoint(Counting)
    assert name_of(found) == f"{__name__}.Counting.__call__.<locals>.counted"
    assert not is_of_server(found)


@async_test
async def test_a_function_that_only_has_the_name_of_a_known_wrapper_is_not_looked_through() -> None:
    """The module counts, too, and that it has a ``send`` of its own."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None: ...

    wrapped = wrap_app_handling_exceptions(nothing, WebSocket({"type": "websocket"}, None, None))  # type: ignore[arg-type]
    wrapped.__qualname__ = "wrap_app_handling_exceptions.<locals>.wrapped_app.<locals>.sender"
    assert innermost(wrapped) is wrapped
