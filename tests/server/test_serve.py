"""``cluster-pool serve`` as real processes, real sockets and real signals."""

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from cluster_pool import Publisher, SendResult
from tests.clusters import Backend
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.frames import request
from tools.harness.nodes import NodeProcess, close_code, in_thread


async def status_of(url: str) -> int:
    """The HTTP status with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url):
            pass
    return caught.value.response.status_code


@async_test
async def test_client_is_a_member_when_its_handshake_is_done(own_server: RedisServer) -> None:
    """Targeted, broadcast and raw messages reach clients on two nodes."""
    with NodeProcess(own_server.url, "--node-id", "a") as a, NodeProcess(own_server.url) as b:
        async with (
            Publisher(own_server.url) as publisher,
            a.connect("room", "al%20ice") as alice,
            b.connect("room", "bob%2F%C3%BC") as bob,
            b.connect("room") as nameless,
        ):
            members = {member.id: member.node async for member in publisher.members("room")}
            assert len(members) == 3
            assert members["al ice"] == "a"
            assert members["bob/ü"] == b.listening["node"]
            assert await publisher.send("room", "al ice", "hi", confirm=True)
            assert await alice.recv() == "hi"
            assert await publisher.broadcast_message("room", b"\x00\xff") == 2
            assert await Backend(own_server).publish("cluster_pool:{room}", "Hello world!") == 2
            for client in (alice, bob, nameless):
                assert await client.recv() == b"\x00\xff"
                assert await client.recv() == "Hello world!"


@async_test
async def test_bad_requests_are_answered_with_a_status(own_server: RedisServer) -> None:
    """Invalid paths, namespaces and ids, and plain requests, neither hang nor claim."""
    with NodeProcess(own_server.url, "--on-conflict", "reject") as node:
        assert await status_of(node.url("room", "a%0Ab")) == 400
        assert await status_of(node.url("%7B", "a")) == 400
        assert await status_of(node.url("~", "a")) == 400
        assert await status_of(node.url("~user:42", "a")) == 400
        assert await status_of(node.url("room", "")) == 400
        assert await status_of(node.url("room", "a") + "&id=b") == 400
        assert await status_of(node.url("room", "%ff")) == 400
        assert await status_of(node.url("", "a")) == 400
        assert await status_of(f"ws://127.0.0.1:{node.port}/elsewhere") == 404
        assert (await in_thread(node.get, "/ws/room?id=a"))[0] == 426
        assert (await in_thread(node.get, "/healthz"))[:2] == (200, "ok\n")
        assert (await in_thread(node.get, "/readyz"))[:2] == (200, "ready\n")
        async with node.connect("room", "alice"), Publisher(own_server.url) as publisher:
            assert await status_of(node.url("room", "alice")) == 409
            assert await publisher.count("room") == 1


@async_test
async def test_messages_of_clients_are_published_to_the_inbound_channel(
    own_server: RedisServer,
) -> None:
    """Without an app, text and binary messages go to the inbound channel as JSON."""
    with NodeProcess(own_server.url, "--node-id", "a") as node:
        async with (
            Backend(own_server).listening("cluster_pool:{room}:inbound") as heard,
            node.connect("room", "alice") as alice,
        ):
            await alice.send("hello")
            await alice.send(b"\xff\x00")
            (_, first), (_, second) = await heard.get(), await heard.get()
        assert json.loads(first) == {"id": "alice", "node": "a", "text": "hello"}
        assert base64.b64decode(json.loads(second)["binary"]) == b"\xff\x00"


@async_test
async def test_app_serves_connections_and_its_return_closes_with_1000(
    own_server: RedisServer, tmp_path: Path
) -> None:
    """Its return closes with 1000, its exception with 1011; the node goes on."""
    (tmp_path / "my_app.py").write_text(
        "async def handler(pool, connection):\n"
        "    await connection.send('welcome')\n"
        "    async for message in connection:\n"
        "        if message == 'bye': return\n"
        "        if message == 'fail': raise RuntimeError('on purpose')\n"
        "        await connection.send(message.upper())\n"
    )
    with NodeProcess(
        own_server.url, "--app", "my_app:handler", "--admin-port", "0", folder=tmp_path
    ) as node:
        for last, code in (("bye", 1000), ("fail", 1011)):
            async with node.connect("room", "alice") as alice:
                assert await alice.recv() == "welcome"
                await alice.send("echo")
                assert await alice.recv() == "ECHO"
                await alice.send(last)
                assert await close_code(alice) == code
        admin = node.listening["admin_port"]

        async def status() -> dict[str, Any]:
            fields: dict[str, Any] = json.loads((await in_thread(node.get, "/status", admin))[1])
            return fields

        async def empty() -> bool:
            return bool((await status())["connections"] == 0)

        await eventually(empty)
        assert (await status())["handler_errors"] == 1
        assert (await in_thread(node.get, "/other", admin))[0] == 404
        node.signal(signal.SIGTERM)
        exit_status, said = await in_thread(node.finish)
        assert exit_status == 0
        assert said.count("the app failed") == 1


@async_test
async def test_oversize_message_closes_its_sender_with_1009(own_server: RedisServer) -> None:
    """The client that sent it is closed; others are not."""
    with NodeProcess(own_server.url, "--message-bytes", "1000") as node:
        async with node.connect("room", "big") as big, node.connect("room", "small") as small:
            await big.send("x" * 1001)
            assert await close_code(big) == 1009
            async with Publisher(own_server.url) as publisher:
                await eventually(lambda: _is_absent(publisher, "big"))
                assert await publisher.send("room", "small", "hi")
            assert await small.recv() == "hi"


async def _is_absent(publisher: Publisher, id: str) -> bool:
    return await publisher.send("room", id, "x") is SendResult.ABSENT


@async_test
async def test_client_that_does_not_read_is_closed_and_delays_no_other(
    own_server: RedisServer,
) -> None:
    """Its outbox fills to the limit; it is cut; all others get every message."""
    with (
        NodeProcess(own_server.url, "--outbox-bytes", "65536", "--admin-port", "0") as node,
        socket.create_connection(("127.0.0.1", node.port)) as stuck,
    ):
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(request("/ws/room?id=stuck"))
        assert await in_thread(stuck.recv, 4096)
        async with node.connect("room", "fine") as fine, Publisher(own_server.url) as publisher:
            total = 0
            while (await publisher.locate("room", "stuck")) is not None:
                await publisher.broadcast_message("room", "x" * 30_000)
                assert len(await fine.recv()) == 30_000
                total += 1
                assert total < 2000
            assert await publisher.send("room", "fine", "still here", confirm=True)
            assert await fine.recv() == "still here"
        port = node.listening["admin_port"]
        await eventually(lambda: json.loads(node.get("/status", port)[1])["forced_closes"] == 1, 20)
        assert json.loads(node.get("/status", port)[1])["slow_consumers"] == 1


@async_test
async def test_claim_of_a_client_that_went_away_is_released(own_server: RedisServer) -> None:
    """A socket that is cut in the middle of its handshake leaves no member behind."""
    with NodeProcess(own_server.url) as node:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", node.port)) as half:
                half.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                half.sendall(request("/ws/room"))
        async with Publisher(own_server.url) as publisher:
            await eventually(lambda: _is_empty(publisher))


async def _is_empty(publisher: Publisher) -> bool:
    return await publisher.count("room") == 0


@async_test
async def test_sigterm_closes_at_a_pace_and_leaves_nothing_in_redis(
    own_server: RedisServer,
) -> None:
    """Clients get 1012, newcomers 503, the exit status is 0, and Redis is clean."""
    with NodeProcess(own_server.url, "--close-rate", "40") as node:
        clients: list[ClientConnection] = [await node.connect("room", f"c{n}") for n in range(40)]
        node.signal(signal.SIGTERM)
        began = time.monotonic()
        await eventually(lambda: node.get("/readyz")[0] == 503)
        assert await status_of(node.url("room", "late")) == 503
        assert node.get("/readyz")[2]["Retry-After"] == "1"
        assert {await close_code(client) for client in clients} == {1012}
        assert time.monotonic() - began > 0.5, "40 closes at 40 a second came in a burst"
        assert (await in_thread(node.finish))[0] == 0
        assert [key for key, ttl in Backend(own_server).keys().items() if ttl < 0] == []


@async_test
async def test_second_signal_stops_at_once(own_server: RedisServer) -> None:
    """A slow drain is cut short, and nothing stays in Redis."""
    with NodeProcess(own_server.url, "--close-rate", "1", "--grace", "3600") as node:
        clients = [await node.connect("room", f"c{number}") for number in range(50)]
        node.signal(signal.SIGTERM)
        await eventually(lambda: node.get("/readyz")[0] == 503)
        node.signal(signal.SIGINT)
        assert (await in_thread(node.finish, 20))[0] == 0
        assert {await close_code(client) for client in clients} == {1012}
        assert [key for key, ttl in Backend(own_server).keys().items() if ttl < 0] == []


@async_test
async def test_members_of_a_killed_node_are_forgotten(own_server: RedisServer) -> None:
    """Its members leave count and registry with its lease; reconnecting clients win at once."""
    with (
        NodeProcess(own_server.url, "--lease", "3") as one,
        NodeProcess(own_server.url, "--lease", "3") as two,
    ):
        began = time.monotonic()
        clients = [await two.connect("room", f"c{number}") for number in range(100)]
        async with Publisher(own_server.url) as publisher, one.connect("room", "stays"):
            # A node reaps only once it has held a lease of its own for as long as one lasts.
            await eventually(lambda: time.monotonic() - began > 3.1)
            two.signal(signal.SIGKILL)
            two.process.wait()
            for client in clients:
                await client.wait_closed()
            async with one.connect("room", "c7") as back:
                assert await publisher.send("room", "c7", "hello again", confirm=True)
                assert await back.recv() == "hello again"
                await eventually(lambda: _count_is(publisher, 2), 12)
                with own_server.sync_client() as redis:
                    await eventually(lambda: redis.hlen("cluster_pool:{room}:members") == 2, 15)


async def _count_is(publisher: Publisher, count: int) -> bool:
    return await publisher.count("room") == count


@async_test
async def test_outage_of_redis_closes_no_client(own_server: RedisServer) -> None:
    """Without Redis nodes are not ready and newcomers get 503; then all is well again."""
    with NodeProcess(own_server.url) as node:
        async with node.connect("room", "alice") as alice:
            own_server.kill()
            await eventually(lambda: node.get("/readyz")[0] == 503)
            assert node.get("/healthz")[0] == 200
            assert await status_of(node.url("room", "new")) == 503
            own_server.start()
            await eventually(lambda: node.get("/readyz")[0] == 200, 15)
            async with Publisher(own_server.url) as publisher:
                assert await publisher.send("room", "alice", "back", confirm=True)
            assert await alice.recv() == "back"


@async_test
async def test_node_stops_in_time_without_redis(own_server: RedisServer) -> None:
    """Redis is frozen and gets no release; clients get their 1012 and the node ends with 0."""
    with NodeProcess(own_server.url) as node:
        clients = [await node.connect("room", f"c{number}") for number in range(10)]
        own_server.freeze()
        node.signal(signal.SIGTERM)
        assert (await in_thread(node.finish, 20))[0] == 0
        assert {await close_code(client) for client in clients} == {1012}
        own_server.thaw()


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
@async_test
async def test_haproxy_spreads_clients_and_moves_those_of_a_stopped_node(
    own_server: RedisServer,
) -> None:
    """With deploy/haproxy.cfg clients are spread evenly, reached, and moved off a stopped node."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        front = probe.getsockname()[1]
    with (
        NodeProcess(own_server.url, "--node-id", "n1") as n1,
        NodeProcess(own_server.url, "--node-id", "n2") as n2,
        NodeProcess(own_server.url, "--node-id", "n3") as n3,
    ):
        nodes = (n1, n2, n3)
        addresses = {
            f"CLUSTER_POOL_NODE{at}": f"127.0.0.1:{node.port}" for at, node in enumerate(nodes, 1)
        }
        proxy = start_haproxy({"CLUSTER_POOL_BIND": f"127.0.0.1:{front}", **addresses})
        try:
            await eventually(lambda: _accepts(front))
            base = f"ws://127.0.0.1:{front}/ws/room?id="
            clients = [await connect(f"{base}c{number}") for number in range(30)]
            async with Publisher(own_server.url) as publisher:
                owners = [member.node async for member in publisher.members("room")]
                assert {owners.count(node) for node in ("n1", "n2", "n3")} == {10}
                results = [
                    await publisher.send("room", f"c{at}", str(at), confirm=True)
                    for at in range(30)
                ]
                assert all(results)
                assert [await client.recv() for client in clients] == [str(n) for n in range(30)]
                n2.signal(signal.SIGTERM)
                assert (await in_thread(n2.finish))[0] == 0
                again = [await connect(f"{base}d{number}") for number in range(10)]
                owners = [member.node async for member in publisher.members("room")]
                assert len(owners) == 30
                assert "n2" not in owners
                for client in clients + again:
                    await client.close()
        finally:
            proxy.terminate()
            proxy.wait()


def start_haproxy(addresses: dict[str, str]) -> subprocess.Popen[bytes]:
    """A real HAProxy, with the file that we ship."""
    config = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"
    return subprocess.Popen(
        ["haproxy", "-db", "-f", str(config)],
        env={**os.environ, **addresses},
        stderr=subprocess.DEVNULL,
    )


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


OLD_SECRET, NEW_SECRET = "the-old-secret-of-all", "the-new-secret-of-all"


@async_test
async def test_secret_and_limits_of_the_command_line_hold(own_server: RedisServer) -> None:
    """From the environment; unsealed messages are dropped, and surplus clients are refused."""
    environment = {
        "CLUSTER_POOL_SECRET": f"{NEW_SECRET} {OLD_SECRET}",
        "CLUSTER_POOL_NAMESPACE_MEMBERS": "1",
        "CLUSTER_POOL_INBOUND_PER_SECOND": "20",
    }
    with NodeProcess(own_server.url, "--admin-port", "0", environment=environment) as node:
        async with (
            Publisher(own_server.url, secret=[OLD_SECRET, NEW_SECRET]) as friend,
            Publisher(own_server.url) as stranger,
            node.connect("room", "alice") as alice,
        ):
            assert await stranger.broadcast_message("room", "forged") == 1
            assert await friend.send("room", "alice", "hello", confirm=True)
            assert await alice.recv() == "hello"
            with pytest.raises(InvalidStatus) as caught:
                await node.connect("room", "bob")
            assert caught.value.response.status_code == 503
            for at in range(100):
                await alice.send(str(at))
            assert await close_code(alice) == 1008
        admin = node.listening["admin_port"]
        text = (await in_thread(node.get, "/status", admin))[1]
        status = json.loads(text)
        assert status["authenticated"] is True
        assert status["dropped_forged"] == 1
        assert status["inbound_floods"] == 1
        assert "secret-of-all" not in text
        node.signal(signal.SIGTERM)
        exit_status, said = await in_thread(node.finish)
        assert exit_status == 0
        assert "secret-of-all" not in said


@async_test
async def test_crashed_node_restarts_under_its_fixed_id(own_server: RedisServer) -> None:
    """Its port is open while it waits (alive, not ready), for less than the whole lease."""
    fixed = ("--node-id", "pod-0", "--lease", "120")
    with NodeProcess(own_server.url, *fixed) as crashed:
        port = crashed.port
        async with crashed.connect("room", "alice"):
            crashed.process.kill()
            await in_thread(crashed.finish)
    again = asyncio.create_task(
        in_thread(NodeProcess, own_server.url, *fixed, "--port", str(port), "--agent-port", "0")
    )
    await eventually(lambda: answers("127.0.0.1", port), 20)
    assert await in_thread(get, f"http://127.0.0.1:{port}/healthz") == (200, "ok\n")
    assert await in_thread(get, f"http://127.0.0.1:{port}/readyz") == (503, "not ready: starting\n")
    assert await status_of(f"ws://127.0.0.1:{port}/ws/room?id=bob") == 503
    assert not again.done()
    with await asyncio.wait_for(again, 60) as node:
        assert node.get("/readyz")[0] == 200
        async with node.connect("room", "alice"), Publisher(own_server.url) as publisher:
            assert await publisher.send("room", "alice", "hello", confirm=True)
            assert await publisher.count("room") == 1


@async_test
async def test_signal_during_the_wait_for_a_lease_ends_the_process(own_server: RedisServer) -> None:
    """There is nothing to drain yet."""
    fixed = ("--node-id", "pod-0", "--lease", "120")
    with NodeProcess(own_server.url, *fixed) as running:
        running.signal(signal.SIGSTOP)  # it listens: its lease is waited for
        command = [sys.executable, "-m", "cluster_pool", "serve", "--port", "0"]
        waiting = await asyncio.create_subprocess_exec(
            *command, "--redis", own_server.url, *fixed, stderr=asyncio.subprocess.PIPE
        )
        assert waiting.stderr is not None
        assert b"waiting for its end" in await asyncio.wait_for(waiting.stderr.readline(), 20)
        waiting.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(waiting.wait(), 20) == 0
        assert b"draining" not in await waiting.stderr.read()


def answers(host: str, port: int) -> bool:
    """Whether a port is open."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def get(url: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
