"""A WebSocket client: it has a fixed id, comes back when it is cut, and keeps what it hears."""

import asyncio
import random
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tools.chaos import past, sparse

PAUSE = 0.3
"""Seconds, at most, until a client comes back or tries again."""
LONGEST = 3.0
"""The same for a sparse one that was refused again and again: there are many of them."""


class Seen:
    """One connection as its client saw it."""

    def __init__(self, node: str, websocket: ClientConnection, began: float, user: str) -> None:
        self.node = node
        self.began = began
        self.user = user
        self.tried: list[str] = []
        """The nodes that had refused it before, or were not there."""
        self.recovered = ""
        """The verdict on its past, if it has a past and was told."""
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
        if sender == past.VERDICT:
            self.recovered = number
            return
        self.heard.append(f"{sender} {number}")
        self.last[sender] = int(number)

    def about(self) -> dict[str, Any]:
        """For the books."""
        names = (
            "node",
            "opened",
            "closed",
            "left",
            "code",
            "heard",
            "began",
            "user",
            "recovered",
            "tried",
        )
        return {name: getattr(self, name) for name in names}


class Client:
    """Keeps one connection open; an older one is read until it is closed."""

    def __init__(self, namespace: str, id: str, nodes: dict[str, int], at: str) -> None:
        self.namespace = namespace
        self.id = id
        self.seen: list[Seen] = []
        self.newest: Seen | None = None
        self.user = past.users(id)[0] if past.has_users(namespace) else ""
        self.sparse = sparse.is_sparse(namespace) or past.has_past(namespace)
        self._nodes = nodes
        self._wanting = asyncio.Event()
        self._wanting.set()
        self._at = at
        self._began = 0.0
        """When it first tried to open the connection that it wants."""
        self._tried: list[str] = []
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

    async def cut(self) -> None:
        """End the connection without a Close, as a network does, and stay away like that."""
        seen = self.newest
        if seen is not None and self.open:
            seen.left = time.monotonic()
            seen.websocket.transport.abort()
            await seen.websocket.wait_closed()

    async def _keep(self) -> None:
        pause = PAUSE
        while True:
            await self._wanting.wait()
            self._began = self._began or time.monotonic()
            at, self._at = self._at or random.choice(list(self._nodes)), ""
            if await self._connect(at):
                pause, self._began, self._tried = PAUSE, 0.0, []
            else:
                self._tried.append(at)
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(2 * pause, self._longest)

    async def _connect(self, at: str) -> bool:
        url = f"ws://127.0.0.1:{self._nodes.get(at, 1)}/ws/{self.namespace}?id={self.id}"
        user = self.user
        headers = {past.USER: user} if user else {}
        try:
            websocket = await connect(
                url, compression=None, ping_interval=None, proxy=None, additional_headers=headers
            )
        except (OSError, WebSocketException):
            return False
        self.newest = Seen(at, websocket, self._began, user)
        self.newest.tried = self._tried
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
