"""One send at a time: until it is answered, and until the client has it.

After some quiet, when every cache and the CPU itself have gone cold, and again without a pause.
Beside it stands what the same way costs without us, on the same kind of loop and between as many
processes: redis-py's PUBLISH until its subscriber in another process has it, and one echo over a
WebSocket of ``websockets``.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tools.bench.gate import Gate
from tools.bench.payloads import member_id
from tools.bench.stage import Settings, Tell, clients, fault, gated, node, percentile
from tools.bench.table import Row
from tools.harness.programs import Program
from tools.harness.servers import RedisServer

PAUSE = 0.005
"""Seconds of quiet before each send."""


@dataclass
class Times:
    """The times measured with one pause before each send: a list of µs per round."""

    pause: float
    published: list[list[float]] = field(default_factory=list)
    echoed: list[list[float]] = field(default_factory=list)
    received: list[list[float]] = field(default_factory=list)
    answered: list[list[float]] = field(default_factory=list)


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """p50 and p99 of each round, beside what the parts of the way cost without us."""
    idle, warm = Times(PAUSE), Times(0.0)
    wrong, sent, count = "", 0, settings.single_sends
    with RedisServer() as redis:
        async with (
            node(redis.url, "B", loop) as b,
            clients() as readers,
            node(redis.url, "A", loop, readers.gate) as a,
            _bare(redis.url, loop) as bare,
        ):
            await readers.connect(b.hello["port"], 1)
            await a.ask("know", ids=[member_id(0)])
            for at in range(settings.rounds + 1):
                tell(f"latency, {loop}: round {at} of {settings.rounds}" if at else "warming up")
                for times in (idle, warm):
                    published, echoed = await bare.round(count, times.pause)
                    await readers.expect(1, sent, stamps=True)
                    said = await a.ask("one_at_a_time", count=count, first=sent, pause=times.pause)
                    sent += count
                    report = await readers.report(count)
                    unrouted = [f"{said['unrouted']} sends unrouted"] if said["unrouted"] else []
                    found = fault(report, count, unrouted)
                    wrong = wrong or found
                    if at and not found:
                        times.published.append(published)
                        times.echoed.append(echoed)
                        times.received.append(_between(said["begun"], report["stamps"]))
                        times.answered.append(_between(said["begun"], said["answered"]))
    note = f"{count:,} a round"
    return [
        *_rows(idle, f"after {PAUSE * 1000:g} ms of quiet", loop, wrong, note),
        *_rows(warm, "without a pause", loop, wrong, note),
    ]


def _rows(times: Times, when: str, loop: str, wrong: str, note: str) -> list[Row]:
    rows = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        published = [percentile(one, share) for one in times.published]
        echoed = [percentile(one, share) for one in times.echoed]
        way = [sum(pair) for pair in zip(published, echoed, strict=True)]
        beside = f"{note}; the floor is the sum of redis-py's {name} and the echo's {name}"
        received = [percentile(one, share) for one in times.received]
        answered = [percentile(one, share) for one in times.answered]
        for what, samples, floors, said in (
            ("redis-py: PUBLISH until a subscriber in another process has it", published, (), note),
            ("websockets: one echo between two processes", echoed, (), note),
            ("one send to another node until the client has it", received, way, beside),
            ("the same until send() returns", answered, way, beside),
        ):
            rows.append(Row(f"{what}, {when}, {name}", "µs", samples, loop, floors, wrong, said))
    return rows


def _between(begun: list[int], ended: list[int]) -> list[float]:
    return [(end - begin) / 1000 for begin, end in zip(begun, ended, strict=True)]


class Bare:
    """Two processes with redis-py and ``websockets``: one begins, the other is far."""

    def __init__(self, near: Program, far: Program) -> None:
        self._near = near
        self._far = far

    async def round(self, count: int, pause: float) -> tuple[list[float], list[float]]:
        """Times in µs: of a message over Redis, one way, and of an echo, there and back."""
        begun = await self._near.ask("publish", count=count, pause=pause)
        heard = await self._far.ask("heard")
        port = self._far.hello["port"]
        echoes = await self._near.ask("echo", port=port, count=count, pause=pause)
        return _between(begun, heard), [time / 1000 for time in echoes]


@contextlib.asynccontextmanager
async def _bare(redis: str, loop: str) -> AsyncIterator[Bare]:
    with contextlib.closing(Gate()) as gate:
        async with (
            gated("bare", redis, loop, gate=gate) as near,
            gated("bare", redis, loop, gate=gate, writes=True) as far,
        ):
            await far.ask("listen")
            yield Bare(near, far)
