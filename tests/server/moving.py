"""Plain clients that come back, and a sender of numbered messages."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from cluster_pool import History
from cluster_pool.core.client_frames import V1

ROOM = "room:7"
ROOMS = {"room:*": History(replay_targeted_without_user=True)}


class Place(Protocol):
    """A node, or what stands in front of nodes."""

    @property
    def port(self) -> int:
        """Where it listens."""


class Mover:
    """A plain client that comes back at once, each time to the next node."""

    def __init__(self, id: str, places: Sequence[Place]) -> None:
        self.id = id
        self.got: list[str] = []
        self.moves = 0
        self._places = places
        self._over = False
        self._socket: Any = None
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._over:
            place = self._places[self.moves % len(self._places)]
            uri = f"ws://127.0.0.1:{place.port}/ws/{ROOM}?id={self.id}"
            with contextlib.suppress(ConnectionClosed, InvalidHandshake, OSError):
                async with connect(uri) as self._socket:
                    async for message in self._socket:
                        self.got.append(message)
            self.moves += 1

    async def end(self) -> None:
        """Go for good."""
        self._over = True
        await self._socket.close()
        await self._task


class Sender:
    """Sends numbered messages, one after another."""

    def __init__(self, send: Callable[[str], Any]) -> None:
        self.sent = 0
        self._over = False
        self._send = send
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._over:
            self.sent += 1
            await self._send(str(self.sent))
            await asyncio.sleep(0.002)

    async def end(self) -> list[str]:
        """Send no more; gives all that was sent."""
        self._over = True
        await self._task
        return [str(number) for number in range(1, self.sent + 1)]


class Talker:
    """A client of ``cluster-pool.v1`` that comes back at once and joins its room again."""

    def __init__(self, id: str, servers: Sequence[Place]) -> None:
        self.id = id
        self.got: list[str] = []
        self.moves = 0
        self.answers: list[bool | None] = []
        self._servers = servers
        self._over = False
        self._socket: Any = None
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._over:
            server = self._servers[self.moves % len(self._servers)]
            uri = f"ws://127.0.0.1:{server.port}/ws/lobby?id={self.id}"
            with contextlib.suppress(ConnectionClosed):
                async with connect(uri, subprotocols=[V1]) as self._socket:
                    await self._socket.send(json.dumps({"join": ROOM, "ref": 1}))
                    async for text in self._socket:
                        self._read(json.loads(text))
            self.moves += 1

    def _read(self, frame: dict[str, Any]) -> None:
        if frame.get("ref") == 1:
            self.answers.append(frame.get("recovered"))
        elif frame.get("ns") == ROOM:
            self.got.append(frame["m"])

    async def end(self) -> None:
        """Go for good."""
        self._over = True
        await self._socket.close()
        await self._task
