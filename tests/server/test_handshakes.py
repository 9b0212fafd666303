"""Requests and handshakes: refusals before the claim, and the apps' view of a request.

Every refusal is tried against the id of a member, who must stay.
"""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from cluster_pool import Auth, ClusterPool, Identity, Limits, Publisher
from cluster_pool.server.node import NodeServer
from cluster_pool.testing import FAST
from tests.clusters import Backend
from tests.server.running import (
    RESET,
    node,
    raw_client,
    url,
    whole_answer,
)
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread

HANDSHAKE = (
    "GET /ws/room?id=alice HTTP/1.1",
    *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def ask(port: int, *lines: str) -> tuple[int, str]:
    """Send a handshake with more header lines; gives the status and the whole answer."""
    return request(port, *HANDSHAKE, *lines)


def request(port: int, *lines: str) -> tuple[int, str]:
    """The same with every line given."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        text = "\r\n".join((*(line.format(port=port) for line in lines), "", ""))
        client.sendall(text.encode("latin-1"))
        said = b""
        while b"\r\n\r\n" not in said and (more := client.recv(65536)):
            said += more
    text = said.decode("latin-1")
    return int(text.split(" ", 2)[1]), text


def without(name: str, *more: str) -> tuple[str, ...]:
    """The handshake without one of its headers, and with others."""
    return (*(line for line in HANDSHAKE if not line.startswith(f"{name}:")), *more)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file, whose refusals need no Redis."""
    with RedisServer("valkey") as server:
        yield server


@contextlib.contextmanager
def serving(redis: RedisServer, *options: str, folder: Path | None = None) -> Iterator[NodeProcess]:
    """A node whose status can be read."""
    with NodeProcess(redis.url, "--admin-port", "0", *options, folder=folder) as node:
        yield node


def status(node: NodeProcess) -> dict[str, Any]:
    """The fields of its ``/status``."""
    fields: dict[str, Any] = json.loads(node.get("/status", node.listening["admin_port"])[1])
    return fields


async def stays(alice: ClientConnection, publisher: Publisher) -> None:
    """Check that Alice is still a member."""
    assert await publisher.send("room", "alice", "still?", confirm=True)
    assert await alice.recv() == "still?"


FOREIGN = (
    ("Host: 127.0.0.1:{port}", "Origin: https://evil.example"),
    ("Host: 127.0.0.1:{port}", "Origin: http://127.0.0.1"),
    ("Host: 127.0.0.1", "Origin: http://127.0.0.1:{port}"),
    ("Host: 127.0.0.1:{port}", "Origin: http://localhost:{port}"),
    ("Host: 127.0.0.1:{port}", "Origin: null"),
    ("Host: 127.0.0.1:{port}", "Origin:"),
    ("Host: 127.0.0.1:{port}", "Origin: http://127.0.0.1:{port}/"),
    ("Host: 127.0.0.1:{port}", "Origin: http://evil@127.0.0.1:{port}"),
    ("Host: 127.0.0.1:{port}", "Origin: http://evil.example, http://127.0.0.1:{port}"),
    ("Host: a.example", "Origin: http://a.example."),
    ("Host: a.example, b.example", "Origin: http://a.example"),
    ("Host: \xe4.example", "Origin: http://\xe4.example"),
    ("Host: a.example", "Host: a.example", "Origin: http://a.example"),
    ("Host: a.example", "Host: b.example", "Origin: http://a.example"),
    ("Host: a.example", "Origin: http://a.example", "Origin: http://a.example"),
    ("Origin: http://127.0.0.1:{port}",),
    ("Host:", "Origin: http://127.0.0.1:{port}"),
    ("Host: 127.0.0.1", "X-Forwarded-Host: evil.example", "Origin: http://evil.example"),
)
SAME = (
    ("Host: 127.0.0.1:{port}",),
    ("Host: 127.0.0.1:{port}", "Origin: http://127.0.0.1:{port}"),
    ("Host: a.example", "Origin: https://a.example"),
    ("Host: a.example:443", "Origin: https://a.example"),
    ("Host: a.example", "Origin: http://a.example:80"),
    ("Host: A.example", "Origin: http://a.EXAMPLE"),
    ("Host: [::1]:{port}", "Origin: http://[0:0:0:0:0:0:0:1]:{port}"),
)


@async_test
async def test_foreign_origins_are_refused_before_any_id_is_claimed(redis: RedisServer) -> None:
    """403, counted, logged once a minute for each; the same origin and clients without one pass."""
    with serving(redis) as node:
        async with node.connect("room", "alice") as alice, Publisher(redis.url) as publisher:
            for lines in FOREIGN:
                code, text = await in_thread(ask, node.port, *lines)
                twice = sum(line.startswith("Origin") for line in lines) > 1
                assert code == (400 if twice else 403), (lines, text)
            for _ in range(3):
                assert (await in_thread(ask, node.port, *FOREIGN[0]))[0] == 403
            await stays(alice, publisher)
            statistics = await in_thread(status, node)
            assert statistics["taken_over"] == 0
            assert statistics["origins_refused"] == len(FOREIGN) - 1 + 3
            metrics = await in_thread(node.get, "/metrics", node.listening["admin_port"])
            counted = f'refused_total{{reason="origin"}} {statistics["origins_refused"]}\n'
            assert counted in metrics[1]
            for lines in SAME:
                assert (await in_thread(ask, node.port, *lines))[0] == 101, lines
        node.process.terminate()
        _, said = await in_thread(node.finish)
        line = next(line for line in said.splitlines() if "evil.example" in line)
        assert said.count("Origin 'https://evil.example'") == 1
        assert f"Host '127.0.0.1:{node.port}'" in line
        assert "--origin 'https://evil.example'" in line


@async_test
async def test_named_origins_may_connect(redis: RedisServer) -> None:
    """Several, besides the same one; from the variable as well; * allows all."""
    evil = FOREIGN[0]
    named = ("Host: 127.0.0.1:{port}", "Origin: https://app.example")
    with serving(
        redis, "--origin", "https://app.example", "--origin", "http://localhost:3000"
    ) as node:
        assert (await in_thread(ask, node.port, *named))[0] == 101
        assert (await in_thread(ask, node.port, *SAME[1]))[0] == 101
        assert (await in_thread(ask, node.port, *evil))[0] == 403
    with serving(redis, "--origin", "*") as node:
        for lines in (evil, FOREIGN[4], ("Origin: x", "Host: y")):
            assert (await in_thread(ask, node.port, *lines))[0] == 101
    both = {"CLUSTER_POOL_ORIGIN": "https://evil.example https://app.example"}
    with NodeProcess(redis.url, environment=both) as node:
        assert (await in_thread(ask, node.port, *named))[0] == 101
        assert (await in_thread(ask, node.port, *evil))[0] == 101


@pytest.mark.parametrize(
    "option",
    [
        ("--origin", "app.example"),
        ("--subprotocol", "a b"),
        ("--forwarded-allow-ips", "proxy.example"),
        ("--host", ".json"),  # a label of no letters: no error of the system
    ],
)
def test_bad_origins_proxies_and_subprotocols_end_the_start(
    redis: RedisServer, option: tuple[str, str]
) -> None:
    """Exit status 2, and the value is named."""
    with pytest.raises(AssertionError, match=rf"\(2, .*{option[1]}"):
        NodeProcess(redis.url, *option)


@async_test
async def test_forwarded_headers_count_only_from_named_proxies(
    redis: RedisServer, tmp_path: Path
) -> None:
    """X-Forwarded-Host replaces the Host; X-Forwarded-For is read from the right."""
    (tmp_path / "my_app.py").write_text(
        "async def handler(pool, connection):\n"
        "    await connection.send(str(connection.request.client))\n"
    )
    forwarded = (
        "Host: inside:8000",
        *("X-Forwarded-Host: app.example", "Origin: https://app.example"),
    )
    chain = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7"}
    app = ("--app", "my_app:handler")
    with serving(redis, *app, folder=tmp_path) as node:
        assert (await in_thread(ask, node.port, *forwarded))[0] == 403
        async with node.connect("room", additional_headers=chain) as client:
            assert await client.recv() == "127.0.0.1"
    with serving(
        redis, *app, "--forwarded-allow-ips", "127.0.0.0/8,10.0.0.1", folder=tmp_path
    ) as node:
        assert (await in_thread(ask, node.port, *forwarded))[0] == 101
        for lines in (
            (*forwarded[:2], "X-Forwarded-Host: evil.example", forwarded[2]),
            (forwarded[0], "X-Forwarded-Host: app.example, app.example", forwarded[2]),
            ("Host: app.example", "X-Forwarded-Host: other.example", forwarded[2]),
        ):
            assert (await in_thread(ask, node.port, *lines))[0] == 403
        async with node.connect("room", additional_headers=chain) as client:
            assert await client.recv() == "203.0.113.7"
    everybody = {"CLUSTER_POOL_FORWARDED_ALLOW_IPS": "*"}
    with NodeProcess(redis.url, *app, environment=everybody, folder=tmp_path) as node:
        async with node.connect("room", additional_headers=chain) as client:
            assert await client.recv() == "6.6.6.6"


BROKEN = (
    (without("Upgrade"), 426),
    (without("Upgrade", "Upgrade: h2c"), 426),
    (without("Upgrade", "Upgrade: websocket, h2c"), 426),
    (without("Connection"), 426),
    (without("Connection", "Connection: keep-alive"), 426),
    (without("Connection", "Connection: @"), 400),
    (without("Sec-WebSocket-Version"), 400),
    (without("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"), 400),
    (without("", "Sec-WebSocket-Version: 13"), 400),
    (without("Sec-WebSocket-Key"), 400),
    (without("Sec-WebSocket-Key", "Sec-WebSocket-Key: AAAA"), 400),
    (without("Sec-WebSocket-Key", "Sec-WebSocket-Key: \xe4"), 400),
    (without("", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
    (without("", "Sec-WebSocket-Protocol: @"), 400),
    (without("", "Sec-WebSocket-Extensions: permessage-deflate; ="), 400),
)


@async_test
async def test_failed_handshake_does_not_take_an_id(redis: RedisServer) -> None:
    """Missing, wrong, doubled and unreadable headers, and offers without a match."""
    with serving(redis, "--compression", "--subprotocol", "v2", "--subprotocol", "v1") as node:
        async with node.connect("room", "alice") as alice, Publisher(redis.url) as publisher:
            assert alice.subprotocol is None, "who offers nothing is answered without"
            for lines, code in BROKEN:
                answer = await in_thread(request, node.port, *lines, "Host: x")
                assert answer[0] == code, (lines, answer)
            offer = "Sec-WebSocket-Protocol: v3, v4"
            assert (await in_thread(ask, node.port, "Host: x", offer))[0] == 400
            await stays(alice, publisher)
            statistics = await in_thread(status, node)
            assert (statistics["accepted"], statistics["taken_over"]) == (1, 0)


@async_test
async def test_best_offered_subprotocol_is_answered(redis: RedisServer) -> None:
    """The node's first choice of those offered; without the option offers are ignored."""
    with serving(redis, "--subprotocol", "v2", "--subprotocol", "v1") as node:
        async with connect(node.url("room", "a"), subprotocols=["v1", "v0", "v2"]) as client:
            assert client.subprotocol == "v2"
        async with connect(node.url("room", "a"), subprotocols=["v1"]) as client:
            assert client.subprotocol == "v1"
    with serving(redis) as node:
        async with connect(node.url("room", "a"), subprotocols=["v1"]) as client:
            assert client.subprotocol is None


@async_test
async def test_client_that_leaves_during_its_handshake_takes_no_id(redis: RedisServer) -> None:
    """The request arrives together with the end of the stream, or with a reset."""
    text = "\r\n".join((*HANDSHAKE, "Host: x", "", "")).encode()

    def come_and_go(port: int, reset: bool) -> None:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.sendall(text)

    for loop in ("--uvloop", "--no-uvloop"):
        with serving(redis, loop) as node:
            async with (
                node.connect("room", "alice") as alice,
                Publisher(redis.url) as publisher,
            ):
                for reset in (False, True):
                    node.signal(signal.SIGSTOP)  # so that it hears of both at once
                    await in_thread(come_and_go, node.port, reset)
                    node.signal(signal.SIGCONT)
                    async with node.connect("room", "bob"):  # claimed behind all of them
                        await stays(alice, publisher)
                statistics = await in_thread(status, node)
                assert (statistics["accepted"], statistics["taken_over"]) == (3, 0)


@async_test
async def test_app_reads_headers_and_client_address_of_the_request(
    redis: RedisServer, tmp_path: Path
) -> None:
    """Path, query, headers, cookies, address and subprotocols, as long as the app runs."""
    (tmp_path / "my_app.py").write_text(
        "async def handler(pool, connection):\n"
        "    async for message in connection:\n"
        "        asked = connection.request\n"
        "        await connection.send_json([asked.path, asked.query['token'],\n"
        "            asked.headers.get_all('x-Twice'), asked.cookies, asked.client,\n"
        "            asked.subprotocols])\n"
    )
    with serving(redis, "--app", "my_app:handler", folder=tmp_path) as node:
        async with connect(
            node.url("ro%20om", "al%20ice") + "&token=%C3%BC",
            additional_headers=[("X-Twice", "1"), ("X-twice", "2"), ("Cookie", "a=1; b=2")],
            subprotocols=["v1", "v2"],
        ) as client:
            for _ in range(2):
                await client.send("?")
                assert json.loads(await client.recv()) == [
                    *("/ws/ro om", "ü", ["1", "2"], {"a": "1", "b": "2"}, "127.0.0.1"),
                    ["v1", "v2"],
                ]


@async_test
async def test_claim_of_a_client_that_left_is_released(own_server: RedisServer) -> None:
    """Redis is slow and the client impatient: when the claim succeeds it is released."""
    async with (
        node(own_server) as (pool, server),
        connect(url(server, "warm")),
    ):
        own_server.freeze()
        clients = [raw_client(server, f"impatient{number}") for number in range(5)]
        await asyncio.sleep(0.2)
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
        await asyncio.sleep(0.1)
        own_server.thaw()
        await asyncio.wait_for(pool.wait_ready(), 15)
        await eventually(lambda: _count_is(pool, 1))


async def _count_is(pool: ClusterPool, count: int) -> bool:
    return await pool.count("room") == count


@async_test
async def test_handshake_without_a_valid_key_leaves_no_member(own_server: RedisServer) -> None:
    """400, and no member."""
    async with node(own_server) as (pool, server):
        with raw_client(server, "odd", key="short") as odd:
            assert (await in_thread(odd.recv, 4096)).startswith(b"HTTP/1.1 400")
        await eventually(lambda: _count_is(pool, 0))
        assert pool.statistics()["connections"] == 0


@async_test
async def test_head_is_answered_without_a_body(own_server: RedisServer) -> None:
    """All else is as for GET."""
    async with node(own_server, admin_port=0) as (_, server):
        for path in ("/healthz", "/readyz", "/cluster-socket.js", "/ws/room", "/elsewhere"):
            asked = f" {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            got = await in_thread(whole_answer, server.port, f"GET{asked}".encode())
            head, _, body = got.partition(b"\r\n\r\n")
            assert body
            got = await in_thread(whole_answer, server.port, f"HEAD{asked}".encode())
            assert got.partition(b"\r\n\r\n")[2] == b""
            assert got.partition(b"\r\n")[0].split()[1] in (head.split()[1], b"405")


@async_test
async def test_last_slash_of_the_path_is_not_part_of_the_namespace(own_server: RedisServer) -> None:
    """A trailing slash is ignored; a %2F is part of the name."""
    async with node(own_server) as (pool, server):
        base = f"ws://127.0.0.1:{server.port}/ws"
        async with connect(url(server, "a")), connect(f"{base}/room/?id=b"):
            assert await pool.count("room") == 2
            async with connect(f"{base}/room%2F?id=c"):
                assert await pool.count("room/") == 1


@async_test
async def test_a_user_with_too_many_connections_gets_429() -> None:
    """It takes no id, and no other node is asked to take the client."""
    auth = Auth(authenticate=lambda request: Identity(user="42", namespaces=["room"]))
    limits = Limits(user_connections=1)
    pool = ClusterPool(Backend(None).redis(), timing=FAST, limits=limits)
    server = NodeServer(pool, port=0, auth=auth)
    await pool.start()
    try:
        await server.start()
        async with connect(url(server, "alice")) as alice:
            with pytest.raises(InvalidStatus) as refused:
                await connect(url(server, "bob"))
            assert refused.value.response.status_code == 429
            assert await pool.send_user("42", "still?", confirm=True)
            assert await alice.recv() == "still?"
        assert pool.statistics()["accepted"] == 1
    finally:
        await server.stop()
