"""Streams of numbered messages, each of which awaits a call before it makes the next."""

import asyncio
import time
from typing import Any, NamedTuple

from tools.contenders.served import KINDS, SEND, UNANSWERED, UNKNOWN, Served

ID = "alice"
"""The id of the connection to which targeted messages go."""
LATE = 0.1
"""Seconds of its schedule that a stream makes good for after a call that took long."""
LAST_ANSWERS = 30.0
"""Seconds after the end in which calls may still be answered."""


class Call(NamedTuple):
    """One call as its sender saw it."""

    stream: int
    number: int
    begun: float
    ended: float
    outcome: str


def kind_of(stream: int) -> str:
    """Streams send and broadcast in turn."""
    return KINDS[stream % len(KINDS)]


class Streams:
    """Its public methods are the commands. A message is ``STREAM NUMBER``.

    A stream that was held up makes good for a moment of its schedule and lets go of the rest, as
    those would whose messages they are.
    """

    def __init__(self, node: Served) -> None:
        self._node = node
        self._ended = False
        self._tasks: list[asyncio.Task[None]] = []
        self._open: dict[int, Call] = {}
        self._calls: list[Call] = []
        self._numbers: dict[int, int] = {}

    async def begin(self, streams: int, rate: float) -> None:
        """Send ``rate`` messages a second in all."""
        for stream in range(streams):
            work = self._stream(stream, streams / rate, stream / rate)
            self._tasks.append(asyncio.create_task(work))

    async def numbers(self) -> dict[int, int]:
        """The last number of each stream."""
        return self._numbers

    async def end(self) -> list[Call]:
        """Send no more, and wait for the answers that may come; gives all calls."""
        self._ended = True
        _, pending = await asyncio.wait(self._tasks, timeout=LAST_ANSWERS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        now = time.monotonic()
        return self._calls + [call._replace(ended=now) for call in self._open.values()]

    async def reported(self) -> dict[str, Any]:
        """The messages that this node reports as missing, by kind."""
        return self._node.reported

    async def _stream(self, stream: int, pause: float, late: float) -> None:
        await asyncio.sleep(late)
        due = time.monotonic()
        number = 0
        while not self._ended:
            number += 1
            self._numbers[stream] = number
            await self._call(stream, number)
            due = max(due + pause, time.monotonic() - LATE)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _call(self, stream: int, number: int) -> None:
        begun = time.monotonic()
        self._open[stream] = Call(stream, number, begun, begun, UNANSWERED)
        try:
            outcome = await self._send(kind_of(stream), f"{stream} {number}")
        except Exception:  # whatever a contender raises
            outcome = UNKNOWN
        call = self._open.pop(stream)
        self._calls.append(call._replace(ended=time.monotonic(), outcome=outcome))

    async def _send(self, kind: str, text: str) -> str:
        if kind == SEND and self._node.to_one is not None:
            return await self._node.to_one(ID, text)
        return await self._node.to_all(text)
