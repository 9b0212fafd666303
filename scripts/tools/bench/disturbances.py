"""The disturbances of ``moves``, and the nodes and clients that they happen to."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tools.bench.rolling import GRACE, NODES, SETTLED, Cluster, running
from tools.bench.stage import PATIENCE, Settings
from tools.harness.comers import Member
from tools.harness.ports import HOST
from tools.harness.programs import Program, program
from tools.harness.proxy import Proxy
from tools.harness.telling import APP

ROOM = 50
HISTORY = "room-*=20000,120,64MiB,targeted"
AWAY = 2.0
"""Seconds that a client stays away at most, in one trial: then messages are parked."""
CUT = 2.0
"""Seconds for which the nodes are cut off from Redis."""
SILENCE = 10.0
"""Seconds for which clients have no network."""


def room_of(index: int) -> str:
    """The room of a client."""
    return f"room-{index // ROOM}"


@dataclass
class Scene:
    """A cluster and its clients.

    Attributes:
        far: those that are all at the first node, over a network of their own.
        way: that network.
    """

    cluster: Cluster
    movers: Program
    members: list[Member]
    far: list[Member]
    way: Proxy

    async def away(self) -> None:
        """Wait until all clients are there."""
        async with asyncio.timeout(GRACE):
            while await self.movers.ask("away"):  # noqa: ASYNC110  # a process
                await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Disturbance:
    """Something that happens to a scene.

    Attributes:
        absent: seconds for which a client that was closed stays away at most.
        through: the nodes reach Redis through a network that can be cut.
        far: whether one client in so many as there are nodes has a network of its own.
    """

    what: str
    happen: Callable[[Scene], Awaitable[None]]
    absent: float = 0.0
    through: bool = False
    far: bool = False


async def restart(scene: Scene) -> None:
    """Every node, one after another."""
    fleet = scene.cluster.fleet
    for name in list(fleet.nodes):
        await fleet.replace(name, seconds=GRACE + 30)
        await asyncio.sleep(SETTLED)


async def kill(scene: Scene) -> None:
    """One node, by SIGKILL."""
    scene.cluster.fleet.nodes["node-0"].signal(signal.SIGKILL)
    await asyncio.sleep(SETTLED)


async def cut_off(scene: Scene) -> None:
    """The nodes lose their links to Redis and can make none; the sender is not cut off."""
    await scene.cluster.network.refuse()
    await asyncio.sleep(CUT)
    await scene.cluster.network.accept()
    await asyncio.sleep(SETTLED)


async def empty(scene: Scene) -> None:
    """Redis is killed, and started without what it held."""
    scene.cluster.redis.kill()
    scene.cluster.redis.start()
    await asyncio.sleep(SETTLED)


async def lose_network(scene: Scene) -> None:
    """Clients of the first node hear nothing and can say nothing, and neither end is told; then
    they come back at the other nodes. The sockets at the first one stay open."""
    scene.way.strand()
    await asyncio.sleep(SILENCE)
    ports = [node.port for name, node in scene.cluster.fleet.nodes.items() if name != "node-0"]
    await scene.movers.ask("abandon", members=scene.far, ports=ports)
    await asyncio.sleep(SETTLED)


ALL = (
    Disturbance("rolling restart", restart),
    Disturbance(f"rolling restart, clients away for up to {AWAY:g} s", restart, absent=AWAY),
    Disturbance("kill -9 of one node in eight", kill),
    Disturbance(f"nodes cut off from Redis for {CUT:g} s", cut_off, through=True),
    Disturbance("Redis restarted empty", empty),
    Disturbance(f"one client in eight without a network for {SILENCE:g} s", lose_network, far=True),
)


@contextlib.asynccontextmanager
async def scene(one: Disturbance, settings: Settings) -> AsyncIterator[Scene]:
    """The cluster and the clients for a disturbance, all of them there."""
    members = [(room_of(at), f"client-{at}") for at in range(settings.restarted)]
    far = members[::NODES] if one.far else []
    others = [member for at, member in enumerate(members) if not one.far or at % NODES]
    options = ("--history", HISTORY, "--app", APP)
    async with (
        running(settings.close_rate, *options, through=one.through) as cluster,
        Proxy((HOST, cluster.fleet.nodes["node-0"].port)) as way,
        program("tools.harness.movers", patience=PATIENCE) as movers,
    ):
        places: list[dict[str, Any]] = [
            {"port": way.port, "members": far},
            {"port": cluster.front, "members": others},
        ]
        for place in places:
            await movers.ask("come", absent=one.absent, **place)
        yield Scene(cluster, movers, members, far, way)
        await movers.ask("leave")
