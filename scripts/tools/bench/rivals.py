"""The rolling restart of ``moves`` with others: Socket.IO and its connection state recovery.

As many nodes behind HAProxy, the same messages, rooms, and clients that come back 0 ms after they
are closed. The clients speak Socket.IO and carry what its own client carries: the session and the
offset of the last message. A node closes all its clients at once; there is no pace to set.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from cluster_pool import SendResult
from tools.bench.disturbances import room_of
from tools.bench.moves import Senders, Trial, rows, settled
from tools.bench.rolling import GRACE, NODES, SETTLED
from tools.bench.stage import PATIENCE, Settings, Tell
from tools.bench.table import Row
from tools.contenders.line_up import RECOVERING
from tools.harness.haproxy import running
from tools.harness.linux import Busy
from tools.harness.ports import HOST, accepts, free_port
from tools.harness.programs import Program, program
from tools.harness.servers import RedisServer

WHAT = f"{RECOVERING.name}, rolling restart"
CONFIGURATION = """\
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    option redispatch 1
    retries 3
    retry-on conn-failure
listen front
    bind {host}:{front}
    balance leastconn
    option httpchk GET /
    default-server check inter 1s fall 1 rise 2 on-marked-down shutdown-sessions
"""


class Emitter:
    """A sender: a node without clients. It tells nobody whether a message reached anyone."""

    def __init__(self, node: Program) -> None:
        self._node = node

    async def broadcast_message(self, room: str, text: str) -> int:
        """To everybody in a room."""
        await self._node.ask("send", room=room, text=text)
        return 1

    async def send(self, room: str, id: str, text: str) -> SendResult:
        """To the room that an id has for itself."""
        await self._node.ask("send", room=id, text=text)
        return SendResult.ROUTED


@contextlib.contextmanager
def balancer(ports: list[int], front: int) -> Iterator[None]:
    """HAProxy before these ports."""
    text = CONFIGURATION.format(host=HOST, front=front)
    text += "".join(f"    server node{port} {HOST}:{port}\n" for port in ports)
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder) / "haproxy.cfg").write_text(text)
        with running(["haproxy", "-db", "-f", str(file)]):
            yield


@contextlib.asynccontextmanager
async def cluster() -> AsyncIterator[tuple[list[Program], Program, int, RedisServer]]:
    """Nodes, one more that sends, and the port of HAProxy."""
    front, ports = free_port(), [free_port() for _ in range(NODES)]
    nodes: list[Program] = []
    with RedisServer() as redis, balancer(ports, front):
        try:
            nodes += await asyncio.gather(*[node(redis, port) for port in [*ports, 0]])
            async with asyncio.timeout(GRACE):
                while not accepts(front):  # noqa: ASYNC110  # a process
                    await asyncio.sleep(0.05)
            await asyncio.sleep(SETTLED)
            yield nodes, nodes[-1], front, redis
        finally:
            await asyncio.gather(*[one.stop() for one in nodes])


async def node(redis: RedisServer, port: int) -> Program:
    """One node, ready."""
    command = RECOVERING.command(redis.url, str(port))
    return await Program.launch(RECOVERING.name, command, patience=PATIENCE)


async def _trial(settings: Settings) -> Trial:
    members = [(room_of(at), f"client-{at}") for at in range(settings.restarted)]
    async with (
        cluster() as (nodes, sender, front, redis),
        program("tools.contenders.recovering_clients", patience=PATIENCE) as clients,
    ):
        await clients.ask("come", port=front, members=members)
        busy = Busy()
        emitter: Any = Emitter(sender)
        async with Senders(emitter, members) as senders:
            await asyncio.sleep(2)
            for at, one in enumerate(nodes[:-1]):
                port = one.hello["port"]
                await one.stop()
                nodes[at] = await node(redis, port)
                await asyncio.sleep(SETTLED)
            async with asyncio.timeout(GRACE):
                while await clients.ask("away"):  # noqa: ASYNC110  # a process
                    await asyncio.sleep(0.2)
            await asyncio.sleep(2)
        share = busy.share()
        report = await settled(clients, senders) | await clients.ask("report")
        await clients.ask("leave")
    return Trial(report, senders.results, share)


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """A rolling restart, if it is installed."""
    if missing := RECOVERING.missing():
        return [Row(WHAT, "", [], note=f"not installed: {missing}")]
    tell(f"rivals: {NODES} nodes, {settings.restarted:,} clients: {WHAT}")
    made = rows(WHAT, await _trial(settings))
    for row in made:
        row.wrong = ""  # others promise nothing of the kind
    made[0].note += f"; {RECOVERING.versions()}"
    return made
