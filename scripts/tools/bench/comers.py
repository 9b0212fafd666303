"""Clients that come back 0 ms after they were closed, as python's ``websockets`` does.

When each was closed and when it was back is written down. A client that is refused waits a little
before it tries again. Run as ``python -m tools.bench.comers``.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tools.harness.internals import loop_factory
from tools.harness.obeying import answer, obey_object
from tools.harness.ports import HOST

REFUSED_PAUSE = 0.25
"""Seconds, on average, that a client waits after it was refused."""
TOGETHER = 100
NAMESPACES = 20


def namespace_of(index: int) -> str:
    """Where client ``index`` is a member."""
    return f"room-{index % NAMESPACES}"


def id_of(index: int) -> str:
    """Its id."""
    return f"client-{index}"


class Commands:
    """What all clients of this process can be asked to do."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._open: set[int] = set()
        self._heard: dict[int, list[str]] = {}
        self._closed: list[float] = []
        self._back: list[float] = []
        self._codes: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()

    async def come(self, port: int, count: int) -> None:
        """Open all of them, and wait until they are."""
        for at in range(0, count, TOGETHER):
            some = range(at, min(at + TOGETHER, count))
            self._tasks += [asyncio.create_task(self._stay(port, index)) for index in some]
            while len(self._open) < len(self._tasks):  # noqa: ASYNC110  # for any of many
                await asyncio.sleep(0.005)

    async def forget(self) -> None:
        """Count anew."""
        self._closed, self._back, self._heard = [], [], {}
        self._codes.clear()
        self._refusals.clear()

    async def open(self) -> int:
        """How many are; none of them may have given up."""
        for task in self._tasks:
            if task.done():
                task.result()
        return len(self._open)

    async def report(self) -> dict[str, Any]:
        """What has happened since."""
        return {
            "closed": self._closed,
            "back": self._back,
            "codes": self._codes,
            "refusals": self._refusals,
            "heard": self._heard,
        }

    async def leave(self) -> None:
        """Come back no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stay(self, port: int, index: int) -> None:
        url = f"ws://{HOST}:{port}/ws/{namespace_of(index)}?id={id_of(index)}"
        while True:
            try:
                websocket = await connect(url, compression=None, ping_interval=None, proxy=None)
            except (InvalidHandshake, OSError, EOFError) as error:
                self._refusals[type(error).__name__] += 1
                await asyncio.sleep(random.uniform(0, 2 * REFUSED_PAUSE))
                continue
            self._back.append(time.monotonic())
            self._open.add(index)
            try:
                await self._read(websocket, index)
            finally:
                self._open.discard(index)
                websocket.transport.abort()

    async def _read(self, websocket: ClientConnection, index: int) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = str(await websocket.recv())
                self._heard.setdefault(index, []).append(message)
        self._closed.append(time.monotonic())
        self._codes[str(websocket.close_code)] += 1


async def main() -> None:
    """Be there until standard input ends."""
    commands = Commands()
    answer()
    await obey_object(commands)
    await commands.leave()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
