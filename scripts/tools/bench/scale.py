"""What a send costs when the cluster grows: from two nodes to many, from few members to a million.

How much of a send is Redis's part depends on what the server allocates with, once it is large:
where there is a ``redis-server`` beside the usual server, the same is measured on either.

A cluster of many nodes: sends to members of one node and to members spread over all nodes take
turns. Then a node that is none registers a million members in another namespace, and there is the
same in either namespace. Before every round is one of bare writes: a shared machine changes its
speed within seconds, and what is compared is what a send is to a write of its own round.
"""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from redis.asyncio import Redis

from cluster_pool.backplane.registry import BATCH, REAPED
from cluster_pool.backplane.scripts import sources
from cluster_pool.core.keys import Keys
from cluster_pool.embedded import EmbeddedServer
from tools.bench import machine
from tools.bench.children import Child
from tools.bench.cluster import NAMESPACE, Clients, Meter, Settings, clients, fault, node
from tools.bench.delivery import REST, Floor, bare_writes
from tools.bench.latency import percentile
from tools.bench.payloads import member_id
from tools.bench.registry import used
from tools.bench.table import Row

SLOWLOG = 100_000
NEVER = 10**17
"""A time in µs that does not come."""
CROWDED = "crowded"
"""The namespace of the million."""
EMPTIED = "emptied"
"""The namespace of a hundred, again and again: what such a script takes wherever it runs."""
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

    namespace: str
    first: int
    count: int
    where: str
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
        await asyncio.sleep(REST)
        total = rounds * target.count
        await self._a.ask("know", first=target.first, count=target.count)
        await self._a.ask("load", rounds=rounds, burst=1, first=target.sent, targeted=True)
        await self._readers.expect(target.count, target.sent)
        meter = Meter(self._pids)
        said = await self._a.ask("targeted", namespace=target.namespace)
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
        targets = []
        for at, namespace in enumerate((NAMESPACE, CROWDED)):
            first = 2 * count * at
            await readers.connect(others[0].hello["port"], namespace, count, first)
            targets.append(Target(namespace, first, count, "of one node"))
            first += count
            for which, child in enumerate(others):
                begin, end = count * which // holders, count * (which + 1) // holders
                await readers.connect(child.hello["port"], namespace, end - begin, first + begin)
            targets.append(Target(namespace, first, count, f"spread over {holders} nodes"))
        yield Cluster(a, others, redis, readers), targets


async def measure(
    settings: Settings, loop: str, tell: Callable[[str], None], program: str | None = None
) -> list[Row]:
    """Six costs per send, bytes per member, and the longest scripts of a million members.

    Args:
        program: the server, whose version is then told in each row.
    """
    on = f", on {machine.server_version(program)}" if program else ""
    with EmbeddedServer(program=program) as redis:
        async with (
            Redis.from_url(redis.url) as admin,
            bare_writes(settings) as floor,
            _cluster(settings, loop, redis.url, redis.pid) as (cluster, targets),
        ):
            alone = await _rounds(floor, cluster, targets[:2], settings, tell)
            tell(f"scale: {settings.many:,} claims, {BATCH} at a time in an empty namespace")
            apart = await _register(admin, redis.pid, settings.many, EMPTIED, apart=True)
            tell(f"scale: {settings.many:,} claims")
            before = await used(admin)
            claimed = await _register(admin, redis.pid, settings.many)
            per_member = (await used(admin) - before) / settings.many
            beside = await _rounds(floor, cluster, targets, settings, tell)
            tell(f"scale: {settings.many:,} reaped")
            reaped = await _reap(admin, redis.pid)
    of_all = f"{settings.many:,} in one namespace{on}"
    return [
        *_send_rows(alone, settings, loop, f"nobody else{on}"),
        *_send_rows(beside[:2], settings, loop, f"{settings.many:,} in another namespace{on}"),
        *_send_rows(beside[2:], settings, loop, f"{settings.many:,} in the same namespace{on}"),
        Row(f"Redis memory per member, {of_all}", "bytes", [per_member], note="ids of 36 bytes"),
        *_script_rows(f"as many scripts of {BATCH} claims, each in an empty namespace{on}", apart),
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


@dataclass
class Measured:
    """The rounds of a target: µs per message by process, and the floor before each."""

    target: Target
    rounds: list[dict[str, float]] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    wrong: str = ""


async def _rounds(
    floor: Floor,
    cluster: Cluster,
    targets: list[Target],
    settings: Settings,
    tell: Callable[[str], None],
) -> list[Measured]:
    """Rounds of each target, which take turns; the first of each is not counted."""
    found = [Measured(target) for target in targets]
    for at in range(settings.rounds + 1):
        tell(f"scale: round {at} of {settings.rounds}")
        for one in found:
            written, _ = await floor.round(settings.messages)
            spent, wrong = await cluster.round(one.target, settings.messages)
            one.wrong = one.wrong or wrong
            if at:
                one.rounds.append(spent)
                one.floors.append(sum(written.values()))
    return found


def _send_rows(
    measured: list[Measured], settings: Settings, loop: str, beside: str
) -> Iterator[Row]:
    for one in measured:
        yield Row(
            f"sends to {one.target.count:,} ids {one.target.where}, {settings.nodes} nodes up, "
            f"and {beside}",
            *("µs", [sum(parts.values()) for parts in one.rounds], loop, one.floors, one.wrong),
            "CPU per send",
            {name: statistics.median(part[name] for part in one.rounds) for name in one.rounds[0]},
        )


async def _register(
    admin: Redis, redis: int, count: int, namespace: str = CROWDED, *, apart: bool = False
) -> Scripts:
    """Claim ``count`` ids for a node that is none; what each script took.

    Redis does nothing else meanwhile than renew the leases of the idle nodes.

    Args:
        apart: the namespace is emptied before each call.
    """
    keys = Keys()
    await admin.zadd(keys.leases, {CROWD: NEVER})
    await admin.hset(keys.incarnations, CROWD, CROWD)
    claim = admin.register_script(sources()["claim"])
    names = [keys.members(namespace), keys.owners(namespace)]
    head = [NEVER, f"{CROWD} 1", keys.channel(namespace), keys.events(namespace), CROWD, CROWD]
    async with _watched(admin, redis) as scripts:
        for at in range(0, count, BATCH):
            if apart:
                await admin.delete(*names)
            ids = range(at, min(at + BATCH, count))
            claims = [part for index in ids for part in (member_id(-2 - index), f"{index:x}", 0)]
            with scripts.timed():
                await claim(names, [*head, CROWD, "takeover", "", 10 * count, *claims])
    return scripts


async def _reap(admin: Redis, redis: int) -> Scripts:
    """Remove the members of the node that is none, as the reaper does; what each script took."""
    keys = Keys()
    script = admin.register_script(sources()["reap"])
    channel = keys.channel(CROWDED)
    names = [keys.members(CROWDED), keys.owners(CROWDED), keys.numbers(channel)]
    cursor = b"0"
    async with _watched(admin, redis) as scripts:
        while True:
            with scripts.timed():
                reply = await script(names, [CROWD, CROWD, cursor, REAPED, keys.events(CROWDED)])
            cursor = reply[0]
            if not cursor:
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
