"""The same faults for us and for others who carry messages over Redis: scripts/chaos-peers.

One node sends numbered messages, the other has one WebSocket that should get them; both reach Redis
through a proxy each, which does the harm. Each of the others runs with its default settings, and
once more ``-tuned``.
"""

import argparse
import asyncio
import contextlib
import json
import platform
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tools.chaos.count import Counts, Heard, count, deaf_after, longest_silence
from tools.contenders import engineio
from tools.contenders.line_up import OTHERS, OURS, TUNED, Contender
from tools.contenders.served import KINDS, NOT_SENT, UNANSWERED, UNHEARD, UNKNOWN
from tools.contenders.streams import ID, Call, kind_of
from tools.harness.markdown import table
from tools.harness.ports import HOST
from tools.harness.programs import Program
from tools.harness.proxy import Proxy
from tools.harness.servers import RedisServer

SENDER, RECEIVER = BOTH = ("sender", "receiver")
COMPARED = [one for one in OTHERS if one.name in ("python-socketio", "channels_redis")]
CONTENDERS = {
    OURS.name: OURS,
    **{f"{one.name}{manner}": one for one in COMPARED for manner in ("", TUNED)},
}
TABLES = ("cuts", "stranded")
STREAMS, RATE = 20, 1000.0
"""Streams, in each of which a message follows another; messages a second in all."""
BETWEEN = 0.3
"""Seconds, on average, between two cuts."""
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
PAUSE = 0.1
"""Seconds until a client that was closed is there again."""
HEAD = (
    *("contender", "messages", "calls", "not sent", "unheard", "unknown", "delivered", "twice"),
    *("out of order", "lost", "reported", "lost in silence", "longest silence", "hears again"),
)
LEGEND = f"""\
One connection is due to get each message. Tuned is redis-py's own retry policy with
health_check_interval=1, as the others' documentation allows.

  not sent         the call raised, and certainly nothing was carried out
  unheard          it answered that nobody listened
  unknown          it raised, and may have been carried out
  lost             it returned, and the message never arrived
  reported         as missing, at the receiver, by an API for that, which only ours has; what was
                   unheard is in it as well
  lost in silence  lost, and not reported once everything unheard is taken off the reports
  hears again      from the end of the last fault until a message arrived that set out after it;
                   {PROBE:.0f} s are waited

exit status: 0 we lost nothing in silence, twice or out of order; else 1
"""


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


def cuts(seed: int, count: int) -> list[Fault]:
    """Resets of either side after exponential pauses; the last one of both.

    A contender that is deaf afterwards then cannot be saved by a harmless last fault.
    """
    chance = random.Random(seed)
    drawn = [Fault(chance.expovariate(1 / BETWEEN), (chance.choice(BOTH),)) for _ in range(count)]
    return [*drawn[:-1], drawn[-1]._replace(at=BOTH)]


class Ear:
    """A client of one node, which comes back when it is closed, and keeps what it hears."""

    def __init__(self, contender: Contender, port: int) -> None:
        sign = "&" if "?" in contender.path else "?"
        self._url = f"ws://{HOST}:{port}{contender.path}{sign}id={ID}"
        self._packets = contender.packets
        self._there = asyncio.Event()
        self.heard: list[Heard] = []
        self.latest: dict[int, int] = {}
        """The greatest number of each stream."""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay())
        async with asyncio.timeout(WARM_UP):
            await self._there.wait()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _stay(self) -> None:
        while True:
            with contextlib.suppress(OSError, EOFError, WebSocketException):
                await self._listen()
            await asyncio.sleep(PAUSE)

    async def _listen(self) -> None:
        async with connect(self._url, compression=None, proxy=None) as websocket:
            if not self._packets:
                self._there.set()
            async for message in websocket:
                text = str(message)
                if not self._packets:
                    self._hear(text)
                    continue
                packet = engineio.read(text.encode())
                if packet.joined:
                    self._there.set()
                if packet.reply:
                    await websocket.send(packet.reply.decode())
                if packet.message is not None:
                    self._hear(packet.message.decode())

    def _hear(self, text: str) -> None:
        stream, number = map(int, text.split(" "))
        self.heard.append(Heard(stream, number, time.monotonic()))
        self.latest[stream] = max(number, self.latest.get(stream, 0))


@dataclass(frozen=True)
class Trial:
    """The results of one contender under one series of faults.

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
        return self.contender == OURS.name and any(
            counts.silent or counts.excess or counts.twice or counts.disordered or counts.contrary
            for counts in self.kinds.values()
        )

    def row(self, kind: str) -> list[str]:
        """For the table."""
        counts = self.kinds[kind]
        said = counts.outcomes
        numbers = (
            *(counts.calls, said.get(NOT_SENT, 0), said.get(UNHEARD, 0)),
            said.get(UNKNOWN, 0) + said.get(UNANSWERED, 0),
            *(counts.delivered, counts.twice, counts.disordered, counts.lost),
            *(counts.reported, counts.silent),
        )
        deaf = f"not in {PROBE:.0f} s" if self.deaf is None else f"{self.deaf:.2f} s"
        shown = [f"{number:,}" for number in numbers]
        return [self.contender, kind, *shown, f"{self.silence:.2f} s", deaf]


@contextlib.asynccontextmanager
async def _node(name: str, proxy: Proxy) -> AsyncIterator[Program]:
    redis = f"redis://{HOST}:{proxy.port}/0"
    command = CONTENDERS[name].command(redis, tuned=name.endswith(TUNED))
    program = await Program.launch(name, command, patience=PATIENCE)
    try:
        yield program
    finally:
        await program.stop()


async def run(
    name: str, faults: Sequence[Fault], streams: int = STREAMS, rate: float = RATE
) -> Trial:
    """Let messages flow, do what the schedule says, wait for calm, and count."""
    with RedisServer() as redis:
        async with (
            Proxy(redis.path) as near,
            Proxy(redis.path) as far,
            _node(name, near) as sender,
            _node(name, far) as receiver,
            Ear(CONTENDERS[name], receiver.hello["port"]) as ear,
        ):
            await sender.ask("begin", streams=streams, rate=rate)
            if not await _within(WARM_UP, lambda: len(ear.latest) == streams):
                raise RuntimeError("nothing arrived, although nothing was wrong")
            await asyncio.sleep(CALM)
            begun = time.monotonic()
            await _harm({SENDER: near, RECEIVER: far}, faults)
            ended = time.monotonic()
            await _hears_again(sender, ear)
            await asyncio.sleep(CALM)
            calls = [Call(*one) for one in await sender.ask("end")]
            await _quiet(ear)
            reported = await receiver.ask("reported")
    return Trial(
        name,
        _by_kind(calls, ear.heard, reported),
        deaf_after(ended, calls, ear.heard),
        longest_silence(begun, max(call.begun for call in calls), ear.heard),
    )


async def _harm(proxies: dict[str, Proxy], faults: Sequence[Fault]) -> None:
    for fault in faults:
        await asyncio.sleep(fault.pause)
        for side in fault.at:
            if fault.strand:
                proxies[side].strand()
            else:
                await proxies[side].cut()


async def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until ``condition`` is true; False when it was not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def _hears_again(sender: Program, ear: Ear) -> None:
    """Wait until something arrives that sets out from now on, at most for PROBE."""
    numbers = {int(stream): last for stream, last in (await sender.ask("numbers")).items()}
    await _within(
        PROBE, lambda: any(last > numbers.get(stream, 0) for stream, last in ear.latest.items())
    )


async def _quiet(ear: Ear) -> None:
    """Wait until nothing arrives any more, or that takes too long."""
    before, deadline = -1, time.monotonic() + LAST_ARRIVALS
    while time.monotonic() < deadline and len(ear.heard) != before:
        before = len(ear.heard)
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos-peers",
        description="Numbered messages from one node to another, over links that are cut.",
        epilog=LEGEND,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", choices=CONTENDERS, help="this one alone; may be repeated")
    add("--table", action="append", choices=TABLES, help="these faults alone; may be repeated")
    add("--seed", type=int, default=1, metavar="N", help="of the schedule of faults (1)")
    add("--cuts", type=int, default=100, metavar="N", help="how many resets (100)")
    add("--json", metavar="FILE", type=Path, help="write everything that was counted there")
    return parser.parse_args()


async def _all(names: Sequence[str], faults: list[Fault]) -> list[Trial]:
    trials = []
    for name in names:
        print(f"{name}: {len(faults)} faults", file=sys.stderr, flush=True)
        trials.append(await run(name, faults))
    return trials


def main() -> int:
    """Compare; gives the exit status."""
    options = _options()
    names = options.only or list(CONTENDERS)
    made_of = filter(None, (CONTENDERS[name].versions() for name in names))
    print(f"python {platform.python_version()}", *dict.fromkeys(made_of), sep="; ")
    print(f"{RATE:g} messages a second, {STREAMS} streams, seed {options.seed}")
    drawn = {
        "cuts": cuts(options.seed, options.cuts),
        "stranded": [Fault(0.0, BOTH, strand=True)],
    }
    results = {}
    for title in options.table or TABLES:
        trials = results[title] = asyncio.run(_all(names, drawn[title]))
        rows = [trial.row(kind) for trial in trials for kind in trial.kinds]
        print(f"\n{len(drawn[title])} {title}\n\n{table([HEAD, *rows])}", flush=True)
    if options.json:
        told = {title: [asdict(trial) for trial in trials] for title, trials in results.items()}
        options.json.write_text(json.dumps({"seed": options.seed, **told}, indent=2) + "\n")
    return 1 if any(trial.failed for trials in results.values() for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
