"""One contender under one series of faults, from the first message to the last report."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from tools.chaos.peers.count import (
    KINDS,
    Call,
    Counts,
    Heard,
    count,
    deaf_after,
    kind_of,
    longest_silence,
)
from tools.chaos.peers.side import RECEIVER, SENDER
from tools.harness.programs import Program, program
from tools.harness.proxy import Proxy
from tools.harness.servers import RedisServer

PATIENCE = 180.0
WARM_UP = 10.0
CALM = 3.0
"""Seconds without a fault before the first and after the last."""
PROBE = 30.0
"""Seconds in which a deaf receiver may hear again."""
QUIET = 2.0
"""Seconds without an arrival after which nothing more is expected."""
LAST_ARRIVALS = 120.0
"""Seconds at most until what is on its way, in queues of Redis too, has arrived."""


class Fault(NamedTuple):
    """One harm; after it, new links are well.

    Attributes:
        pause: seconds in which nothing happens before it.
        at: whose links to Redis are harmed.
        strand: they stay open, and nothing passes ever again; otherwise they are reset.
    """

    pause: float
    at: Sequence[str]
    strand: bool = False


@dataclass(frozen=True)
class Load:
    """How many streams send how many messages a second together."""

    streams: int
    rate: float


@dataclass(frozen=True)
class Trial:
    """What one contender did under one series of faults.

    Attributes:
        kinds: the counts of each kind of message.
        deaf: seconds after the last fault until a message arrived that set out after it; None
            when none did within PROBE.
        silence: the longest time between two arrivals from the first fault on, in seconds.
    """

    contender: str
    kinds: dict[str, Counts]
    deaf: float | None
    silence: float

    @property
    def failed(self) -> bool:
        """Whether we ourselves did what only others may."""
        return self.contender == "ours" and any(
            counts.silent or counts.excess or counts.twice or counts.disordered or counts.contrary
            for counts in self.kinds.values()
        )

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@contextlib.asynccontextmanager
async def _network() -> AsyncIterator[dict[str, Proxy]]:
    """A proxy for each side, before one private Valkey."""
    with RedisServer() as redis:
        async with Proxy(redis.path) as one, Proxy(redis.path) as two:
            yield {SENDER: one, RECEIVER: two}


def _side(
    network: dict[str, Proxy], contender: str, side: str, *address: str
) -> contextlib.AbstractAsyncContextManager[Program]:
    url = f"redis://127.0.0.1:{network[side].port}/0"
    return program("tools.chaos.peers.side", contender, side, url, *address, patience=PATIENCE)


async def run(contender: str, faults: Sequence[Fault], load: Load) -> Trial:
    """Let messages flow, do what the schedule says, wait for calm, and count."""
    async with (
        _network() as network,
        _side(network, contender, RECEIVER) as receiver,
        _side(network, contender, SENDER, receiver.hello) as sender,
    ):
        await sender.ask("begin", streams=load.streams, rate=load.rate)
        if not await _within(WARM_UP, lambda: _count(receiver)):
            raise RuntimeError("nothing arrived, although nothing was wrong")
        await asyncio.sleep(CALM)
        begun = time.monotonic()
        for fault in faults:
            await asyncio.sleep(fault.pause)
            for side in fault.at:
                if fault.strand:
                    network[side].strand()
                else:
                    await network[side].cut()
        ended = time.monotonic()
        await _hears_again(sender, receiver)
        await asyncio.sleep(CALM)
        calls = [Call(*one) for one in await sender.ask("end")]
        await _quiet(receiver)
        got = await receiver.ask("collect")
    heard = [Heard(*one) for one in got["heard"]]
    return Trial(
        contender,
        _by_kind(calls, heard, got["reported"]),
        deaf_after(ended, calls, heard),
        longest_silence(begun, max(call.begun for call in calls), heard),
    )


async def _count(receiver: Program) -> int:
    heard: int = (await receiver.ask("heard"))["count"]
    return heard


async def _within(seconds: float, condition: Callable[[], Awaitable[Any]]) -> bool:
    """Wait until ``condition`` is true; False when it was not in time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def _hears_again(sender: Program, receiver: Program) -> None:
    """Wait until something arrives that sets out from now on, at most for PROBE."""
    numbers = await sender.ask("numbers")

    async def newer() -> bool:
        latest = (await receiver.ask("heard"))["latest"]
        return any(number > numbers.get(stream, 0) for stream, number in latest.items())

    await _within(PROBE, newer)


async def _quiet(receiver: Program) -> None:
    """Wait until nothing arrives any more, or that takes too long."""
    before, deadline = -1, time.monotonic() + LAST_ARRIVALS
    while time.monotonic() < deadline and (now := await _count(receiver)) != before:
        before = now
        await asyncio.sleep(QUIET)


def _by_kind(
    calls: Sequence[Call], heard: Sequence[Heard], reported: dict[str, int]
) -> dict[str, Counts]:
    return {
        kind: count(
            [call for call in calls if kind_of(call.stream) == kind],
            [one for one in heard if kind_of(one.stream) == kind],
            reported.get(kind, 0),
        )
        for kind in KINDS
    }
