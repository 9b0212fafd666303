"""What is measured. Each scenario yields rows: a name, a value with its unit, and a remark."""

import asyncio
import socket
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from redis import Redis

from benchmarks.processes import Bench, connected, cpu_seconds, received_all, resident_bytes
from cluster_pool import Limits, Timing
from cluster_pool.backplane.address import Address
from cluster_pool.backplane.registry import BATCH, Registry
from cluster_pool.backplane.session import Session
from cluster_pool.core.ids import new_start
from cluster_pool.core.keys import Keys
from cluster_pool.core.statistics import Counters

CLIENTS = 1000
FRAME = 132
"""Bytes of an uncompressed frame with 128 bytes of payload (RFC 6455 section 5.2)."""


PAUSE = 0.03
"""Seconds between two rounds of writes, so that the readers have gone back to sleep: a write that
must wake its reader costs several times one that finds it awake."""


@dataclass(frozen=True)
class Row:
    """One line of the table. ``values`` are the rounds; the table shows median and spread."""

    name: str
    unit: str
    values: list[float]
    remark: str = ""
    floor: bool = False


@dataclass(frozen=True)
class Settings:
    """How much to do."""

    loop: str
    rounds: int
    quick: bool


def floor(settings: Settings) -> Iterator[Row]:
    """A bare write(2) of one frame to each of 1,000 sockets that another process reads."""
    with Bench(settings.loop) as bench:
        sink = bench.clients()
        sink.tell("raw", count=CLIENTS)
        port = int(sink.answer()["port"])
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS)]
        sink.answer()
        frame = b"x" * FRAME
        values = []
        passes = 30 if settings.quick else 100
        for _ in range(settings.rounds):
            began = time.process_time()
            for _ in range(passes):
                for sock in sockets:
                    sock.send(frame)
                time.sleep(PAUSE)
            values.append((time.process_time() - began) / (passes * CLIENTS) * 1e6)
        for sock in sockets:
            sock.close()
    yield Row("bare write(2)", "µs CPU", values, "the writing process alone", floor=True)


def fan_out(settings: Settings) -> Iterator[Row]:
    """Broadcasts and targeted sends from node A to 1,000 clients of node B."""
    with connected(settings.loop, CLIENTS) as (bench, a, b, clients):
        pids = (a.pid, b.pid, bench.redis.pid)
        scale = 1 if settings.quick else 4
        plans = [
            ("cross-node broadcast", "broadcast", 25 * scale, 1, PAUSE, CLIENTS),
            ("the same, 16 at once", "broadcast", 5 * scale, 16, 0.06, 16 * CLIENTS),
            ("cross-node targeted send", "send", 10 * scale, CLIENTS, 0.06, CLIENTS),
        ]
        expected = received_all(clients, 0)
        for name, do, rounds, at_once, pause, each in plans:
            a.ask(do, rounds=3, at_once=at_once, pause=pause)
            expected += 3 * each * FRAME
            values, lost, parts = [], 0, []
            for _ in range(settings.rounds):
                received_all(clients, expected)
                before = [cpu_seconds(pid) for pid in pids]
                a.ask(do, rounds=rounds, at_once=at_once, pause=pause)
                count = rounds * each
                expected += count * FRAME
                lost += max(0, expected - received_all(clients, expected)) // FRAME
                used = [cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
                values.append(sum(used) / count * 1e6)
                parts.append([one / count * 1e6 for one in used])
            shares = [statistics.median(part[at] for part in parts) for at in range(3)]
            remark = "A {:.1f}, B {:.1f}, Redis {:.1f}".format(*shares)
            yield Row(name, "µs CPU", values, remark + (f"; {lost} LOST" if lost else ""))


def one_at_a_time(settings: Settings) -> Iterator[Row]:
    """One cross-node send when nothing else happens."""
    count = 200 if settings.quick else 1000
    with connected(settings.loop, 1) as (bench, a, _, clients):
        a.ask("send", rounds=50, at_once=1, pause=0.002)
        time.sleep(0.2)
        clients.ask("time")
        took = a.ask("one", rounds=count, pause=0.003)["took"]
        time.sleep(0.3)
        delays = clients.ask("read")["delays"]
        raw = _raw_round_trips(str(bench.redis.path), count)
    for name, samples, remark in (
        ("raw PUBLISH to subscriber", raw, "two blocking sockets"),
        ("one send until its answer", took, "idle, ROUTED"),
        ("one send until its client has it", delays, f"{len(delays)} of {count} arrived"),
    ):
        ordered = sorted(sample / 1000 for sample in samples)
        yield Row(f"{name}, p50", "µs", [ordered[len(ordered) // 2]], remark)
        yield Row(f"{name}, p99", "µs", [ordered[int(len(ordered) * 0.99)]], remark)


def _raw_round_trips(path: str, count: int) -> list[int]:
    listener, publisher = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    with listener, publisher:
        listener.connect(path)
        publisher.connect(path)
        listener.sendall(b"SUBSCRIBE raw\r\n")
        listener.recv(4096)
        took = []
        for _ in range(count):
            began = time.monotonic_ns()
            publisher.sendall(b"PUBLISH raw " + b"x" * 128 + b"\r\n")
            listener.recv(4096)
            took.append(time.monotonic_ns() - began)
            publisher.recv(4096)
            time.sleep(0.001)
    return took


def memory(settings: Settings) -> Iterator[Row]:
    """What an idle connection costs the node that serves it."""
    count = 1000 if settings.quick else 5000
    with Bench(settings.loop) as bench:
        b, port = bench.server()
        clients = bench.clients()
        clients.ask("connect", port=port, namespace="warm", prefix="w", first=0, count=100)
        before = resident_bytes(b.pid)
        clients.ask("connect", port=port, namespace="idle", prefix="c", first=0, count=count)
        time.sleep(1)
        after = resident_bytes(b.pid)
    used = (after - before) / count / 1024
    yield Row("memory per idle connection", "KiB", [used], f"{count} connections, node B alone")


def registry(settings: Settings) -> Iterator[Row]:
    """What a member costs Redis."""
    count = 20_000 if settings.quick else 100_000
    with Bench(settings.loop) as bench, Redis.from_url(bench.redis.url) as client:
        before = client.info("memory")["used_memory"]
        seconds = asyncio.run(_claim(bench.redis.url, count))
        used = client.info("memory")["used_memory"] - before
        assert client.hlen(Keys().members("bench")) == count
    remark = f"{count} members with ids of 36 bytes in one namespace"
    yield Row("Redis memory per member", "bytes", [used / count], remark)
    yield Row("claims, in batches of 200", "per s", [count / seconds], "one node, one link")


async def _claim(url: str, count: int) -> float:
    keys, start = Keys(), new_start()
    limits, timing, counters = Limits(), Timing(), Counters()
    session = Session(
        Address(url, 2.0),
        keys,
        keys.node_channel("bench"),
        start,
        limits=limits,
        timing=timing,
        counters=counters,
    )
    await session.start(None)
    registry = Registry(session, keys, "bench")
    loop = asyncio.get_running_loop()
    incarnation = f"{start}.0"
    await registry.join(incarnation, 60, "{}", loop.time() + 2)
    ids = [(str(uuid.uuid4()), format(number, "x")) for number in range(count)]
    link = await session.link_by(loop.time() + 2)
    began = loop.time()
    for at in range(0, count, 10 * BATCH):
        deadline = loop.time() + 10
        await asyncio.gather(
            *[
                registry.claim(
                    link,
                    "bench",
                    incarnation,
                    ids[first : first + BATCH],
                    session.clock.at(deadline),
                    deadline,
                    takeover=True,
                )
                for first in range(at, min(at + 10 * BATCH, count), BATCH)
            ]
        )
    seconds = loop.time() - began
    await session.stop()
    return seconds


def ghosts(settings: Settings) -> Iterator[Row]:
    """A node with 1,000 members is killed; when has the last trace of them gone?"""
    with (
        connected(settings.loop, CLIENTS) as (bench, a, b, _),
        Redis.from_url(bench.redis.url) as client,
    ):
        time.sleep(10)
        b.kill()
        began = time.monotonic()
        unlisted = None
        while time.monotonic() - began < 40:
            seen = a.ask("count")
            if unlisted is None and seen == {"count": 0, "members": 0}:
                unlisted = time.monotonic() - began
            if unlisted is not None and not client.exists(Keys().members("bench")):
                break
            time.sleep(0.02)
        reaped = time.monotonic() - began
    yield Row("ghosts out of count and members", "s", [unlisted or -1.0], "lease 10 s, heartbeat 3")
    yield Row("ghosts out of the registry", "s", [reaped], f"{CLIENTS} members")


SCENARIOS = {
    "floor": floor,
    "fan-out": fan_out,
    "latency": one_at_a_time,
    "memory": memory,
    "registry": registry,
    "ghosts": ghosts,
}
