"""One side of a contender as a process: it sends numbered messages, or keeps what it hears.

Run as ``python -m tools.chaos.peers.side CONTENDER receiver REDIS``, which answers with the address
of its connection, and ``… CONTENDER sender REDIS ADDRESS``.
"""

import asyncio
import importlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from redis.asyncio import Redis

from tools.chaos.peers.count import UNANSWERED, UNKNOWN, Call, Heard, kind_of
from tools.harness.obeying import answer, obey_object

SENDER, RECEIVER = BOTH = ("sender", "receiver")
CONTENDERS = {
    "ours": "ours:OURS",
    "python-socketio": "socketio_manager:SOCKETIO",
    "python-socketio-tuned": "socketio_manager:TUNED",
    "channels-pubsub": "channels_layer:PUBSUB",
    "channels-pubsub-tuned": "channels_layer:PUBSUB_TUNED",
}
LATE = 0.1
"""Seconds of its schedule that a stream makes good for after a call that took long."""
LAST_ANSWERS = 30.0
"""Seconds after the end in which calls may still be answered."""

Send = Callable[[str, str], Awaitable[str]]
"""Sends (kind, text) to the connection; gives an outcome. What it raises counts as unknown."""


class Contender(Protocol):
    """Two doors, which are open while their context lasts."""

    def sender(self, redis: str, address: str) -> AbstractAsyncContextManager[Send]:
        """What sends to the connection at ``address`` and broadcasts to all."""

    def receiver(self, redis: str, ear: "Ear") -> AbstractAsyncContextManager[str]:
        """One connection whose messages go to ``ear``; gives its address."""


def tuning() -> dict[str, Any]:
    """What redis-py offers against bad links, for those who hand its options through.

    The retry policy is that of a plain ``Redis()``, which one that is made from a URL lacks.
    """
    return {"retry": Redis().get_retry(), "health_check_interval": 1, "socket_keepalive": True}


class Ear:
    """What the receiver's connection hears, and what its API reports as missing, by kind."""

    def __init__(self) -> None:
        self._heard: list[Heard] = []
        self._latest: dict[int, int] = {}
        self._reported: Counter[str] = Counter()

    def hear(self, text: str) -> None:
        """A message has arrived: ``STREAM NUMBER``."""
        stream, number = map(int, text.split(" "))
        self._heard.append(Heard(stream, number, time.monotonic()))
        self._latest[stream] = max(number, self._latest.get(stream, 0))

    def miss(self, kind: str, messages: int) -> None:
        """The API reports messages as missing."""
        self._reported[kind] += messages


class Listening:
    """The commands of a receiver."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear

    async def heard(self) -> dict[str, Any]:
        """How many messages, and the greatest number of each stream."""
        return {"count": len(self._ear._heard), "latest": self._ear._latest}

    async def collect(self) -> dict[str, Any]:
        """Every message, and what was reported as missing."""
        return {"heard": self._ear._heard, "reported": self._ear._reported}


class Streams:
    """Streams of numbered messages, each of which awaits a call before it makes the next.

    Its public methods are the commands of a sender. A stream that was held up makes good for a
    moment of its schedule and lets go of the rest, as those would whose messages they are.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
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


async def main(name: str, door: str, redis: str, address: str = "") -> None:
    """Be one side until standard input ends; what libraries log of bad links is no news here."""
    logging.getLogger().addHandler(logging.NullHandler())
    module, _, attribute = CONTENDERS[name].partition(":")
    contender: Contender = getattr(
        importlib.import_module(f"tools.chaos.peers.{module}"), attribute
    )
    if door == SENDER:
        async with contender.sender(redis, address) as send:
            answer()
            await obey_object(Streams(send))
        return
    ear = Ear()
    async with contender.receiver(redis, ear) as own:
        answer(own)
        await obey_object(Listening(ear))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
