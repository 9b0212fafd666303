"""Clients that come back 0 ms after they were closed, and a sender of messages to them.

Run as ``python -m tools.harness.comers`` it is a program with the clients' commands.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from cluster_pool import ClusterPoolError, Publisher, SendResult
from tools.harness.internals import loop_factory
from tools.harness.obeying import answer, obey_object
from tools.harness.ports import HOST

REFUSED_PAUSE = 0.25
"""Seconds, on average, that a client waits after it was refused."""
TOGETHER = 100

Member = tuple[str, str]
"""Namespace and id."""


class Comers:
    """Its methods are commands: :meth:`come` first, :meth:`leave` last.

    Attributes:
        heard: how often each message was.
        codes: how often a close had which code.
        refused: what went wrong with a handshake, how often.
        closed, back: when a client was closed, and when it was there again.
        handshakes: how long those took that were granted, in seconds.
    """

    def __init__(self) -> None:
        self._absent = 0.0
        self._tasks: dict[Member, asyncio.Task[None]] = {}
        self._open: dict[Member, ClientConnection] = {}
        self._left: list[ClientConnection] = []
        self.heard: Counter[str] = Counter()
        self.codes: Counter[int | None] = Counter()
        self.refused: Counter[str] = Counter()
        self.closed: list[float] = []
        self.back: list[float] = []
        self.handshakes: list[float] = []

    async def come(self, port: int, members: Sequence[Member], absent: float = 0.0) -> None:
        """Open all of them, wait until they are, and count from then on.

        Args:
            absent: seconds that a client stays away at most, at random, after it was closed.
        """
        self._absent = absent
        for at in range(0, len(members), TOGETHER):
            for namespace, id in members[at : at + TOGETHER]:
                self._go(port, (namespace, id))
            while await self.away():  # noqa: ASYNC110  # any of many tasks
                await asyncio.sleep(0.005)
        lists = (self.closed, self.back, self.handshakes)
        for counted in (self.heard, self.codes, self.refused, *lists):
            counted.clear()

    async def away(self) -> int:
        """How many are not open; none of them may have given up."""
        for task in self._tasks.values():
            if task.done():
                task.result()
        return len(self._tasks) - len(self._open)

    async def abandon(self, members: Sequence[Member], ports: Sequence[int]) -> None:
        """These leave their sockets open, unread and without a word, and come back at the ports in
        turn: their network is another one now."""
        gone = []
        for at, (namespace, id) in enumerate(members):
            member = namespace, id
            if (websocket := self._open.pop(member, None)) is not None:
                self._left.append(websocket)
            self._tasks[member].cancel()
            gone.append(self._tasks[member])
            self._go(ports[at % len(ports)], member)
        await asyncio.gather(*gone, return_exceptions=True)

    async def report(self) -> dict[str, Any]:
        """The events since the clients came."""
        names = ("heard", "codes", "refused", "closed", "back", "handshakes")
        return {name: getattr(self, name) for name in names}

    async def leave(self) -> None:
        """Come back no more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for websocket in self._left:
            websocket.transport.abort()

    def _go(self, port: int, member: Member) -> None:
        self._tasks[member] = asyncio.create_task(self._stay(port, member))

    def _opened(self, member: Member, began: float) -> None:
        """A client is there; its handshake began at this time."""

    def _path(self, member: Member) -> str:
        namespace, id = member
        return f"/ws/{namespace}?id={id}"

    async def _greet(self, websocket: ClientConnection, member: Member) -> None:
        """Say what the server wants to hear first."""

    def _hear(self, member: Member, text: str) -> None:
        """A client has got a message."""
        self.heard[text] += 1

    async def _stay(self, port: int, member: Member) -> None:
        url = f"ws://{HOST}:{port}{self._path(member)}"
        while True:
            began = time.monotonic()
            try:
                websocket = await connect(url, compression=None, ping_interval=None, proxy=None)
                await self._greet(websocket, member)
            except (InvalidHandshake, OSError, EOFError, ConnectionClosed) as error:
                self.refused[str(error)] += 1
                await asyncio.sleep(random.uniform(0, 2 * REFUSED_PAUSE))
                continue
            self.back.append(time.monotonic())
            self.handshakes.append(self.back[-1] - began)
            self._open[member] = websocket
            self._opened(member, began)
            try:
                await self._read(websocket, member)
            finally:
                if self._open.get(member) is websocket:  # it was not left
                    del self._open[member]
                    websocket.transport.abort()
            await asyncio.sleep(random.uniform(0, self._absent))

    async def _read(self, websocket: ClientConnection, member: Member) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._hear(member, str(await websocket.recv()))
        self.closed.append(time.monotonic())
        self.codes[websocket.close_code] += 1


class Sending:
    """Sends without an end, in a task of its own, while its body runs."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _send_all(self) -> None:
        """Send, until it is cancelled."""
        raise NotImplementedError


class Mail(Sending):
    """Confirmed sends to random members, one after another; knows which were answered DELIVERED."""

    def __init__(self, publisher: Publisher, members: Sequence[Member], pause: float) -> None:
        self._publisher = publisher
        self._members = members
        self._pause = pause
        self.delivered: list[str] = []
        self.failed: list[ClusterPoolError] = []

    async def _send_all(self) -> None:
        at = 0
        while True:
            at += 1
            text = f"send {at}"
            member = random.choice(self._members)
            try:
                if await self._publisher.send(*member, text, confirm=True) is SendResult.DELIVERED:
                    self.delivered.append(text)
            except ClusterPoolError as error:
                self.failed.append(error)
            await asyncio.sleep(self._pause)

    def lost(self, heard: Counter[str] | dict[str, int]) -> list[str]:
        """The messages that were answered DELIVERED, but not received."""
        return [text for text in self.delivered if not heard.get(text)]


async def be_there(comers: Comers) -> None:
    """Do what is asked, until standard input ends."""
    answer()
    await obey_object(comers)
    await comers.leave()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(be_there(Comers()))
