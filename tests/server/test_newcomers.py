"""Sockets that are nothing yet: how many there may be, and what they are told."""

import asyncio
import contextlib
import gc
import http.client
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request

from cluster_pool.server.admin import host_name
from cluster_pool.server.newcomers import protocol_of
from tests.server.test_node import HANDSHAKE, KEY, node, url
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread


@contextlib.contextmanager
def sockets(port: int, count: int, request: str = "") -> Iterator[list[socket.socket]]:
    """So many, each of which has sent its request; those that are closed at once as well."""
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
    assert code == 200
    found: dict[str, Any] = json.loads(body)
    return found


def answered(node: NodeProcess, path: str) -> int | None:
    """The status of a GET; None when it is cut off."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return node.get(path)[0]
    return None


def first_line(port: int, data: bytes) -> bytes:
    """What a server answers to these bytes, which is all that it gets before it has answered."""
    return whole_answer(port, data).partition(b"\r\n")[0]


def whole_answer(port: int, data: bytes, *, ends: bool = False) -> bytes:
    """All that it answers; ``ends`` tells it that nothing more comes."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(10)
        client.sendall(data)
        if ends:
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while more := client.recv(65536):
                heard += more
    return heard


async def refused_with(node: NodeProcess) -> int:
    """The status for who comes to a full node; what it has closed since leaves a place or two."""
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
async def test_a_crowd_leaves_the_node_its_links(
    own_server: RedisServer, loop: str, request_: str
) -> None:
    """Many more than there are descriptors: the admin port answers, Redis is found again, and
    newcomers are taken when some have gone."""
    begun = time.monotonic()
    options = (loop, "--admin-port", "0", "--lease", "3", "--ping-interval", "600")
    with NodeProcess(own_server.url, *options, descriptors=(128, 128)) as node:
        with sockets(node.port, 400, request_):
            await eventually(lambda: status(node)["descriptors_refused"] > 300, 30)
            members = status(node)["connections"]
            assert (30 < members < 64) if request_ else members == 0
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
async def test_the_soft_limit_is_raised(own_server: RedisServer) -> None:
    """To the hard one: a hundred clients fit, where 64 descriptors were allowed."""
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
async def test_what_is_no_request_is_answered_and_logged(
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
async def test_bytes_behind_a_request_do_not_spoil_its_answer(
    own_server: RedisServer, behind: bytes
) -> None:
    """A request in a pipeline, or a body that was not announced: the first request is answered."""
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
async def test_a_request_is_answered_to_who_says_nothing_more(
    own_server: RedisServer, uvloop: bool
) -> None:
    """Many tools shut their side down behind a request; a handshake of theirs takes no id."""
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


@async_test
async def test_the_request_of_a_member_is_not_kept(own_server: RedisServer) -> None:
    """It takes two kilobytes, and nobody asks for it once it is answered."""
    async with node(own_server) as (_, server):
        headers = {"X-Mark": "of this test"}
        async with connect(
            url(server, "a"), additional_headers=headers, compression=None
        ) as client:
            await client.ping()
            await client.send("hello")

            def kept() -> list[Any]:
                found = [one for one in gc.get_objects() if type(one) is Request]
                return [
                    one for one in found if one is not client.request and "X-Mark" in one.headers
                ]

            await eventually(lambda: not kept())


@async_test
async def test_frames_behind_a_handshake_are_heard(own_server: RedisServer) -> None:
    """A client that does not wait for the answer: what it says comes first."""
    got: list[str] = []

    async def app(pool: Any, connection: Any) -> None:
        connection.on("message", got.append)
        await connection.run()

    async with node(own_server, app=app) as (_, server):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            request = HANDSHAKE.format(id="a", key=KEY).encode()
            client.sendall(request + b"\x81\x82" + bytes(4) + b"hi")
            await eventually(lambda: got)
            client.sendall(b"\x81\x82" + bytes(4) + b"ho")
            await eventually(lambda: got == ["hi", "ho"])


@async_test
async def test_head_has_no_body(own_server: RedisServer) -> None:
    """All else is as for GET."""
    async with node(own_server, admin_port=0) as (_, server):
        for path in ("/healthz", "/readyz", "/ws/room", "/elsewhere"):
            asked = f" {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            got = await in_thread(whole_answer, server.port, f"GET{asked}".encode())
            head, _, body = got.partition(b"\r\n\r\n")
            assert body
            got = await in_thread(whole_answer, server.port, f"HEAD{asked}".encode())
            assert got.partition(b"\r\n\r\n")[2] == b""
            assert got.partition(b"\r\n")[0].split()[1] in (head.split()[1], b"405")


@async_test
async def test_the_end_of_the_path_is_no_part_of_the_namespace(own_server: RedisServer) -> None:
    """A slash is forgiven; so much is told apart that was written as %2F."""
    async with node(own_server) as (pool, server):
        base = f"ws://127.0.0.1:{server.port}/ws"
        async with connect(url(server, "a")), connect(f"{base}/room/?id=b"):
            assert await pool.count("room") == 2
            async with connect(f"{base}/room%2F?id=c"):
                assert await pool.count("room/") == 1


@pytest.mark.parametrize(
    ("host", "names", "code"),
    [
        ("localhost:{port}", (), 200),
        ("127.0.0.1:{port}", (), 200),
        ("[::1]:{port}", (), 200),
        ("LOCALHOST", (), 200),
        ("evil.example:{port}", (), 403),
        ("evil.example", (), 403),
        ("127.0.0.1.evil.example", (), 403),
        ("localhost.evil.example", (), 403),
        ("", (), 403),
        ("node-7.internal:{port}", ("Node-7.internal",), 200),
        ("evil.example", ("node-7.internal",), 403),
        ("evil.example", ("*",), 200),
    ],
)
@async_test
async def test_status_is_for_who_knows_whom_it_asks(
    own_server: RedisServer, host: str, names: tuple[str, ...], code: int
) -> None:
    """A page whose name leads to loopback sends that name."""
    async with node(own_server, admin_port=0, admin_names=names) as (_, server):
        port = server.admin_port
        assert port is not None
        for path in ("/status", "/metrics"):
            request = f"GET {path} HTTP/1.1\r\nHost: {host.format(port=port)}\r\n\r\n"
            line = await in_thread(first_line, port, request.encode())
            assert int(line.split()[1]) == code


@async_test
async def test_a_token_is_enough(own_server: RedisServer) -> None:
    """No page has it, whatever the name."""
    async with node(own_server, admin_port=0, admin_token="known") as (_, server):
        assert server.admin_port is not None
        request = "GET /status HTTP/1.1\r\nHost: any.example\r\nAuthorization: Bearer known\r\n\r\n"
        line = await in_thread(first_line, server.admin_port, request.encode())
        assert line == b"HTTP/1.1 200 OK"


def test_hosts_and_protocols() -> None:
    """What stands in a header, and at the begin of a stream."""
    assert [host_name(host) for host in ("A:1", "[::1]:2", "a.", "", ":1")] == [
        *("a", "::1", "a", "", ""),
    ]
    assert protocol_of(b"GET / HTTP/1.1") == ""
    assert protocol_of(b"\x16") == ""
