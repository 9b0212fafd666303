"""One contender under one series of faults, from the first message to the last report."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster_pool.embedded import EmbeddedServer
from tools.bench.children import Child
from tools.chaos.contenders.count import (
    KINDS,
    Call,
    Counts,
    Heard,
    count,
    deaf_after,
    kind_of,
    longest_call,
    longest_silence,
)
from tools.chaos.contenders.schedule import BOTH, CUT, RECEIVER, SENDER, STRAND, Fault
from tools.harness.proxy import Proxy

PACKAGE = "tools.chaos.contenders"
WARM_UP = 10.0
CALM = 3.0
"""Seconds without a fault before the first and after the last."""
PROBE = 30.0
"""Seconds in which a deaf receiver may hear again."""
QUIET = 2.0
"""Seconds without an arrival after which nothing more is expected."""
LAST_ARRIVALS = 120.0
"""Seconds at most until what is on its way, in queues of Redis too, has arrived."""


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
        calm: the same of the messages before the first fault.
        deaf: seconds after the last fault until a message arrived that set out after it; None
            when none did within PROBE.
        slowest: the longest that a call took, in seconds.
        silence: the longest time between two arrivals from the first fault on, in seconds.
        pace: calls made, as a share of those that were to be made in the same time.
        settled: whether arrivals had ended when they were counted.
        raised: what calls raised, by the name of its type.
        notices: what the receiver's API told beside messages.
        troubles: errors logged and exceptions nobody took, in both processes.
    """

    contender: str
    kinds: dict[str, Counts]
    calm: dict[str, Counts]
    deaf: float | None
    slowest: float
    silence: float
    pace: float
    settled: bool
    raised: dict[str, int]
    notices: dict[str, int]
    troubles: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


class _Network:
    """A proxy for each side, before one private Valkey."""

    def __init__(self, proxies: dict[str, Proxy]) -> None:
        self._proxies = proxies

    def url(self, side: str) -> str:
        return f"redis://127.0.0.1:{self._proxies[side].port}/0"

    async def harm(self, fault: Fault) -> None:
        """Do it; a hole ends before this returns."""
        proxies = [self._proxies[side] for side in fault.at]
        if fault.kind == CUT:
            await asyncio.gather(*[proxy.cut() for proxy in proxies])
        elif fault.kind == STRAND:
            for proxy in proxies:
                proxy.strand()
        else:
            for proxy in proxies:
                proxy.hold(upwards=fault.upwards)
            await asyncio.sleep(fault.seconds)
            for proxy in proxies:
                proxy.heal()


@contextlib.asynccontextmanager
async def _network() -> AsyncIterator[_Network]:
    with EmbeddedServer() as redis:
        async with Proxy(redis.path) as one, Proxy(redis.path) as two:
            yield _Network({SENDER: one, RECEIVER: two})


@contextlib.asynccontextmanager
async def _side(*arguments: str) -> AsyncIterator[Child]:
    child = await Child.start("side", *arguments, package=PACKAGE)
    try:
        yield child
    finally:
        await child.stop()


async def run(contender: str, faults: Sequence[Fault], load: Load) -> Trial:
    """Let messages flow, do what the schedule says, wait for calm, and count."""
    async with (
        _network() as network,
        _side(contender, RECEIVER, network.url(RECEIVER)) as receiver,
        _side(contender, SENDER, network.url(SENDER), receiver.hello["address"]) as sender,
    ):
        await sender.ask("begin", count=load.streams, rate=load.rate)
        await _first_arrival(receiver)
        await asyncio.sleep(CALM)
        begun = time.monotonic()
        for fault in faults:
            await asyncio.sleep(fault.pause)
            await network.harm(fault)
        ended = time.monotonic()
        await _hears_again(sender, receiver)
        await asyncio.sleep(CALM)
        sent = await sender.ask("end")
        settled = await _quiet(receiver)
        got = await receiver.ask("collect")
        return _judge(contender, load, (begun, ended), settled, sent, got)


async def _first_arrival(receiver: Child) -> None:
    if not await _within(WARM_UP, lambda: _count(receiver)):
        raise RuntimeError("nothing arrived, although nothing was wrong")


async def _count(receiver: Child) -> int:
    count: int = (await receiver.ask("heard"))["count"]
    return count


async def _within(seconds: float, condition: Callable[[], Awaitable[Any]]) -> bool:
    """Wait until ``condition`` is true; False when it was not in time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def _hears_again(sender: Child, receiver: Child) -> None:
    """Wait until something arrives that sets out from now on, at most for PROBE."""
    numbers = (await sender.ask("numbers"))["numbers"]

    async def newer() -> bool:
        latest = (await receiver.ask("heard"))["latest"]
        return any(number > numbers.get(stream, 0) for stream, number in latest.items())

    await _within(PROBE, newer)


async def _quiet(receiver: Child) -> bool:
    """Wait until nothing arrives any more; False when that took too long."""
    before, deadline = -1, time.monotonic() + LAST_ARRIVALS
    while time.monotonic() < deadline:
        now = await _count(receiver)
        if now == before:
            return True
        before = now
        await asyncio.sleep(QUIET)
    return False


def _judge(
    contender: str,
    load: Load,
    faults: tuple[float, float],
    settled: bool,
    sent: dict[str, Any],
    got: dict[str, Any],
) -> Trial:
    begun, ended = faults
    calls = [Call(*one) for one in sent["calls"]]
    heard = [Heard(*one) for one in got["heard"]]
    first, last = (pick(call.begun for call in calls) for pick in (min, max))
    return Trial(
        contender,
        kinds=_by_kind(calls, heard, got["reported"]),
        calm=_by_kind([call for call in calls if call.begun < begun - 1], heard, {}),
        deaf=deaf_after(ended, calls, heard),
        slowest=longest_call(calls),
        silence=longest_silence(begun, last, heard),
        pace=len(calls) / ((last - first) * load.rate),
        settled=settled,
        raised=sent["raised"],
        notices=got["notices"],
        troubles={
            f"{side}: {what}": times
            for side, said in zip(BOTH, (sent, got), strict=True)
            for what, times in said["troubles"].items()
        },
    )


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
