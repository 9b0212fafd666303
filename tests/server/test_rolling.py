"""Rolling restarts of real nodes behind the real proxies, with the files that we ship."""

import asyncio
import contextlib
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster_pool import Publisher
from tests.proxies import NODES, Cluster, Proxy, haproxy, nginx
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.comers import Comers, Mail
from tools.harness.nodes import in_thread
from tools.harness.ports import accepts, free_port

pytestmark = pytest.mark.real

NAMESPACE, CLIENTS = "room", 60


def ask_agent(port: int) -> str:
    """The agent's answer; empty when the agent is gone.

    A listener that is closed during a handshake may leave the client with a connection of which
    nobody else knows (seen with bare sockets at Linux 6.18, 7 in 12,000): hence the second try.
    """
    try:
        try:
            return hear(port, 3)
        except TimeoutError:
            return hear(port, 30)
    except ConnectionError:
        return ""


def hear(port: int, seconds: float) -> str:
    """The answer of a server to a silent client; TimeoutError when there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as client:
        return client.recv(100).decode()


async def takes_newcomers(front: int, name: str, publisher: Publisher) -> bool:
    """Whether the proxy sends a new client to a node; the one with the fewest gets the next."""
    async with connect(f"ws://127.0.0.1:{front}/ws/{NAMESPACE}?id=probe", compression=None):
        member = await publisher.locate(NAMESPACE, "probe")
        return member is not None and member.node == name


async def counts(publisher: Publisher, expected: int) -> bool:
    """Whether the namespace has so many members; a probe's release may be under way."""
    return await publisher.count(NAMESPACE) == expected


async def roll(
    cluster: Cluster, publisher: Publisher, front: int, watch: Callable[[str], None]
) -> None:
    """Restart every node in turn under clients and senders, and check what they received."""
    members = [(NAMESPACE, f"c{at}") for at in range(CLIENTS)]
    comers = Comers()

    async def all_open() -> bool:
        return not await comers.away()

    try:
        async with asyncio.timeout(30):
            await comers.come(front, members)
        async with Mail(publisher, members, 0.002) as mail:
            for name in NODES:
                before = comers.codes.total()
                await cluster.replace(name, watch)
                assert comers.codes.total() > before, f"{name} had no client"
                await eventually(all_open, 30)
                await eventually(lambda at=name: takes_newcomers(front, at, publisher), 30)
        await eventually(lambda: not mail.lost(comers.heard))
        assert comers.refused == {}
        assert set(comers.codes) == {1012}
        await eventually(lambda: counts(publisher, CLIENTS))
        assert len(mail.delivered) > 100
        assert mail.failed == []
    finally:
        await comers.leave()


def status_in_haproxy(control: Path) -> dict[str, tuple[str, int]]:
    """The state of each server in HAProxy's view, and its age in seconds."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(10)
        link.connect(str(control))
        link.sendall(b"show stat\n")
        said = b""
        while more := link.recv(65536):
            said += more
    rows = [line.split(",") for line in said.decode().lstrip("# ").splitlines() if line]
    name, status, since = map(rows[0].index, ("svname", "status", "lastchg"))
    return {row[name]: (row[status], int(row[since] or 0)) for row in rows[1:]}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
@async_test
async def test_rolling_restart_behind_haproxy_loses_no_message(tmp_path: Path) -> None:
    """No client is refused, no confirmed message is lost; HAProxy hears of each drain in time."""
    front = free_port()
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer("valkey"))
        cluster = Cluster(redis.url, stack)
        control = stack.enter_context(haproxy(cluster, front, tmp_path))
        await eventually(lambda: accepts(front))
        words: dict[str, list[str]] = {name: [] for name in NODES}
        seen: dict[str, set[str]] = {name: set() for name in NODES}

        def watch(name: str) -> None:
            words[name].append(ask_agent(cluster.agent_port(name)).strip())
            seen[name].add(status_in_haproxy(control)[name.replace("n", "node")][0])

        async with Publisher(redis.url) as publisher:
            await roll(cluster, publisher, front, watch)
        for name in NODES:
            assert "drain" in words[name]
            told = [word for word in words[name] if word]
            assert all(word == "drain" for word in told[told.index("drain") :])
            assert any(status.startswith(("DRAIN", "DOWN")) for status in seen[name]), seen
        for node in cluster.nodes.values():
            node.signal(signal.SIGTERM)
        for node in cluster.nodes.values():
            assert (await in_thread(node.finish))[0] == 0


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
@async_test
async def test_agent_does_not_bring_up_a_node_that_is_not_ready(tmp_path: Path) -> None:
    """Without Redis /readyz fails and the agent says up: HAProxy believes /readyz."""
    front = free_port()
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer("valkey"))
        cluster = Cluster(redis.url, stack)
        control = stack.enter_context(haproxy(cluster, front, tmp_path))

        def all_are(status: str, seconds: int = 0) -> bool:
            said = status_in_haproxy(control)
            rows = [said[name.replace("n", "node")] for name in NODES]
            return all(now == status and since >= seconds for now, since in rows)

        await eventually(lambda: control.exists() and all_are("UP"))
        redis.kill()
        # Long enough for several questions to each agent, which says "up" all the while.
        await eventually(lambda: all_are("DOWN", 3), 30)
        redis.start()
        await eventually(lambda: all_are("UP"), 30)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
@async_test
async def test_rolling_restart_behind_nginx_loses_no_message(tmp_path: Path) -> None:
    """nginx does not check readiness: a refused upgrade moves to another node, unseen."""
    front = free_port()
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer("valkey"))
        cluster = Cluster(redis.url, stack)
        stack.enter_context(nginx(cluster, front, tmp_path))
        await eventually(lambda: accepts(front))
        async with Publisher(redis.url) as publisher:
            await roll(cluster, publisher, front, lambda name: None)
        for node in cluster.nodes.values():
            node.signal(signal.SIGTERM)
        for node in cluster.nodes.values():
            assert (await in_thread(node.finish))[0] == 0


async def status_of(front: int, namespace: str) -> int:
    """101 for a welcome, or the status of the refusal."""
    try:
        async with connect(f"ws://127.0.0.1:{front}/ws/{namespace}", compression=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


@pytest.mark.parametrize("proxy", [haproxy, nginx])
@async_test
async def test_full_namespace_does_not_keep_clients_out_of_others(
    proxy: Proxy, tmp_path: Path
) -> None:
    """Its 503 answers one client, whatever a proxy tries; no node is taken out for it."""
    if not shutil.which(proxy.__name__):
        pytest.skip(f"{proxy.__name__} is not installed")
    front = free_port()
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer("valkey"))
        cluster = Cluster(redis.url, stack, "--namespace-members", "1")
        stack.enter_context(proxy(cluster, front, tmp_path))
        await eventually(lambda: accepts(front))
        async with connect(f"ws://127.0.0.1:{front}/ws/full", compression=None):
            for at in range(20):
                assert await status_of(front, "full") == 503
                assert await status_of(front, f"other{at}") == 101
