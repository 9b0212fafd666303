"""Real WebSocket clients with fixed ids, that come back when they are cut and keep what they hear.

Run as ``python -m tools.chaos.clients``. What they heard is judged by the runner's account. Those
of the dense namespaces stay; some of the sparse ones come and go.
"""

import asyncio
import random
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tools.chaos import sparse
from tools.harness.obeying import answer, obey_object

PAUSE = 0.3
"""Seconds, at most, until a client comes back or tries again."""
LONGEST = 3.0
"""The same for a sparse one that was refused again and again: there are many of them."""


class Seen:
    """One connection as its client saw it."""

    def __init__(self, node: str, websocket: ClientConnection) -> None:
        self.node = node
        self.opened = time.monotonic()
        self.closed: float | None = None
        self.left: float | None = None
        self.code: int | None = None
        self.heard: list[str] = []
        self.last: dict[str, int] = {}
        """The number last heard of each sender."""
        self.websocket = websocket

    def hear(self, message: str) -> None:
        """A message is ``SENDER NUMBER``, and perhaps more."""
        sender, number, *_ = message.split(" ", 2)
        self.heard.append(f"{sender} {number}")
        self.last[sender] = int(number)

    def about(self) -> dict[str, Any]:
        """For the books."""
        names = ("node", "opened", "closed", "left", "code", "heard")
        return {name: getattr(self, name) for name in names}


class Client:
    """Keeps one connection open; an older one is read until it is closed."""

    def __init__(self, namespace: str, id: str, nodes: dict[str, int], at: str) -> None:
        self.namespace = namespace
        self.id = id
        self.seen: list[Seen] = []
        self.newest: Seen | None = None
        self.sparse = sparse.is_sparse(namespace)
        self._nodes = nodes
        self._wanting = asyncio.Event()
        self._wanting.set()
        self._at = at
        self._leaving = False
        self._longest = LONGEST if self.sparse else PAUSE
        self._readers: set[asyncio.Task[None]] = set()
        self._keeper = asyncio.create_task(self._keep())

    @property
    def open(self) -> bool:
        """Whether it is where it wants to be."""
        return self.newest is not None and self.newest.closed is None and not self._wanting.is_set()

    @property
    def settled(self) -> bool:
        """Whether it is open, or away by its own will."""
        if self._wanting.is_set():
            return False
        return self.open or (self.newest is not None and self.newest.left is not None)

    def move(self, at: str = "") -> None:
        """Open another connection, at this node or at any."""
        self._at = at
        self._wanting.set()

    async def leave(self) -> None:
        """Close the connection and stay away until told to :meth:`move`."""
        seen = self.newest
        if seen is not None and self.open:
            seen.left = time.monotonic()
            await seen.websocket.close()

    async def _keep(self) -> None:
        pause = PAUSE
        while True:
            await self._wanting.wait()
            at, self._at = self._at or random.choice(list(self._nodes)), ""
            if await self._connect(at):
                pause = PAUSE
            else:
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(2 * pause, self._longest)

    async def _connect(self, at: str) -> bool:
        url = f"ws://127.0.0.1:{self._nodes.get(at, 1)}/ws/{self.namespace}?id={self.id}"
        try:
            websocket = await connect(url, compression=None, ping_interval=None, proxy=None)
        except (OSError, WebSocketException):
            return False
        self.newest = Seen(at, websocket)
        self.seen.append(self.newest)
        self._wanting.clear()
        reader = asyncio.create_task(self._read(websocket, self.newest))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)
        return True

    async def _read(self, websocket: ClientConnection, seen: Seen) -> None:
        async with websocket:
            try:
                while True:
                    seen.hear(str(await websocket.recv()))
            except ConnectionClosed:
                seen.closed, seen.code = time.monotonic(), websocket.close_code
        if seen.left is not None:
            return
        await asyncio.sleep(random.uniform(0, PAUSE))
        if seen is self.newest:
            self._wanting.set()


class Visits:
    """Lets clients go, come back and change places, each at its own times.

    Before its namespace is left alone a client goes and comes back once more, and then stays: what
    Redis keeps of a namespace without members, it keeps for a minute.
    """

    HERE = (2.0, 40.0)
    AWAY = ((0.1, 0.6), (0.5, 3.0), (3.0, 10.0))
    """Seconds; the linger of a subscription is 1."""
    RELOAD = 3.0
    HOPS = 0.3
    """The share of those who change places without leaving first."""

    def __init__(self) -> None:
        self._going_on = asyncio.Event()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, client: Client) -> None:
        """Let this client come and go."""
        self._tasks.add(asyncio.create_task(self._visit(client)))

    def go_on(self, yes: bool) -> None:
        """Whether clients may begin to go or to come."""
        if yes:
            self._going_on.set()
        else:
            self._going_on.clear()

    @property
    def under_way(self) -> int:
        """How many are about to leave at this moment."""
        return self._under_way

    def _stay(self, namespace: str, now: float) -> float:
        """For how many seconds from now on a client stays."""
        sleep = sparse.next_sleep(namespace, now)
        if sleep <= now:
            return sleep + sparse.SLEEP - now + random.uniform(*self.HERE)
        return min(random.uniform(*self.HERE), sleep - now + random.uniform(0, self.RELOAD))

    async def _visit(self, client: Client) -> None:
        while True:
            await asyncio.sleep(self._stay(client.namespace, time.monotonic()))
            await self._going_on.wait()
            if sparse.asleep(client.namespace, time.monotonic()) and random.random() < 0.5:
                await self._reload(client)
                continue
            if random.random() < self.HOPS and client.open:
                client.move()
                continue
            await self._leave(client)
            await asyncio.sleep(random.uniform(*random.choice(self.AWAY)))
            await self._going_on.wait()
            client.move()

    async def _leave(self, client: Client) -> None:
        self._under_way += 1
        try:
            await client.leave()
        finally:
            self._under_way -= 1

    async def _reload(self, client: Client) -> None:
        """Go, and come back to the same node soon: its channel is still subscribed then."""
        node = client.newest.node if client.newest is not None else ""
        await self._leave(client)
        await asyncio.sleep(random.uniform(*self.AWAY[0]))
        client.move(node)


class Commands:
    """The commands of the clients."""

    def __init__(self) -> None:
        self._nodes: dict[str, int] = {}
        self._clients: list[Client] = []
        self._visits = Visits()

    async def nodes(self, ports: dict[str, int]) -> None:
        """Where clients may go: node ids and their ports."""
        self._nodes.clear()
        self._nodes.update(ports)

    async def come(self, members: list[tuple[str, str]]) -> None:
        """Open a client for each (namespace, id), spread over the nodes."""
        names = list(self._nodes)
        for at, (namespace, id) in enumerate(members):
            client = Client(namespace, id, self._nodes, names[at % len(names)])
            self._clients.append(client)
            if client.sparse and not sparse.is_steady(namespace):
                self._visits.add(client)

    async def move(self, node: str) -> None:
        """Every second client of a node goes elsewhere, and leaves its connection as it is."""
        there = [one for one in self._clients if one.newest and one.newest.node == node]
        for client in [one for one in there if one.open][::2]:
            client.move()

    async def spread(self) -> None:
        """Let clients of crowded nodes go to the others, until each has its share."""
        for of in (True, False):
            self._spread([client for client in self._clients if client.sparse is of])

    def _spread(self, clients: list[Client]) -> None:
        crowds: dict[str, list[Client]] = {name: [] for name in self._nodes}
        for client in clients:
            if client.open and client.newest is not None and client.newest.node in crowds:
                crowds[client.newest.node].append(client)
        share = len(clients) // len(crowds)
        spare = [client for crowd in crowds.values() for client in crowd[share + 1 :]]
        for name, crowd in crowds.items():
            for _ in range(min(share - len(crowd), len(spare))):
                spare.pop().move(name)

    async def visits(self, going_on: bool) -> None:
        """Whether clients come and go."""
        self._visits.go_on(going_on)

    async def away(self) -> int:
        """How many clients of the dense namespaces are not connected."""
        return sum(not client.open for client in self._clients if not client.sparse)

    async def unsettled(self) -> int:
        """How many clients are neither connected nor away by their own will."""
        return self._visits.under_way + sum(not client.settled for client in self._clients)

    async def present(self) -> list[tuple[str, str, str]]:
        """Every open connection: namespace, id, node."""
        return [
            (client.namespace, client.id, seen.node)
            for client in self._clients
            for seen in client.seen
            if seen.closed is None
        ]

    async def heard(self) -> int:
        """How many messages were heard since the last collect."""
        return sum(len(seen.heard) for client in self._clients for seen in client.seen)

    async def behind(self, marks: dict[str, dict[str, int]]) -> int:
        """How many open connections have not heard these numbers: namespace, sender, number."""
        return sum(
            seen.last.get(sender, 0) < number
            for client in self._clients
            for seen in client.seen
            if seen.closed is None
            for sender, number in marks.get(client.namespace, {}).items()
        )

    async def collect(self) -> list[dict[str, Any]]:
        """The messages of every connection since the last call; ended ones are then forgotten."""
        collected = []
        for client in self._clients:
            for seen in client.seen:
                collected.append({**seen.about(), "namespace": client.namespace, "id": client.id})
                seen.heard = []
            client.seen = [seen for seen in client.seen if seen.closed is None]
        return collected


async def main() -> None:
    """Be there until standard input ends; that cuts every connection."""
    commands = Commands()
    answer()
    await obey_object(commands)


if __name__ == "__main__":
    asyncio.run(main())
