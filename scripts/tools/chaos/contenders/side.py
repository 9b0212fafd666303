"""One side of a contender as a process: it sends numbered messages, or keeps what it hears.

Run as ``python -m tools.chaos.contenders.side CONTENDER receiver REDIS``, whose first line tells
the address of its connection, and ``… CONTENDER sender REDIS ADDRESS``. Asked over standard input.
"""

import asyncio
import importlib
import logging
import sys
import time
from collections import Counter
from typing import Any

from tools.bench.children import obey, say
from tools.chaos.contenders.contract import Contender, Ear, Send
from tools.chaos.contenders.count import BROADCAST, SEND, UNANSWERED, UNKNOWN, Call, kind_of

CONTENDERS = {
    "ours": "ours:OURS",
    "python-socketio": "socketio_manager:SOCKETIO",
    "python-socketio-tuned": "socketio_manager:TUNED",
    "channels-pubsub": "channels_layer:PUBSUB",
    "channels-pubsub-tuned": "channels_layer:PUBSUB_TUNED",
    "channels-core": "channels_layer:CORE",
    "channels-core-tuned": "channels_layer:CORE_TUNED",
}
LATE = 0.1
"""Seconds of its schedule that a stream makes good for after a call that took long."""
LAST_ANSWERS = 30.0
"""Seconds after the end in which calls may still be answered."""


class Troubles(logging.Handler):
    """Counts what is logged as an error, and what tasks die of; a line of it per kind is kept."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.counts: Counter[str] = Counter()

    def install(self) -> None:
        """From now on, for all loggers and for the running loop."""
        logging.getLogger().addHandler(self)
        asyncio.get_running_loop().set_exception_handler(self._died)

    def emit(self, record: logging.LogRecord) -> None:
        """A record of level ERROR or worse."""
        error = record.exc_info[1] if record.exc_info else None
        cause = f" ({type(error).__name__})" if error else ""
        self.counts[f"logged: {record.getMessage()[:100]}{cause}"] += 1

    def _died(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = type(context.get("exception")).__name__
        self.counts[f"unhandled: {context['message'][:100]} ({error})"] += 1


class Streams:
    """Streams of numbered messages; each awaits a call before it makes the next.

    A stream that was held up makes good for a moment of its schedule and lets go of the rest, as
    those would whose messages they are.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ended = False
        self._tasks: list[asyncio.Task[None]] = []
        self._open: dict[int, Call] = {}
        self.calls: list[Call] = []
        self.raised: Counter[str] = Counter()
        self.numbers: dict[int, int] = {}

    def begin(self, streams: int, rate: float) -> None:
        """Send ``rate`` messages a second in all."""
        pause = streams / rate
        for stream in range(streams):
            late = pause * stream / streams
            self._tasks.append(asyncio.create_task(self._stream(stream, pause, late)))

    async def end(self) -> None:
        """Send no more, and wait for the answers that may come."""
        self._ended = True
        _, pending = await asyncio.wait(self._tasks, timeout=LAST_ANSWERS)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        now = time.monotonic()
        self.calls += [call._replace(ended=now) for call in self._open.values()]

    async def _stream(self, stream: int, pause: float, late: float) -> None:
        await asyncio.sleep(late)
        due = time.monotonic()
        number = 0
        while not self._ended:
            number += 1
            self.numbers[stream] = number
            await self._call(stream, number)
            due = max(due + pause, time.monotonic() - LATE)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _call(self, stream: int, number: int) -> None:
        begun = time.monotonic()
        self._open[stream] = Call(stream, number, begun, begun, UNANSWERED)
        outcome = UNKNOWN
        try:
            outcome = await self._send(kind_of(stream), f"{stream} {number}")
        except Exception as error:  # whatever a contender raises: it is counted by its name
            self.raised[type(error).__name__] += 1
        call = self._open.pop(stream)
        self.calls.append(call._replace(ended=time.monotonic(), outcome=outcome))


async def _send_until_told(contender: Contender, redis: str, address: str) -> None:
    troubles = Troubles()
    troubles.install()
    async with contender.sender(redis, address) as send:
        streams = Streams(send)

        async def begin(count: int, rate: float) -> dict[str, Any]:
            streams.begin(count, rate)
            return {}

        async def numbers() -> dict[str, Any]:
            return {"numbers": streams.numbers}

        async def end() -> dict[str, Any]:
            await streams.end()
            return {
                "calls": streams.calls,
                "raised": streams.raised,
                "troubles": troubles.counts,
            }

        say()
        await obey({"begin": begin, "numbers": numbers, "end": end})


async def _hear_until_told(contender: Contender, redis: str) -> None:
    troubles = Troubles()
    troubles.install()
    ear = Ear()
    async with contender.receiver(redis, ear) as address:

        async def heard() -> dict[str, Any]:
            return {"count": len(ear.heard), "latest": ear.latest}

        async def collect() -> dict[str, Any]:
            return {
                "heard": ear.heard,
                "reported": {kind: ear.reported[kind] for kind in (SEND, BROADCAST)},
                "notices": ear.notices,
                "troubles": troubles.counts,
            }

        say(address=address)
        await obey({"heard": heard, "collect": collect})


def main(name: str, door: str, redis: str, *address: str) -> None:
    """Be one side until standard input ends."""
    module, _, attribute = CONTENDERS[name].partition(":")
    contender: Contender = getattr(
        importlib.import_module(f"tools.chaos.contenders.{module}"), attribute
    )
    if door == "sender":
        asyncio.run(_send_until_told(contender, redis, *address))
    else:
        asyncio.run(_hear_until_told(contender, redis))


if __name__ == "__main__":
    main(*sys.argv[1:])
