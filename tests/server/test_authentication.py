"""``serve`` with tokens: a process of its own, real handshakes."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster_pool import Publisher
from tests.auth.signing import SECRET, token
from tests.server.running import HANDSHAKE, KEY, whole_answer
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess, in_thread

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file."""
    with RedisServer("valkey") as server:
        yield server


@pytest.fixture
def key(tmp_path: Path) -> str:
    """The file of a secret."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    return str(file)


async def status(url: str, **options: Any) -> int:
    """The status of a handshake."""
    try:
        async with connect(url, **options):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def counts(node: NodeProcess) -> dict[str, Any]:
    """The fields of its ``/status``."""
    fields: dict[str, Any] = json.loads(node.get("/status", node.listening["admin_port"])[1])
    return fields


@async_test
async def test_the_identity_decides_and_not_the_url(redis: RedisServer, key: str) -> None:
    options = ("--jwt-key", key, "--namespace-rule", "lobby=join", "--admin-port", "0")
    with NodeProcess(redis.url, *options, "--log-level", "debug") as node:
        alice = token(id="alice", namespaces=["room:*"])
        anyone = token(sub="43")
        expected = {
            "room:7?id=alice": 401,
            "room:7?id=alice&token=x": 401,
            f"room:7?id=alice&token={token(exp=int(time.time()) - 60)}": 401,
            f"room:7?id=alice&token={alice}": 101,
            f"room:7?token={alice}": 101,
            f"room:7?id=bob&token={alice}": 403,
            f"app?id=alice&token={alice}": 403,
            f"lobby?id=alice&token={alice}": 101,
            f"lobby?id=bob&token={anyone}": 101,
            f"room:7?id=bob&token={anyone}": 403,
        }
        found = {what: await status(f"ws://127.0.0.1:{node.port}/ws/{what}") for what in expected}
        assert found == expected
        counters = await in_thread(counts, node)
        assert (counters["unauthenticated"], counters["not_permitted"]) == (3, 3)
        refused = await in_thread(node.get, "/ws/room:7?id=alice")
        assert refused[0] in (401, 426)
        node.signal(signal.SIGTERM)
        _, log = await in_thread(node.finish)
        assert "refused" in log
        assert alice not in log
        assert anyone not in log


@async_test
async def test_an_id_that_only_a_url_names_takes_nothing_over(redis: RedisServer, key: str) -> None:
    """The identity of the second client names no id; that of the third one names it."""
    with NodeProcess(redis.url, "--jwt-key", key) as node:
        url = f"ws://127.0.0.1:{node.port}/ws/app?id=tab"
        guest, owner = token(namespace="app"), token(namespace="app", id="tab")
        async with connect(f"{url}&token={guest}") as first:
            assert await status(f"{url}&token={guest}") == 409
            async with connect(f"{url}&token={owner}"):
                with pytest.raises(ConnectionClosed) as ended:
                    await first.recv()
                assert ended.value.rcvd is not None
                assert ended.value.rcvd.code == 4409


def test_an_answer_never_repeats_a_token(redis: RedisServer, key: str) -> None:
    """Not even that to offers which cannot be read: proxies may log answers."""
    secret = token(namespace="app")
    head = HANDSHAKE.format(id="x", key=KEY).removesuffix("\r\n")
    with NodeProcess(redis.url, "--jwt-key", key, "--log-level", "debug") as node:
        for offers in (f"cluster-pool.token.{secret} x", f"(, cluster-pool.token.{secret}"):
            request = f"{head}Sec-WebSocket-Protocol: {offers}\r\n\r\n".encode()
            answer = whole_answer(node.port, request)
            assert b" 400 " in answer.partition(b"\r\n")[0]
            assert b"Sec-WebSocket-Protocol cannot be read" in answer
            assert secret.encode() not in answer
        node.signal(signal.SIGTERM)
        _, log = node.finish()
        assert secret not in log


@async_test
async def test_a_token_may_be_offered_as_a_subprotocol(redis: RedisServer, key: str) -> None:
    with NodeProcess(redis.url, "--jwt-key", key) as node:
        url = f"ws://127.0.0.1:{node.port}/ws/app?id=offered"
        offer: Any = f"cluster-pool.token.{token(namespace='app')}"
        raw: Any = "cluster-pool.raw"
        async with connect(url, subprotocols=[offer, raw]) as client:
            assert client.subprotocol == "cluster-pool.raw"
        assert await status(url, subprotocols=[offer]) == 400


@async_test
async def test_at_expiry_a_client_is_closed_and_publishes_no_more(
    redis: RedisServer, tmp_path: Path
) -> None:
    """The function that ``--auth`` names gives identities that last two seconds."""
    (tmp_path / "rules.py").write_text(
        "import time\n"
        "from cluster_pool import Auth, Identity\n\n"
        "def soon(request):\n"
        "    user = request.query.get('user')\n"
        "    ends = time.time() + 2\n"
        "    return user and Identity(user=user, namespace='app', expires=ends)\n"
    )
    options = ("--auth", "rules:soon", "--admin-port", "0")
    with NodeProcess(redis.url, *options, folder=tmp_path) as node:
        url = f"ws://127.0.0.1:{node.port}/ws/app?id=expires"
        assert await status(url) == 401
        async with connect(f"{url}&user=42") as client, Publisher(redis.url) as publisher:
            assert await publisher.send("app", "expires", "hello", confirm=True)
            assert await client.recv() == "hello"
            with pytest.raises(ConnectionClosed) as ended:
                await client.recv()
            assert ended.value.rcvd is not None
            assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4401, "expired")
            assert (await in_thread(counts, node))["expired"] == 1


@async_test
async def test_authentication_sees_the_path_that_counts_and_may_need_the_cluster(
    redis: RedisServer, tmp_path: Path
) -> None:
    """An absolute target is no way around a rule about paths; an outage is no error of serve."""
    (tmp_path / "rules.py").write_text(
        "from cluster_pool import BackplaneUnavailableError, Identity\n\n"
        "def by_path(request):\n"
        "    if 'away' in request.query:\n"
        "        raise BackplaneUnavailableError('away')\n"
        "    if not request.path.startswith('/ws/admin'):\n"
        "        return Identity(namespaces=['*'])\n"
    )
    with NodeProcess(redis.url, "--auth", "rules:by_path", folder=tmp_path) as node:
        url = f"ws://127.0.0.1:{node.port}/ws"
        assert await status(f"{url}/app?id=a") == 101
        assert await status(f"{url}/app?away") == 503
        for target in ("/ws/admin?id=a", "http://x/ws/admin?id=a", "WS://x/ws/%61dmin?id=a"):
            answer = await in_thread(raw_status, node.port, target)
            assert answer == 401, target


def raw_status(port: int, target: str) -> int:
    """The status of a handshake for any request target."""
    lines = (
        f"GET {target} HTTP/1.1",
        *("Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket"),
        *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    )
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(client.recv(100).split()[1])


@async_test
async def test_a_node_beyond_loopback_without_authentication_says_so(redis: RedisServer) -> None:
    with NodeProcess(redis.url, "--host", "0.0.0.0") as node:
        node.signal(signal.SIGTERM)
        _, log = await in_thread(node.finish)
    assert "nothing authenticates them" in log
