"""The cluster that is restarted: Valkey, HAProxy with the file that we ship, node processes."""

import asyncio
import contextlib
import json
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

from cluster_pool.embedded import EmbeddedServer, bound_to_parent
from tools.bench.cluster import HOST

NODES: Final = 8
ANNOUNCE: Final = 3.0
"""Seconds; HAProxy looks once a second."""
GRACE: Final = 90.0
STOP_TIMEOUT: Final = 120.0
START_TIMEOUT: Final = 20.0
CONFIG: Final = Path(__file__).parents[4] / "deploy" / "haproxy.cfg"
SERVER: Final = re.compile(r"^ *server node\d.*$", re.MULTILINE)


class Node:
    """One node of the cluster, started anew after each stop at the same port."""

    def __init__(
        self, way: str, redis: str, index: int, ports: tuple[int, int], rate: float, log: Path
    ) -> None:
        self.id = f"node-{index}"
        self._command = _command(way, redis, self.id, ports, rate)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *bound_to_parent([sys.executable, "-P", "-m", *self._command]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.id} did not start: {self._log.read_text()[-2000:]}")
        json.loads(line)

    async def terminate(self) -> int:
        """SIGTERM, and wait for its end; gives the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_TIMEOUT):
            return await self._process.wait()

    async def kill(self) -> None:
        """Whatever it does."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def _command(way: str, redis: str, id: str, ports: tuple[int, int], rate: float) -> list[str]:
    port, agent = map(str, ports)
    if way != "shared":
        numbers = [port, agent, str(rate), str(ANNOUNCE)]
        return ["tools.bench.rolling.node", way, redis, id, *numbers]
    return [
        *("cluster_pool", "serve", "--json", "--redis", redis, "--node-id", id),
        *("--port", port, "--agent-port", agent, "--close-rate", str(rate)),
        *("--grace", str(GRACE), "--announce", str(ANNOUNCE)),
    ]


class Stage:
    """What a restart plays on."""

    def __init__(self, redis: EmbeddedServer, nodes: list[Node], port: int) -> None:
        self.redis = redis
        self.nodes = nodes
        self.port = port

    async def restart(self, nodes: Iterable[Node]) -> list[int]:
        """Stop some nodes together and start them again; gives their exit statuses."""
        chosen = list(nodes)
        statuses = await asyncio.gather(*[node.terminate() for node in chosen])
        await asyncio.gather(*[node.start() for node in chosen])
        return statuses


@contextlib.asynccontextmanager
async def stage(way: str, rate: float) -> AsyncIterator[Stage]:
    """A running cluster of eight; nothing of it is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="cluster_pool-rolling-"))
    proxy: asyncio.subprocess.Process | None = None
    nodes: list[Node] = []
    with EmbeddedServer() as redis:
        try:
            front, *free = _free_ports(2 * NODES + 1)
            ports = list(zip(free[:NODES], free[NODES:], strict=True))
            nodes = [
                Node(way, redis.url, index, pair, rate, folder / f"{index}.log")
                for index, pair in enumerate(ports)
            ]
            await asyncio.gather(*[node.start() for node in nodes])
            proxy = await _haproxy(folder, ports, front)
            yield Stage(redis, nodes, front)
        finally:
            if proxy is not None and proxy.returncode is None:
                proxy.kill()
                await proxy.wait()
            await asyncio.gather(*[node.kill() for node in nodes])
            shutil.rmtree(folder, ignore_errors=True)


async def _haproxy(
    folder: Path, ports: list[tuple[int, int]], front: int
) -> asyncio.subprocess.Process:
    """HAProxy with deploy/haproxy.cfg, its three servers replaced by these."""
    servers = "\n".join(
        f"    server node{at} {HOST}:{port} agent-port {agent}"
        for at, (port, agent) in enumerate(ports)
    )
    head, *rest = SERVER.split(CONFIG.read_text())
    path = folder / "haproxy.cfg"
    path.write_text(head + servers + "".join(rest))
    process = await asyncio.create_subprocess_exec(
        *bound_to_parent([shutil.which("haproxy") or "haproxy", "-db", "-f", str(path)]),
        env={"CLUSTER_POOL_BIND": f"{HOST}:{front}"},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    async with asyncio.timeout(START_TIMEOUT):
        while not _accepts(front):
            if process.returncode is not None:
                raise RuntimeError(f"haproxy ended with {process.returncode}")
            await asyncio.sleep(0.05)
    return process


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True
