"""What a send costs when the cluster grows: from two nodes to many, from few members to a million.

In one cluster of many nodes, rounds of sends to members of one node and to members spread over all
of them take turns; then a node that is none registers a million others, and they do again.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from redis.asyncio import Redis

from benchmarks import machine
from benchmarks.children import Child
from benchmarks.cluster import NAMESPACE, Clients, Meter, Settings, clients, fault, node
from benchmarks.latency import percentile
from benchmarks.payloads import member_id
from benchmarks.registry import used
from benchmarks.table import Row
from cluster_pool.backplane.registry import BATCH, REAPED
from cluster_pool.backplane.scripts import sources
from cluster_pool.core.keys import Keys
from cluster_pool.embedded import EmbeddedServer

SLOWLOG = 100_000
NEVER = 10**17
"""A time in µs that does not come."""
CROWD = "nobody"
"""The node that holds the many: it has a lease, and no process."""


class Scripts:
    """What each call of a script took, in ms."""

    def __init__(self, redis: int) -> None:
        self._redis = redis
        self.walls: list[float] = []
        self.cpus: list[float] = []

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """One call."""
        before = machine.cpu_ns(self._redis)
        yield
        self.cpus.append((machine.cpu_ns(self._redis) - before) / 1e6)


@dataclass
class Target:
    """Some members to whom messages are sent, all at once."""

    first: int
    count: int
    sent: int = 0


class Cluster:
    """A node that sends, nodes that hold the members, and Redis."""

    def __init__(self, a: Child, others: list[Child], redis: int, readers: Clients) -> None:
        self._a = a
        self._readers = readers
        self._pids = {"A": a.pid, "Redis": redis}
        self._pids |= {str(at): child.pid for at, child in enumerate(others)}

    async def round(self, target: Target, rounds: int) -> tuple[dict[str, float], str]:
        """CPU per message in µs: of A, of all other nodes, of Redis."""
        total = rounds * target.count
        await self._a.ask("know", first=target.first, count=target.count)
        await self._a.ask("load", rounds=rounds, burst=1, first=target.sent, targeted=True)
        await self._readers.expect(target.count, target.sent)
        meter = Meter(self._pids)
        said = await self._a.ask("targeted", namespace=NAMESPACE)
        report = await self._readers.report(total)
        spent = meter.micros(total)
        target.sent += rounds
        parts = {name: spent.pop(name) for name in ("A", "Redis")}
        refused = [f"{count:,} {word}" for word, count in said.items() if count]
        return {**parts, "other nodes": sum(spent.values())}, fault(report, total, refused)


@contextlib.asynccontextmanager
async def _cluster(
    settings: Settings, loop: str, url: str, redis: int
) -> AsyncIterator[tuple[Cluster, list[Target]]]:
    """One target is on a single node, the other is spread over all but the sender."""
    count, holders = settings.connections, settings.nodes - 1
    async with contextlib.AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(node(url, f"B{at}", loop)) for at in range(holders)
        ]
        readers = await stack.enter_async_context(clients())
        a = await stack.enter_async_context(node(url, "A", loop, readers.gate))
        await readers.connect(others[0].hello["port"], NAMESPACE, count)
        for at, child in enumerate(others):
            first, last = count * at // holders, count * (at + 1) // holders
            await readers.connect(child.hello["port"], NAMESPACE, last - first, count + first)
        yield Cluster(a, others, redis, readers), [Target(0, count), Target(count, count)]


async def measure(settings: Settings, loop: str, tell: Callable[[str], None]) -> list[Row]:
    """Four costs per send, bytes per member, and the longest script of a million claims."""
    with EmbeddedServer() as redis:
        async with (
            Redis.from_url(redis.url) as admin,
            _cluster(settings, loop, redis.url, redis.pid) as (cluster, targets),
        ):
            rows = []
            few = await _rounds(cluster, targets, settings, lambda at: tell(f"scale: round {at}"))
            rows += _rows(few, settings, loop, 2 * settings.connections)
            tell(f"scale: {settings.many:,} claims")
            before = await used(admin)
            claimed = await _register(admin, redis.pid, settings.many)
            per_member = (await used(admin) - before) / settings.many
            many = await _rounds(cluster, targets, settings, lambda at: tell(f"scale: round {at}"))
            rows += _rows(many, settings, loop, 2 * settings.connections + settings.many, few)
            tell(f"scale: {settings.many:,} reaped")
            reaped = await _reap(admin, redis.pid)
    of_all = f"{settings.many:,} in one namespace"
    return [
        *rows,
        Row(f"Redis memory per member, {of_all}", "bytes", [per_member], note="ids of 36 bytes"),
        *_script_rows(f"scripts of {BATCH} claims, {of_all}", claimed),
        *_script_rows(f"scripts that reap {REAPED}, {of_all}", reaped),
    ]


def _script_rows(what: str, scripts: Scripts) -> Iterator[Row]:
    for times, note in (
        (scripts.walls, "as Redis tells: what it waited for a CPU is in it"),
        (scripts.cpus, "CPU of Redis during the call, all else that it did included"),
    ):
        for name, share in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0)):
            yield Row(f"{what}, {name}", "ms", [percentile(times, share)], note=note)


Measured = list[tuple[list[dict[str, float]], str]]


async def _rounds(
    cluster: Cluster, targets: list[Target], settings: Settings, tell: Callable[[int], None]
) -> Measured:
    """For each target its rounds, which take turns; the first of each is not counted."""
    found: list[list[dict[str, float]]] = [[] for _ in targets]
    wrong = ["" for _ in targets]
    for at in range(settings.rounds + 1):
        tell(at)
        for which, target in enumerate(targets):
            spent, fault_found = await cluster.round(target, settings.sends)
            wrong[which] = wrong[which] or fault_found
            if at:
                found[which].append(spent)
    return list(zip(found, wrong, strict=True))


def _rows(
    measured: Measured, settings: Settings, loop: str, members: int, fewer: Measured | None = None
) -> Iterator[Row]:
    """The floor is the same with fewer members, or the sends to a single node."""
    ones = [sum(parts.values()) for parts in measured[0][0]]
    for at, (rounds, wrong) in enumerate(measured):
        samples = [sum(parts.values()) for parts in rounds]
        floors: list[float] = []
        if fewer is not None:
            floors, beside = [sum(parts.values()) for parts in fewer[at][0]], "with fewer members"
        elif at:
            floors, beside = ones, "to a single node"
        where = f"spread over {settings.nodes - 1} nodes" if at else "of one node"
        yield Row(
            f"sends to {settings.connections:,} ids {where}, {members:,} members, "
            f"{settings.nodes} nodes up",
            "µs",
            samples,
            loop,
            floors,
            wrong,
            f"CPU per send; the floor is the same {beside}" if floors else "CPU per send",
            {name: sum(one[name] for one in rounds) / len(rounds) for name in rounds[0]},
        )


async def _register(admin: Redis, redis: int, count: int) -> Scripts:
    """Claim ``count`` ids for a node that is none; what each script took.

    Redis does nothing else meanwhile than renew the leases of the idle nodes.
    """
    keys = Keys()
    await admin.zadd(keys.leases, {CROWD: NEVER})
    await admin.hset(keys.incarnations, CROWD, CROWD)
    claim = admin.register_script(sources()["claim"])
    names = [keys.members(NAMESPACE), keys.owners(NAMESPACE)]
    head = [NEVER, f"{CROWD} 1", keys.channel(NAMESPACE), keys.events(NAMESPACE), CROWD, CROWD]
    async with _watched(admin, redis) as scripts:
        for at in range(0, count, BATCH):
            ids = range(at, min(at + BATCH, count))
            claims = [part for index in ids for part in (member_id(-2 - index), f"{index:x}", 0)]
            with scripts.timed():
                await claim(names, [*head, CROWD, "takeover", "", 10 * count, *claims])
    return scripts


async def _reap(admin: Redis, redis: int) -> Scripts:
    """Remove the members of the node that is none, as the reaper does; what each script took."""
    keys = Keys()
    script = admin.register_script(sources()["reap"])
    channel = keys.channel(NAMESPACE)
    names = [keys.members(NAMESPACE), keys.owners(NAMESPACE), keys.numbers(channel)]
    cursor = b"0"
    async with _watched(admin, redis) as scripts:
        while True:
            with scripts.timed():
                reply = await script(names, [CROWD, CROWD, cursor, REAPED, keys.events(NAMESPACE)])
            cursor = reply[0]
            if cursor == b"0":
                return scripts


@contextlib.asynccontextmanager
async def _watched(admin: Redis, redis: int) -> AsyncIterator[Scripts]:
    """Have Redis note how long each script takes."""
    scripts = Scripts(redis)
    await admin.config_set("slowlog-log-slower-than", 0)
    await admin.config_set("slowlog-max-len", SLOWLOG)
    await admin.slowlog_reset()
    yield scripts
    slow = await admin.slowlog_get(SLOWLOG)
    await admin.config_set("slowlog-log-slower-than", -1)
    await admin.slowlog_reset()  # it takes memory, too
    scripts.walls = [
        one["duration"] / 1000 for one in slow if one["command"].startswith(b"EVALSHA")
    ]
