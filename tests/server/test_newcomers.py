"""New sockets: their limit, and the answers to bytes that are no request."""

import asyncio
import contextlib
import http.client
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from cluster_pool.server.admin import host_name
from cluster_pool.server.newcomers import protocol_of
from tests.server.running import (
    HANDSHAKE,
    KEY,
    first_line,
    node,
    whole_answer,
)
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread


@contextlib.contextmanager
def sockets(port: int, count: int, request: str = "") -> Iterator[list[socket.socket]]:
    """So many sockets that have sent their request; all are closed at the end."""
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.settimeout(10)
            with contextlib.suppress(OSError):
                one.sendall(request.format(id=number, key=KEY).encode())
            made.append(one)
        yield made


def status(node: NodeProcess) -> dict[str, Any]:
    code, body, _ = node.get("/status", node.listening["admin_port"])
    assert code == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def answered(node: NodeProcess, path: str) -> int | None:
    """The status of a GET; None when it is cut off."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return node.get(path)[0]
    return None


async def refused_with(node: NodeProcess) -> int:
    """The status for newcomers of a full node; closed ones may have left a place or two."""
    async with contextlib.AsyncExitStack() as places:
        for number in range(64):
            try:
                await places.enter_async_context(node.connect("room", f"late-{number}"))
            except InvalidStatus as refused:
                return int(refused.response.status_code)
    return 101


@pytest.mark.parametrize("loop", ["--uvloop", "--no-uvloop"])
@pytest.mark.parametrize("request_", [HANDSHAKE, ""], ids=["members", "silent"])
@async_test
async def test_descriptors_for_redis_and_admin_survive_a_crowd(
    own_server: RedisServer, loop: str, request_: str
) -> None:
    """Many more clients than descriptors: the admin port answers, Redis is found again, and
    newcomers are taken when some have gone."""
    begun = time.monotonic()
    options = (loop, "--admin-port", "0", "--lease", "3", "--ping-interval", "600")
    with NodeProcess(own_server.url, *options, descriptors=(128, 128)) as node:
        with sockets(node.port, 400, request_):
            await eventually(lambda: status(node)["descriptors_refused"] > 300, 30)
            least = 31 if request_ else 0
            await eventually(lambda: status(node)["connections"] >= least, 30)
            members = status(node)["connections"]
            assert members < (64 if request_ else 1)
            await eventually(lambda: answered(node, "/healthz") == 200)
            if request_:
                await eventually(lambda: answered(node, "/ws/room?id=late") == 426)
                assert await refused_with(node) == 503
            await in_thread(own_server.kill)
            await eventually(lambda: not status(node)["ready"])
            await in_thread(own_server.start)
            await eventually(lambda: status(node)["ready"])
            assert status(node)["connections"] >= members

        async def again() -> bool:
            with contextlib.suppress(Exception):
                async with node.connect("room", "late"):
                    return True
            return False

        await eventually(again)
        node.signal(9)
        said = node.finish()[1]
    lines = len(re.findall("descriptors run out", said))
    assert 1 <= lines <= 1 + (time.monotonic() - begun) / 10, "once, and again after 10 s"
    assert "Traceback" not in said


@async_test
async def test_soft_limit_of_descriptors_is_raised_to_the_hard_one(own_server: RedisServer) -> None:
    """A hundred clients fit, where 64 descriptors were allowed."""
    with (
        NodeProcess(own_server.url, "--admin-port", "0", descriptors=(64, 512)) as node,
        sockets(node.port, 100, HANDSHAKE),
    ):
        await eventually(lambda: status(node)["connections"] == 100)
        assert status(node)["descriptors_refused"] == 0


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"x" * 90, "TLS"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n", "the PROXY protocol"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12), "the PROXY protocol"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
        (b"hello\r\n\r\n", "no HTTP"),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "no HTTP"),
    ],
    ids=["tls", "proxy", "proxy 2", "h2c", "nonsense", "body"],
)
@async_test
async def test_other_protocols_are_answered_with_400_and_logged(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture, data: bytes, name: str
) -> None:
    """At once, also when no line ends; one line for many."""
    async with node(own_server) as (_, server):
        with caplog.at_level(logging.INFO, "cluster_pool.server"):
            for _ in range(3):
                line = await in_thread(first_line, server.port, data)
                assert line == b"HTTP/1.1 400 Bad Request"
        found = [one.getMessage() for one in caplog.records if one.name == "cluster_pool.server"]
        assert len(found) == 1
        assert name in found[0]


@pytest.mark.parametrize(
    "behind", [b"GET /readyz HTTP/1.1\r\n\r\n", b"hello", b"\x81\x80" + bytes(4), b"x" * 200_000]
)
@async_test
async def test_bytes_behind_a_request_do_not_prevent_its_answer(
    own_server: RedisServer, behind: bytes
) -> None:
    """The first request is answered, with a second one or an unannounced body behind it."""
    async with node(own_server, admin_port=0) as (_, server):
        asked = (
            ("/healthz", server.port),
            ("/ws/room", server.port),
            ("/status", server.admin_port),
        )
        for path, port in asked:
            assert port is not None
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            line = await in_thread(first_line, port, request + behind)
            assert line in (b"HTTP/1.1 200 OK", b"HTTP/1.1 426 Upgrade Required")


@pytest.mark.parametrize("uvloop", [False, True])
@async_test
async def test_request_is_answered_after_the_end_of_the_stream(
    own_server: RedisServer, uvloop: bool
) -> None:
    """Many tools shut down their side after a request; their handshakes take no id."""
    options = ("--admin-port", "0", "--uvloop" if uvloop else "--no-uvloop")
    with NodeProcess(own_server.url, *options) as serving:
        port, admin_port = serving.port, serving.listening["admin_port"]
        asked = ((port, "healthz", 200), (port, "x", 404), (port, "ws/room", 426))
        async with serving.connect("room", "a") as member:
            for at, path, wanted in (*asked, (admin_port, "status", 200)):
                request = f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
                said = await asyncio.to_thread(whole_answer, at, request, ends=True)
                assert said.startswith(b"HTTP/1.1 %d " % wanted)
            request = HANDSHAKE.format(id="a", key=KEY).encode()
            said = await asyncio.to_thread(whole_answer, serving.port, request, ends=True)
            assert said == b""
            await (await member.ping())


def test_host_names_and_foreign_protocols_are_recognised() -> None:
    """In the Host header, and at the begin of a stream."""
    assert [host_name(host) for host in ("A:1", "[::1]:2", "a.", "", ":1")] == [
        *("a", "::1", "a", "", ""),
    ]
    assert protocol_of(b"GET / HTTP/1.1") == ""
    assert protocol_of(b"\x16") == ""
