"""Our protocol of uvicorn in a real process: conformance, storms, half-closed sockets, stops."""

import asyncio
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.asgi.servers import Server, running
from tests.asgi.test_departures import away, dropping, server_has
from tests.server.test_conformance import FRAGMENTS, KNOWN, PASSED, PROTOCOL, results
from tests.servers import BINARIES, RedisServer
from tests.stubborn import Stubborn, stubborn
from tests.support import async_test, eventually
from tests.transports.frames import BINARY, CLOSE, TEXT, read_messages
from tools.harness.frames import masked, request

OURS = "uvicorn ours"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file, none of which harms it."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


@async_test
async def test_conformance(redis: RedisServer, tmp_path: Path) -> None:
    """No case fails but the one that `websockets` documents, as with uvicorn's own protocol."""
    environment = {"WEBSOCKETS_MAX_FRAGMENTS": str(FRAGMENTS)}
    options = ("--ws-ping-interval", "3600", "--ws-max-size", str(32 * 1024 * 1024))
    async with running(
        OURS, redis.url, *options, app="tests.asgi.echo:app", **environment
    ) as server:
        verdicts = await asyncio.to_thread(results, server.url("/"), PROTOCOL, tmp_path / "report")
    assert len(verdicts) >= 301
    assert {id for id, got in verdicts.items() if not got <= PASSED} <= KNOWN


def hellos(client: Stubborn) -> int:
    """How often it has been greeted."""
    return list(read_messages(client.heard)).count((TEXT, b"hello"))


@async_test
async def test_a_client_that_half_closes_its_socket_has_left(redis: RedisServer) -> None:
    """Some proxies do that. Messages that were written before reach it, and its socket ends."""
    async with running(OURS, redis.url) as server:
        for kind in ("waits", "pushes", "sink"):
            async with stubborn(server.url(f"/ws/{kind}/{kind}")) as client:
                await eventually(lambda kind=kind: server_has(server, [kind]))
                assert await server.get(f"/send/{kind}") == "delivered"
                await eventually(lambda client=client: hellos(client) == 1)  # the endpoint goes on
                assert await server.get(f"/send/{kind}") == "delivered"
                client.writer.write_eof()
                await eventually(lambda kind=kind: away(server, kind), 10)
                await eventually(lambda client=client: client.ended)
                assert hellos(client) == 2
        assert server.complaints() == []


@async_test
async def test_a_request_of_a_client_that_half_closes_before_its_answer_is_dropped(
    redis: RedisServer,
) -> None:
    """No member is left, and nothing is logged."""
    async with running(OURS, redis.url) as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(request("/ws/waits/early"))
                client.shutdown(socket.SHUT_WR)
        await eventually(lambda: away(server, "early"))
        assert server.complaints() == []


@async_test
async def test_a_storm_of_clients_leaves_nothing_behind(redis: RedisServer) -> None:
    """They come at once and vanish at once, half of them by a reset."""
    async with running(OURS, redis.url) as server:
        before = (await server.state())["tasks"]
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        for number, client in enumerate(clients):
            client.sendall(request(f"/ws/{random.choice(('reads', 'waits', 'sink'))}/{number}"))
        await eventually(lambda: connections(server, 200), 30)
        for number, client in enumerate(clients):
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        await eventually(lambda: connections(server, 0), 30)
        await eventually(lambda: ended(server, before))
        assert server.complaints() == []


async def connections(server: Server, count: int) -> bool:
    return bool((await server.state())["connections"] == count)


async def ended(server: Server, tasks: int) -> bool:
    state = await server.state()
    return state["open"] == [] and state["tasks"] <= tasks + 2


@async_test
async def test_a_message_in_fragments_is_read_whole_while_others_are_sent(
    redis: RedisServer,
) -> None:
    """A ping may come in between, and messages of the server at any time."""
    async with running(OURS, redis.url) as server, stubborn(server.url("/ws/reads/a")) as client:
        client.writer.write(b"\x01\x82\0\0\0\0fr")
        await eventually(lambda: server_has(server, ["a"]))
        assert await server.get("/send/a") == "delivered"
        client.writer.write(b"\x89\x80\0\0\0\0\x80\x82\0\0\0\0ag")
        client.writer.write(masked(BINARY, b"next"))
        await eventually(lambda: len(list(read_messages(client.heard))) == 4)
        payloads = [payload for _, payload in read_messages(client.heard)]
        assert payloads.count(b"") == 1  # the pong, which no message waits for
        assert [one for one in payloads if one] == [b"hello", b"frag", b"next"]


@async_test
async def test_a_stop_writes_first_and_ends_although_clients_do_not_read(
    redis: RedisServer,
) -> None:
    """One reads and gets a close behind its messages; one ignores the drain, one reads nothing."""
    async with (
        running(OURS, redis.url) as server,
        server.connect("/ws/pushes/reads") as reads,
        stubborn(server.url("/ws/floods/stuck"), reads=False),
        stubborn(server.url("/ws/waits/ignores")) as ignores,
    ):
        await eventually(lambda: server_has(server, ["reads", "stuck", "ignores"]))
        reading = asyncio.create_task(dropping(reads))
        server.process.send_signal(signal.SIGTERM)
        await server.ended()
        await reading
        assert reads.close_code == 1012
        assert list(read_messages(ignores.heard))[-1] == (CLOSE, b"\x03\xf4draining")


@async_test
async def test_the_worker_of_gunicorn_takes_it(redis: RedisServer) -> None:
    """As the documentation writes it."""
    async with (
        running("gunicorn ours", redis.url) as server,
        connect(server.url("/ws/reads/a"), proxy=None) as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        assert (await server.state())["direct"] == 1
