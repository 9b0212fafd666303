"""One send at a time: until it is answered, and until the client has it.

After some quiet, when every cache and the CPU itself have gone cold, and again without a pause.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.cluster import NAMESPACE, Settings, clients, fault, node
from benchmarks.payloads import payload
from benchmarks.table import Row
from cluster_pool.embedded import EmbeddedServer

PAUSE = 0.005
"""Seconds of quiet before each send."""


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]


@dataclass
class Times:
    """What was measured with one pause before each send: a list of µs per round."""

    pause: float
    raw: list[list[float]] = field(default_factory=list)
    received: list[list[float]] = field(default_factory=list)
    answered: list[list[float]] = field(default_factory=list)


async def measure(settings: Settings, loop: str, tell: Callable[[str], None]) -> list[Row]:
    """p50 and p99 of each round, beside a raw PUBLISH in the same run."""
    idle, warm = Times(PAUSE), Times(0.0)
    wrong, sent, count = "", 0, settings.single_sends
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer())
        b = await stack.enter_async_context(node(redis.url, "B", loop))
        readers = await stack.enter_async_context(clients())
        a = await stack.enter_async_context(node(redis.url, "A", loop, readers.gate))
        await readers.connect(b.hello["port"], NAMESPACE, 1)
        await a.ask("know", first=0, count=1)
        for at in range(settings.rounds + 1):
            tell(f"latency, {loop}: round {at} of {settings.rounds}" if at else "warming up")
            for times in (idle, warm):
                raw = _raw(str(redis.path), count, times.pause)
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
                    times.raw.append(raw)
                    times.received.append(_between(said["begun"], report["stamps"]))
                    times.answered.append(_between(said["begun"], said["answered"]))
    note = f"{count:,} a round"
    return [
        *_rows(idle, f"after {PAUSE * 1000:g} ms of quiet", loop, wrong, note),
        *_rows(warm, "without a pause", loop, wrong, note),
    ]


def _rows(times: Times, when: str, loop: str, wrong: str, note: str) -> list[Row]:
    rows = []
    for what, rounds in (
        ("raw PUBLISH until a blocking subscriber has it", times.raw),
        ("one send to another node until the client has it", times.received),
        ("the same until send() returns", times.answered),
    ):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            samples = [percentile(one, share) for one in rounds]
            bare = rounds is times.raw
            floors = () if bare else [percentile(one, share) for one in times.raw]
            told = note if bare else f"{note}; the floor is the raw {name}"
            text = f"{what}, {when}, {name}"
            rows.append(Row(text, "µs", samples, "" if bare else loop, floors, wrong, told))
    return rows


def _between(begun: list[int], ended: list[int]) -> list[float]:
    return [(end - begin) / 1000 for begin, end in zip(begun, ended, strict=True)]


def _raw(path: str, count: int, pause: float) -> list[float]:
    """Two blocking sockets: the time from PUBLISH on one to the message on the other, in µs."""
    data = payload(0)
    command = b"*3\r\n$7\r\nPUBLISH\r\n$3\r\nraw\r\n$%d\r\n%s\r\n" % (len(data), data)
    times = []
    with socket.socket(socket.AF_UNIX) as publisher, socket.socket(socket.AF_UNIX) as subscriber:
        publisher.connect(path)
        subscriber.connect(path)
        subscriber.sendall(b"SUBSCRIBE raw\r\n")
        subscriber.recv(1024)
        for _ in range(count):
            if pause:
                time.sleep(pause)
            begun = time.monotonic_ns()
            publisher.sendall(command)
            message = subscriber.recv(1024)
            times.append((time.monotonic_ns() - begun) / 1000)
            assert message.endswith(data + b"\r\n")
            publisher.recv(64)
    return times
