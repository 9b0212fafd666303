"""One send at a time: until it is answered, and until the client has it.

After some quiet, when every cache and the CPU itself have gone cold, and again without a pause.
Beside it stands what the same way costs without us, on the same kind of loop and between as many
processes: redis-py's PUBLISH until its subscriber in another process has it, and one echo over a
WebSocket of ``websockets``.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from cluster_pool.embedded import EmbeddedServer
from tools.bench.children import Child, Gate
from tools.bench.cluster import NAMESPACE, Settings, clients, fault, node
from tools.bench.table import Row

PAUSE = 0.005
"""Seconds of quiet before each send."""
BESIDE = "the floor is the sum of redis-py's {0} and the echo's {0}"


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]


@dataclass
class Times:
    """What was measured with one pause before each send: a list of µs per round."""

    pause: float
    published: list[list[float]] = field(default_factory=list)
    echoed: list[list[float]] = field(default_factory=list)
    received: list[list[float]] = field(default_factory=list)
    answered: list[list[float]] = field(default_factory=list)


async def measure(settings: Settings, loop: str, tell: Callable[[str], None]) -> list[Row]:
    """p50 and p99 of each round, beside what the parts of the way cost without us."""
    idle, warm = Times(PAUSE), Times(0.0)
    wrong, sent, count = "", 0, settings.single_sends
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer())
        b = await stack.enter_async_context(node(redis.url, "B", loop))
        readers = await stack.enter_async_context(clients())
        a = await stack.enter_async_context(node(redis.url, "A", loop, readers.gate))
        bare = await stack.enter_async_context(_bare(redis.url, loop))
        await readers.connect(b.hello["port"], NAMESPACE, 1)
        await a.ask("know", first=0, count=1)
        for at in range(settings.rounds + 1):
            tell(f"latency, {loop}: round {at} of {settings.rounds}" if at else "warming up")
            for times in (idle, warm):
                published, echoed = await bare.round(count, times.pause)
                await readers.expect(1, sent, stamps=True)
                said = await a.ask(
                    "one_at_a_time", namespace=NAMESPACE, count=count, first=sent, pause=times.pause
                )
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
        for what, samples, floors, told in (
            ("redis-py: PUBLISH until a subscriber in another process has it", published, (), ""),
            ("websockets: one echo between two processes", echoed, (), ""),
            ("one send to another node until the client has it", times.received, way, BESIDE),
            ("the same until send() returns", times.answered, way, BESIDE),
        ):
            if floors:
                samples = [percentile(one, share) for one in samples]
            said = "; ".join(text for text in (note, told.format(name)) if text)
            rows.append(Row(f"{what}, {when}, {name}", "µs", samples, loop, floors, wrong, said))
    return rows


def _between(begun: list[int], ended: list[int]) -> list[float]:
    return [(end - begin) / 1000 for begin, end in zip(begun, ended, strict=True)]


class Bare:
    """Two processes with redis-py and ``websockets``: one begins, the other is far."""

    def __init__(self, near: Child, far: Child) -> None:
        self._near = near
        self._far = far

    async def round(self, count: int, pause: float) -> tuple[list[float], list[float]]:
        """Times in µs: of a message over Redis, one way, and of an echo, there and back."""
        begun = (await self._near.ask("publish", count=count, pause=pause))["begun"]
        heard = (await self._far.ask("heard"))["heard"]
        port = self._far.hello["port"]
        echoes = await self._near.ask("echo", port=port, count=count, pause=pause)
        return _between(begun, heard), [time / 1000 for time in echoes["times"]]


@contextlib.asynccontextmanager
async def _bare(redis: str, loop: str) -> AsyncIterator[Bare]:
    gate = Gate()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(gate.close)
        children = []
        for end in (gate.read_end, gate.write_end):
            child = await Child.start("bare", redis, loop, str(end), fds=(end,))
            stack.push_async_callback(child.stop)
            children.append(child)
        await children[1].ask("listen")
        yield Bare(*children)
