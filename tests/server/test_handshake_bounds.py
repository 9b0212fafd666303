"""Bounds before authentication: handshakes, addresses, headers, and the time for them."""

import asyncio
import contextlib
import logging
import socket

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster_pool import Auth, Identity, InvalidValueError, Request
from cluster_pool.server import handshake_bounds
from cluster_pool.server.settings import NodeSettings
from tests.server.running import first_line, node, url
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import in_thread


async def status(where: str, **options: object) -> int:
    """The status of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(where, **options)  # type: ignore[arg-type]
    return refused.value.response.status_code


@async_test
async def test_too_many_handshakes_get_503_and_health_checks_their_answer(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are open do not count, and a place is free again when one is answered."""
    go = asyncio.Event()

    async def authenticate(request: Request) -> Identity:
        await go.wait()
        return Identity(namespace="room")

    caplog.set_level(logging.DEBUG, "cluster_pool.server")
    auth = Auth(authenticate=authenticate)
    async with node(own_server, auth=auth, max_handshakes=2) as (pool, server):
        waiting = [asyncio.create_task(connect(url(server, id)).__aenter__()) for id in "ab"]
        await eventually(lambda: len(server._bounds._under_way) == 2)
        assert await status(url(server, "c")) == 503
        assert pool.statistics()["handshakes_refused"] == 1
        assert "too many handshakes" in caplog.text
        ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        assert b"200" in await in_thread(lambda: first_line(server.port, ask))
        go.set()
        clients = await asyncio.gather(*waiting)
        async with connect(url(server, "c")):
            assert not server._bounds._under_way
        for client in clients:
            await client.close()


@async_test
async def test_others_see_the_info_of_an_identity(own_server: RedisServer) -> None:
    """As with ``accept``; one that is too large is refused, and not as a want of Redis."""

    def authenticate(request: Request) -> Identity:
        name = "Alice" if "id=a" in request.query_string else "A" * 2000
        return Identity(user="42", namespace="room", info={"name": name})

    async with node(own_server, auth=Auth(authenticate=authenticate)) as (pool, server):
        async with connect(url(server, "a")):
            (member,) = [one async for one in pool.members("room")]
            assert (member.user, member.info) == ("42", {"name": "Alice"})
        assert await status(url(server, "b")) == 400

        async def nobody() -> bool:
            return await pool.online("42") == {"42": 0}

        await eventually(nobody)


@async_test
async def test_sockets_far_above_the_limit_are_answered_at_once(own_server: RedisServer) -> None:
    """Without a request from them."""
    async with node(own_server, max_handshakes=1) as (pool, server):
        with contextlib.ExitStack() as stack:
            for _ in range(1 + handshake_bounds.SPARE):
                opened = socket.create_connection(("127.0.0.1", server.port))
                stack.enter_context(contextlib.closing(opened))
            most = 1 + handshake_bounds.SPARE
            await eventually(lambda: len(server._bounds._under_way) == most)
            assert b"503" in await in_thread(lambda: first_line(server.port, b""))
        await eventually(lambda: not server._bounds._under_way)
        async with connect(url(server, "a")):
            assert pool.statistics()["handshakes_refused"] == 1


@async_test
async def test_an_address_has_so_many_connections(own_server: RedisServer) -> None:
    """Open ones count, too; one that goes leaves its place."""
    async with node(own_server, max_per_address=2) as (pool, server):
        async with connect(url(server, "a")), connect(url(server, "b")) as second:
            assert await status(url(server, "c")) == 429
            assert pool.statistics()["addresses_refused"] == 1
            await second.close()
            await eventually(lambda: len(server._bounds._addresses) == 1)
            async with connect(url(server, "c")):
                assert await pool.count("room") == 2
        await eventually(lambda: not server._bounds._of_address)


@async_test
async def test_behind_a_trusted_proxy_its_clients_are_counted(own_server: RedisServer) -> None:
    """By the header of the proxy; a client without a trusted proxy cannot name another address."""

    def of(address: str) -> dict[str, object]:
        return {"additional_headers": {"X-Forwarded-For": address}}

    options = {"max_per_address": 1, "forwarded_allow_ips": "127.0.0.1"}
    async with (
        node(own_server, **options) as (_, server),
        connect(url(server, "a"), **of("198.51.100.1")),  # type: ignore[arg-type]
        connect(url(server, "b"), **of("198.51.100.2")),  # type: ignore[arg-type]
    ):
        assert await status(url(server, "c"), **of("198.51.100.1")) == 429
    async with (
        node(own_server, max_per_address=1) as (_, server),
        connect(url(server, "a"), **of("198.51.100.1")),  # type: ignore[arg-type]
    ):
        assert await status(url(server, "b"), **of("198.51.100.2")) == 429


@async_test
async def test_large_headers_get_431(own_server: RedisServer) -> None:
    """Many short lines, of which none is too long by itself."""
    async with node(own_server) as (pool, server):
        lines = b"".join(b"X-%d: %s\r\n" % (at, b"x" * 1000) for at in range(40))
        large = b"GET /ws/room?id=a HTTP/1.1\r\n" + lines + b"\r\n"
        assert b"431" in await in_thread(lambda: first_line(server.port, large))
        assert pool.statistics()["requests_too_large"] == 1


@async_test
async def test_a_request_that_does_not_come_gets_408(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line now and then does not help; an open WebSocket has all the time it wants."""
    monkeypatch.setattr(handshake_bounds, "HEADER_SECONDS", 1.0)
    async with node(own_server) as (pool, server), connect(url(server, "a")) as client:
        begun = b"GET /ws/room?id=b HTTP/1.1\r\n"
        assert b"408" in await in_thread(lambda: first_line(server.port, begun))
        assert pool.statistics()["requests_late"] == 1
        await pool.broadcast_message("room", "still here")
        assert await asyncio.wait_for(client.recv(), 20) == "still here"


def test_bad_bounds_are_refused() -> None:
    """Before anything is started."""
    for options in ({"max_handshakes": 0}, {"max_handshakes": None}, {"max_per_address": True}):
        with pytest.raises(InvalidValueError, match="max_"):
            NodeSettings(**options)  # type: ignore[arg-type]
