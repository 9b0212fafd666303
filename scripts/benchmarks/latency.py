"""One send at a time on an idle cluster: until it is answered, and until the client has it."""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence

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


async def measure(settings: Settings, loop: str, tell: Callable[[str], None]) -> list[Row]:
    """p50 and p99 of each round, beside a raw PUBLISH in the same run."""
    raw: list[list[float]] = []
    received: list[list[float]] = []
    answered: list[list[float]] = []
    wrong = ""
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer())
        b = await stack.enter_async_context(node(redis.url, "B", loop))
        readers = await stack.enter_async_context(clients())
        a = await stack.enter_async_context(node(redis.url, "A", loop, readers.gate))
        await readers.connect(b.hello["port"], NAMESPACE, 1)
        await a.ask("know", first=0, count=1)
        count = settings.single_sends
        for at in range(settings.rounds + 1):
            tell(f"latency, {loop}: round {at} of {settings.rounds}" if at else "warming up")
            raw_times = _raw(str(redis.path), count if at else 50)
            first = at * count
            await readers.expect(1, first, stamps=True)
            said = await a.ask(
                "one_at_a_time", namespace=NAMESPACE, count=count, first=first, pause=PAUSE
            )
            report = await readers.report(count)
            unrouted = [f"{said['unrouted']} sends unrouted"] if said["unrouted"] else []
            found = fault(report, count, unrouted)
            wrong = wrong or found
            if at and not found:
                raw.append(raw_times)
                received.append(_between(said["begun"], report["stamps"]))
                answered.append(_between(said["begun"], said["answered"]))
    rows = []
    for what, rounds in (
        ("raw Redis PUBLISH until a blocking subscriber has it", raw),
        ("one send on an idle cluster until the client has it", received),
        ("the same until send() returns", answered),
    ):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            samples = [percentile(times, share) for times in rounds]
            bare = rounds is raw
            floors = () if bare else [percentile(times, share) for times in raw]
            note = f"{count:,} a round" + ("" if bare else f"; the floor is the raw {name}")
            shown = "" if bare else loop
            rows.append(Row(f"{what}, {name}", "µs", samples, shown, floors, wrong, note))
    return rows


def _between(begun: list[int], ended: list[int]) -> list[float]:
    return [(end - begin) / 1000 for begin, end in zip(begun, ended, strict=True)]


def _raw(path: str, count: int) -> list[float]:
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
            time.sleep(PAUSE)
            begun = time.monotonic_ns()
            publisher.sendall(command)
            message = subscriber.recv(1024)
            times.append((time.monotonic_ns() - begun) / 1000)
            assert message.endswith(data + b"\r\n")
            publisher.recv(64)
    return times
