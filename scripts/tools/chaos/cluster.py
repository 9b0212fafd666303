"""Everything that runs: Redis, a proxy and a program for each place, the clients, a raw publisher.

Nothing here injects a fault; it starts, asks, waits, replaces and stops.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from tools.chaos import past, sparse
from tools.chaos.books import CROWDS, Books
from tools.chaos.command_line import CommandLine
from tools.chaos.ledger import Ledger
from tools.chaos.people import People
from tools.chaos.place import Place
from tools.chaos.publisher import RawPublisher
from tools.chaos.rest import Rest
from tools.chaos.roaming import rooms_of
from tools.chaos.rooms import compare_rooms
from tools.chaos.streams import large_for
from tools.harness.internals import Keys
from tools.harness.programs import Program
from tools.harness.redis_cluster import RedisCluster
from tools.harness.redis_sentinel import RedisSentinel
from tools.harness.servers import RedisServer

ANY = SINGLE, CLUSTER, SENTINEL = "single", "cluster", "sentinel"
"""The kinds of Redis: one server; three primaries with a replica each; a primary and its replica
under three sentinels."""
NAMESPACES = ["red", "green", "blue"]
STEADY = 1.0
"""Seconds for which every node must be ready, and the same, to be called ready again."""
PATIENCE = 60.0
CLOSING_TIME = 10.0
"""Seconds until the last message of each sender must have arrived everywhere."""
SILENCE = 0.5
"""Seconds in which nobody hears anything when all has arrived."""
RAW_SHARE, SPARSE_RATE, PAST_RATE, ROAMING_RATE = 0.05, 100.0, 60.0, 50.0


@dataclass(frozen=True)
class Settings:
    """How much of everything; see ``--help``."""

    nodes: int = 3
    clients: int = 60
    rate: float = 200.0
    seed: int = 0
    server: str = ""
    sparse: int = 320
    members: int = 300
    topology: str = SINGLE
    commands: int = 20
    rooms: int = 40
    visits: int = 50
    past: int = 24

    @property
    def crowds(self) -> list[str]:
        """The namespaces of members without a WebSocket: one for each shard."""
        return [*CROWDS][: 3 if self.topology == CLUSTER else 1]


Redis: TypeAlias = "RedisServer | RedisCluster | RedisSentinel"


class NotReadyError(Exception):
    """Something did not come back in time."""


class Cluster:
    """The processes of a run; see :func:`running`."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        places: list[Place],
        outside: Place,
        clients: Program,
        ledger: Ledger,
    ) -> None:
        self.settings = settings
        self.redis = redis
        self.places = places
        """The places of nodes."""
        self.senders = [*places, outside]
        """The places of nodes, and that of the publisher outside."""
        self.clients = clients
        self.ledger = ledger
        self.members = [
            (NAMESPACES[at % len(NAMESPACES)], f"client-{at}") for at in range(settings.clients)
        ]
        self.namespaces = sparse.names(settings.sparse)
        self.visitors = [(name, id) for name in self.namespaces for id in sparse.ids(name)]
        self.returning = [(name, id) for name in past.names(settings.past) for id in past.ids(name)]
        self.publisher = RawPublisher(
            *(redis.path_of, settings.topology == CLUSTER, ledger, NAMESPACES, settings.seed)
        )
        self.command_line = CommandLine(redis.url, self.members, ledger, settings.seed)
        self.people = People(places, outside, redis.command, ledger, settings.seed)
        self._undelivered: dict[str, int] = {}
        self._rest = Rest()

    # -- the stream ------------------------------------------------------------------------

    async def begin(self) -> None:
        """Let every node and publisher send at its share of the rates, and clients come and go."""
        await asyncio.gather(*[self.begin_at(place) for place in self.senders])
        self.publisher.begin(self.settings.rate * RAW_SHARE)
        if self.settings.commands:
            self.command_line.begin(60 / self.settings.commands)
        await self.clients.ask("visits", going_on=True)

    async def begin_at(self, place: Place) -> None:
        """Let one program send."""
        await place.program.ask(
            "begin",
            targets=self.members,
            rate=self.settings.rate * (1 - RAW_SHARE) / len(self.senders),
            namespaces=self.namespaces,
            sparse_rate=SPARSE_RATE / len(self.senders),
            large=large_for(len(self.senders)),
            past=self.returning,
            past_rate=PAST_RATE / len(self.senders),
        )
        if place.members and self.settings.rooms:
            rate = ROAMING_RATE / len(self.places)
            await place.program.ask("roam", rooms=rooms_of(self.settings.rooms), rate=rate)
        if place.kind == "node" and self.settings.visits:
            rate = self.settings.visits / len(self.places)
            await place.program.ask("visit", rate=rate)

    async def close_books(self) -> tuple[Books, dict[str, dict[str, Any]]]:
        """End the streams, wait until all has arrived; gives the books and the nodes' figures.

        Messages of one sender arrive in order: when the last one has, all have that ever will. A
        last one to each quiet namespace would wake it, so there silence must do.
        """
        await self.clients.ask("visits", going_on=False)
        await self.command_line.end()
        marks: dict[str, dict[str, int]] = {name: {} for name in NAMESPACES}
        ends = [place.program.ask("end", namespaces=NAMESPACES) for place in self.senders]
        for place, last in zip(self.senders, await asyncio.gather(*ends), strict=True):
            for name, number in last.items():
                marks[name][place.node] = number
        for name, (sender, number) in (await self.publisher.end()).items():
            marks[name][sender] = number
        await self._arrived(marks)
        registry = await self._settled_registry()
        roamed, ghosts = await compare_rooms(self.places, rooms_of(self.settings.rooms))
        people, wrong_people = await self.people.failures()
        figures, restless = await self._at_rest()
        collected = await self.clients.ask("collect")
        undelivered = self._newly_undelivered(figures)
        wrong = ghosts + wrong_people + restless
        counted = roamed, people
        return self.ledger.close(collected, registry, undelivered, wrong, *counted), figures

    async def _arrived(self, marks: dict[str, dict[str, int]]) -> None:
        """Too late is no error here: what has not arrived is for the account to find."""
        deadline = time.monotonic() + CLOSING_TIME
        heard, since = -1, time.monotonic()
        while (now := time.monotonic()) < deadline:
            behind = await self.clients.ask("behind", marks=marks)
            unsettled = await self.clients.ask("unsettled")
            before, heard = heard, await self.clients.ask("heard")
            if behind or unsettled or heard != before:
                since = now
            elif now - since >= SILENCE:
                return
            await asyncio.sleep(0.05)

    async def _settled_registry(self) -> list[list[str]]:
        """Every member, when these are the open connections; or as it is when that does not come.

        What has left a moment ago may still be there.
        """
        deadline = time.monotonic() + CLOSING_TIME
        names = [*NAMESPACES, *self.namespaces, *past.names(self.settings.past)]
        while True:
            registry: list[list[str]]
            registry = await self.places[0].program.ask("registry", namespaces=names)
            present = await self.clients.ask("present")
            if sorted(registry) == sorted(present) or time.monotonic() > deadline:
                return registry
            await asyncio.sleep(0.2)

    async def _at_rest(self) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """The nodes' figures, and what some program still does though nobody asks it for more."""
        deadline = time.monotonic() + CLOSING_TIME
        while True:
            figures = await self.figures()
            restless = self._rest.failures(figures)
            if not restless or time.monotonic() > deadline:
                self._rest.said(restless)
                return figures, restless
            await asyncio.sleep(0.2)

    async def figures(self) -> dict[str, dict[str, Any]]:
        """The counters and holdings of each program."""
        asked = [place.program.ask("figures") for place in self.senders]
        said = await asyncio.gather(*asked)
        return {place.node: one for place, one in zip(self.senders, said, strict=True)}

    def _newly_undelivered(self, figures: dict[str, dict[str, Any]]) -> int:
        nodes = [place.node for place in self.places]
        before, self._undelivered = (
            self._undelivered,
            {node: figures[node]["undelivered"] + figures[node]["refused"] for node in nodes},
        )
        return sum(count - before.get(node, 0) for node, count in self._undelivered.items())

    # -- being ready -----------------------------------------------------------------------

    async def states(self) -> dict[str, list[Any]]:
        """The state of each node and of the publisher outside; first, whether it is well."""
        said = await asyncio.gather(*[place.program.ask("state") for place in self.senders])
        return {place.node: state for place, state in zip(self.senders, said, strict=True)}

    async def wait_ready(self) -> float:
        """Wait until every node is well and every client connected, and both stay so for a while.

        Returns:
            When that began.
        """
        deadline = time.monotonic() + PATIENCE
        before, since = None, time.monotonic()
        while True:
            states = await self.states()
            away = await self.clients.ask("away")
            now = time.monotonic()
            if away or not all(well for well, *_ in states.values()) or states != before:
                before, since = states, now
            elif now - since >= STEADY:
                return since
            if now > deadline:
                raise NotReadyError(f"not ready: nodes {states}, {away} clients away")
            await asyncio.sleep(0.05)

    async def wait_registered(self) -> float:
        """Wait until the crowds of the nodes there are are registered, and of no other.

        Returns:
            When that was so.
        """
        deadline = time.monotonic() + PATIENCE
        while wrong := await self._not_registered():
            if time.monotonic() > deadline:
                raise NotReadyError(wrong)
            await asyncio.sleep(0.05)
        return time.monotonic()

    async def _not_registered(self) -> str:
        """The first crowd of which Redis has not what the nodes hold; "" for none."""
        states = await self.states()
        held = {states[place.node][2]: str(place.members) for place in self.places if place.members}
        for crowd in self.settings.crowds:
            owners = Keys().owners(crowd)
            said = await asyncio.to_thread(self.redis.command, "HGETALL", owners)
            words = iter(said.split("\r\n")[2::2])
            counts = {name: n for name, n in zip(words, words, strict=False) if name[-1] != "#"}
            if counts != held:
                return f"{owners} is {counts}, not {held}"
        return ""

    async def shout(self, namespace: str, message: str) -> None:
        """PUBLISH to a namespace of which no books are kept."""
        await asyncio.to_thread(self.redis.command, "PUBLISH", Keys().channel(namespace), message)

    async def spread(self) -> None:
        """Let clients of crowded nodes go to others, and wait for those of the dense namespaces.

        A takeover behind the snapshot, whose news are lost, is undone by it for a while.
        """
        await self.clients.ask("spread")
        deadline = time.monotonic() + PATIENCE
        while away := await self.clients.ask("away"):
            if time.monotonic() > deadline:
                raise NotReadyError(f"{away} clients cannot move")
            await asyncio.sleep(0.05)

    async def wait_settled(self) -> None:
        """Wait until every client is connected, or away by its own will."""
        deadline = time.monotonic() + PATIENCE
        while unsettled := await self.clients.ask("unsettled"):
            if time.monotonic() > deadline:
                raise NotReadyError(f"{unsettled} clients cannot connect")
            await asyncio.sleep(0.05)

    async def replace(self, place: Place, *, kill: bool) -> None:
        """Kill the node of a place, or stop it, and start a fresh one there."""
        self.ledger.killed.add(place.node)
        place.away = True
        await self.list_nodes()
        await (place.program.kill() if kill else place.stop())
        await place.start()
        place.away = False
        await self.begin_at(place)
        await self.list_nodes()

    async def list_nodes(self) -> None:
        """Tell the clients where they may go."""
        ports = {place.node: place.port for place in self.places if not place.away}
        await self.clients.ask("nodes", ports=ports)


def _redis(settings: Settings) -> Redis:
    def make(*options: str) -> RedisServer:
        return RedisServer(settings.server, *options)

    if settings.topology == CLUSTER:
        return RedisCluster(make, "--cluster-require-full-coverage", "no", apart=True)
    if settings.topology == SENTINEL:
        return RedisSentinel(make, program=settings.server, apart=True)
    return make()


@contextlib.asynccontextmanager
async def running(settings: Settings, ledger: Ledger) -> AsyncIterator[Cluster]:
    """Start everything, with every client connected and no message sent; stop it in the end."""
    async with contextlib.AsyncExitStack() as stack:
        redis = _redis(settings)
        stack.enter_context(redis)
        places = []
        for kind, number in (*(("node", at + 1) for at in range(settings.nodes)), ("outside", 1)):
            proxy = await stack.enter_async_context(redis.network())
            members = settings.members // settings.nodes if kind == "node" else 0
            place = Place(kind, number, proxy, ledger, members, settings.crowds)
            await place.start()
            stack.push_async_callback(place.stop)
            places.append(place)
        outside = places.pop()
        clients = await Program.start("tools.chaos.clients")
        stack.push_async_callback(clients.stop)
        cluster = Cluster(settings, redis, places, outside, clients, ledger)
        stack.push_async_callback(cluster.publisher.stop)
        stack.push_async_callback(cluster.command_line.end)
        await cluster.list_nodes()
        await clients.ask("come", members=[*cluster.members, *cluster.visitors, *cluster.returning])
        await cluster.wait_settled()
        await cluster.wait_ready()
        yield cluster
