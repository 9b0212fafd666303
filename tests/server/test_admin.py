"""The admin listener: which clients may read a node's status, and its content."""

import json
import signal
import urllib.error
import urllib.request

import pytest
from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, InvalidValueError
from cluster_pool.server.node import NodeServer
from cluster_pool.testing import FAST
from tests.core.test_metrics import parsed
from tests.server.running import first_line, node, url
from tests.servers import PASSWORD, RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread


@async_test
async def test_status_tells_state_and_versions_and_no_password(own_server: RedisServer) -> None:
    """Node, state, sizes, counters, versions; the password of Redis is not among them."""
    assert PASSWORD in own_server.url
    async with ClusterPool(own_server.url, node_id="a", timing=FAST) as pool:
        server = NodeServer(pool, port=0, admin_port=0)
        await server.start()
        try:
            async with connect(url(server, "alice")):
                text = await in_thread(_get, f"http://127.0.0.1:{server.admin_port}/status")
        finally:
            await server.stop()
    status = json.loads(text)
    assert (status["node"], status["state"], status["ready"]) == ("a", "active", True)
    assert (status["connections"], status["namespaces"]) == (1, 1)
    assert {"python", "websockets", "redis_py", "redis", "inbound_lost"} <= status.keys()
    assert PASSWORD not in text


def _get(address: str | urllib.request.Request) -> str:
    with urllib.request.urlopen(address) as answer:
        return str(answer.read().decode())


@async_test
async def test_admin_listener_beyond_loopback_requires_a_token(own_server: RedisServer) -> None:
    """Beyond loopback it does not start without a token, and requires it of every client."""
    async with ClusterPool(own_server.url, timing=FAST) as pool:
        with pytest.raises(InvalidValueError, match=r"'0\.0\.0\.0' needs a token"):
            NodeServer(pool, port=0, admin_port=0, admin_host="0.0.0.0")
        server = NodeServer(pool, port=0, admin_port=0, admin_host="0.0.0.0", admin_token="t0ken")
        await server.start()
        address = f"http://127.0.0.1:{server.admin_port}/status"
        try:
            for wrong in ({}, {"Authorization": "Bearer t0ke"}, {"Authorization": "\u00ff"}):
                with pytest.raises(urllib.error.HTTPError) as caught:
                    await in_thread(_get, urllib.request.Request(address, headers=wrong))
                assert caught.value.code == 401
                caught.value.close()
            right = {"Authorization": "Bearer t0ken"}
            text = await in_thread(_get, urllib.request.Request(address, headers=right))
        finally:
            await server.stop()
    assert json.loads(text)["ready"] is True
    assert "t0ken" not in text


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
async def test_status_is_refused_for_unknown_hosts(
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
async def test_status_with_a_token_is_given_for_any_host(own_server: RedisServer) -> None:
    """No foreign page has the token, whatever its name."""
    async with node(own_server, admin_port=0, admin_token="known") as (_, server):
        assert server.admin_port is not None
        request = "GET /status HTTP/1.1\r\nHost: any.example\r\nAuthorization: Bearer known\r\n\r\n"
        line = await in_thread(first_line, server.admin_port, request.encode())
        assert line == b"HTTP/1.1 200 OK"


@async_test
async def test_metrics_of_a_draining_node_tell_its_progress(own_server: RedisServer) -> None:
    """State, budget and rest come from the admin listener, with the format's content type."""
    with NodeProcess(own_server.url), NodeProcess(
        *(own_server.url, "--admin-port", "0", "--node-id", "a"),
        *("--close-rate", "0.1", "--grace", "3600", "--announce", "0"),
    ) as node:  # fmt: skip
        admin = node.listening["admin_port"]
        async with node.connect("room", "alice"), node.connect("hall", "bob"):
            _, text, headers = await in_thread(node.get, "/metrics", admin)
            assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            values = parsed(text)
            assert values["cluster_pool_connections"] == {"": 2}
            assert values["cluster_pool_namespaces"] == {"": 2}
            assert values["cluster_pool_accepted_total"] == {"": 2}
            node.signal(signal.SIGTERM)

            def drain() -> dict[str, dict[str, float]]:
                return parsed(node.get("/metrics", admin)[1])

            await eventually(lambda: "cluster_pool_drain_budget" in drain())
            values = drain()
            assert values["cluster_pool_state"]['state="draining"'] == 1
            assert values["cluster_pool_ready"] == {"": 0}
            assert values["cluster_pool_drain_remaining"][""] in (1, 2)
            assert values["cluster_pool_drain_budget"][""] == 0.1
            status = json.loads((await in_thread(node.get, "/status", admin))[1])
            assert status["drain"]["budget"] == 0.1
            node.signal(signal.SIGTERM)
        assert (await in_thread(node.finish))[0] == 0
