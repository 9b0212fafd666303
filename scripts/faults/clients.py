"""Real WebSocket clients with fixed ids, that come back when they are cut and keep what they hear.

Run as ``python -m faults.clients``. What they heard is judged by the runner's account.
"""

import asyncio
import random
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from faults.programs import obey, tell

PAUSE = 0.3
"""Seconds, at most, until a client comes back or tries again."""


class Seen:
    """One connection as its client saw it."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.opened = time.monotonic()
        self.closed: float | None = None
        self.code: int | None = None
        self.heard: list[str] = []
        self.last: dict[str, int] = {}
        """The number last heard of each sender."""

    def hear(self, message: str) -> None:
        """A message is ``SENDER NUMBER``."""
        self.heard.append(message)
        sender, number = message.split(" ")
        self.last[sender] = int(number)


class Client:
    """Keeps one connection open; an older one is read until it is closed."""

    def __init__(self, namespace: str, id: str, nodes: dict[str, int], at: str) -> None:
        self.namespace = namespace
        self.id = id
        self.seen: list[Seen] = []
        self.newest: Seen | None = None
        self._nodes = nodes
        self._wanting = asyncio.Event()
        self._wanting.set()
        self._at = at
        self._readers: set[asyncio.Task[None]] = set()
        self._keeper = asyncio.create_task(self._keep())

    @property
    def open(self) -> bool:
        """Whether it is where it wants to be."""
        return self.newest is not None and self.newest.closed is None and not self._wanting.is_set()

    def move(self, at: str = "") -> None:
        """Open another connection, at this node or at any."""
        self._at = at
        self._wanting.set()

    async def _keep(self) -> None:
        while True:
            await self._wanting.wait()
            at, self._at = self._at or random.choice(list(self._nodes)), ""
            url = f"ws://127.0.0.1:{self._nodes[at]}/ws/{self.namespace}?id={self.id}"
            try:
                websocket = await connect(url, compression=None, ping_interval=None, proxy=None)
            except (OSError, WebSocketException):
                await asyncio.sleep(random.uniform(0, PAUSE))
                continue
            self.newest = Seen(at)
            self.seen.append(self.newest)
            self._wanting.clear()
            reader = asyncio.create_task(self._read(websocket, self.newest))
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)

    async def _read(self, websocket: ClientConnection, seen: Seen) -> None:
        async with websocket:
            try:
                while True:
                    seen.hear(str(await websocket.recv()))
            except ConnectionClosed:
                seen.closed, seen.code = time.monotonic(), websocket.close_code
        await asyncio.sleep(random.uniform(0, PAUSE))
        if seen is self.newest:
            self._wanting.set()


class Commands:
    """What the clients can be asked to do."""

    def __init__(self) -> None:
        self._nodes: dict[str, int] = {}
        self._clients: list[Client] = []

    async def nodes(self, ports: dict[str, int]) -> None:
        """Where clients may go: node ids and their ports."""
        self._nodes.clear()
        self._nodes.update(ports)

    async def come(self, members: list[tuple[str, str]]) -> None:
        """Open a client for each (namespace, id), spread over the nodes."""
        names = list(self._nodes)
        for at, (namespace, id) in enumerate(members):
            node = names[at % len(names)]
            self._clients.append(Client(namespace, id, self._nodes, node))

    async def move(self, node: str) -> None:
        """Every second client of a node goes elsewhere, and leaves its connection as it is."""
        there = [one for one in self._clients if one.newest and one.newest.node == node]
        for client in there[::2]:
            client.move()

    async def spread(self) -> None:
        """Let clients of crowded nodes go to the others, until each has its share."""
        crowds: dict[str, list[Client]] = {name: [] for name in self._nodes}
        for client in self._clients:
            if client.newest is not None and client.newest.node in crowds:
                crowds[client.newest.node].append(client)
        share = len(self._clients) // len(crowds)
        spare = [client for crowd in crowds.values() for client in crowd[share + 1 :]]
        for name, crowd in crowds.items():
            for _ in range(min(share - len(crowd), len(spare))):
                spare.pop().move(name)

    async def away(self) -> int:
        """How many clients are not connected."""
        return sum(not client.open for client in self._clients)

    async def behind(self, marks: dict[str, dict[str, int]]) -> int:
        """How many open connections have not heard these numbers: namespace, sender, number."""
        return sum(
            seen.last.get(sender, 0) < number
            for client in self._clients
            for seen in client.seen
            if seen.closed is None
            for sender, number in marks[client.namespace].items()
        )

    async def collect(self) -> list[dict[str, Any]]:
        """What every connection heard since the last time; those that ended are then forgotten."""
        collected = []
        for client in self._clients:
            for seen in client.seen:
                about = vars(seen) | {"namespace": client.namespace, "id": client.id}
                del about["last"]
                collected.append(about)
                seen.heard = []
            client.seen = [seen for seen in client.seen if seen.closed is None]
        return collected


async def main() -> None:
    """Be there until standard input ends; that cuts every connection."""
    commands = Commands()
    tell("answer", None)
    names = ("nodes", "come", "move", "spread", "away", "behind", "collect")
    await obey({name: getattr(commands, name) for name in names})


if __name__ == "__main__":
    asyncio.run(main())
