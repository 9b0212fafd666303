"""Rounds: a stream of messages, a fault, calm, and the account of the round."""

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tools.chaos.account import COLUMNS, FAILED_CALLS, MISSING, Account, account
from tools.chaos.books import COMMAND, PUBLISH, Books, Call, Window
from tools.chaos.cluster import Cluster, NotReadyError, Settings, running
from tools.chaos.growth import Sample
from tools.chaos.harm_servers import faults_of
from tools.chaos.ledger import Ledger
from tools.chaos.past_account import Chronicle, PastAccount
from tools.chaos.sparse import is_sparse
from tools.harness.programs import ProgramEndedError

SHOWN = 10
"""Failures of one round that are told at once; all of them are in the JSON."""
CALM = 1.0
"""Seconds of the stream before each fault, and after everybody is ready again."""
EVERY = 10.0
"""Seconds from one fault of a soak to the next."""
LOOK = 0.05
TENTH = 0.1

Tell = Callable[[str], None]


@dataclass
class Round:
    """One fault and what came of it.

    Attributes:
        lasted: seconds until Redis was whole again and all else was over.
        noticed: seconds until a node that could still speak was not well, or had connected anew;
            None for never.
        refused: seconds in which calls to those who are there were made in vain: the tenths of
            seconds that had one.
        ready: seconds after it was over until all nodes were well and all clients connected.
        registered: seconds after it was over, or for a killed node after it began, until the
            members without a WebSocket were registered, and nobody else.
        longest: seconds that the longest call took, of nodes that were neither frozen nor killed.
        due: messages, broadcasts once for each connection that should get them.
        lost: how many of these were lost, and reported by a gap.
        failures: how many the account found.
    """

    fault: str
    what: str
    lasted: float
    noticed: float | None
    refused: float
    ready: float
    registered: float
    longest: float
    due: int
    lost: int
    failures: int

    @property
    def healed(self) -> float:
        """Seconds until everything was as before."""
        return max(self.ready, self.registered)

    def __str__(self) -> str:
        noticed = "never" if self.noticed is None else f"after {self.noticed:.2f} s"
        return (
            f"{self.what}, {self.lasted:.1f} s: noticed {noticed}, calls refused for"
            f" {self.refused:.2f} s, ready again {self.ready:.2f} s and registered"
            f" {self.registered:.2f} s after it, longest call {self.longest:.2f} s,"
            f" {self.lost:,} of {self.due:,} lost, {self.failures} failures"
        )


@dataclass
class Run:
    """Everything there is to tell of a run."""

    account: Account = field(default_factory=Account)
    past: PastAccount = field(default_factory=PastAccount)
    chronicle: Chronicle = field(default_factory=Chronicle)
    rounds: list[Round] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


async def perform(
    settings: Settings, names: list[str], times: int, minutes: float, tell: Tell
) -> Run:
    """Each fault so many times in a random order; with ``minutes``, any until these are over."""
    run = Run()
    chance = random.Random(settings.seed)
    ledger = Ledger()
    try:
        async with running(settings, ledger) as cluster:
            if minutes:
                await _soak(cluster, names, chance, minutes, run, tell)
            else:
                for name in chance.sample(names * times, len(names) * times):
                    await _round(cluster, name, chance, run, tell, 0.0)
    except (NotReadyError, ProgramEndedError) as error:
        run.account.failures.append(f"the run ended early: {error}")
    run.account.failures += ledger.wrong
    return run


async def _soak(
    cluster: Cluster, names: list[str], chance: random.Random, minutes: float, run: Run, tell: Tell
) -> None:
    end = time.monotonic() + minutes * 60
    begun = time.monotonic()
    while begun < end:
        await _round(cluster, chance.choice(names), chance, run, tell, begun + EVERY)
        begun = time.monotonic()


async def _round(
    cluster: Cluster, name: str, chance: random.Random, run: Run, tell: Tell, until: float
) -> None:
    """Stream, harm, wait until all is well, stream on ``until`` then, close the books."""
    await cluster.begin()
    await cluster.spread()
    cluster.redis.save()
    await asyncio.sleep(CALM)
    before = await cluster.states()
    begun = time.monotonic()
    watching = asyncio.create_task(_noticed(cluster, before))
    try:
        harm = await faults_of(cluster.settings.topology)[name](cluster, chance)
        over = time.monotonic()
        ready, registered = await _all_well(cluster)
    finally:
        watching.cancel()
    (noticed,) = await asyncio.gather(watching, return_exceptions=True)
    well = ready if harm.ghosts else max(ready, registered)
    healed = max(over, well)
    if harm.repair is not None:
        await harm.repair()
        healed = max(await _all_well(cluster))
    cluster.ledger.broken(Window(begun, healed, harm.nodes, over, harm.forgets))
    await asyncio.sleep(max(CALM, until - time.monotonic()))
    books, figures = await cluster.close_books()
    result = await asyncio.to_thread(_account, run, books)  # the proxies run on this loop
    result.failures = [f"{failure} [{name}]" for failure in result.failures]
    run.account.add(result)
    run.samples += [_sample(node, one) for node, one in figures.items()]
    run.rounds.append(
        Round(
            name,
            harm.what,
            over - begun,
            noticed - begun if isinstance(noticed, float) else None,
            _refused(books, harm.held),
            max(ready - over, 0.0),
            max(registered - (begun if harm.ghosts else over), 0.0),
            max(call.ended - call.begun for call in _answered(books, harm.held)),
            sum(sum(row[column] for column in COLUMNS) for row in result.rows.values()),
            sum(row[MISSING] for kind, row in result.rows.items() if kind != PUBLISH),
            len(result.failures),
        )
    )
    tell(f"{len(run.rounds)}. {run.rounds[-1]}")
    for failure in result.failures[:SHOWN]:
        tell(f"   FAILED: {failure}")


def _account(run: Run, books: Books) -> Account:
    """The account of a round; what failed in namespaces with a history fails there, too."""
    past = run.chronicle.account(books)
    result = account(books, past.owed)
    result.failures += past.failures
    run.past.add(past)
    return result


async def _all_well(cluster: Cluster) -> tuple[float, float]:
    """Wait until everybody is ready, and the crowds are registered; gives when each was so."""
    await cluster.publisher.renew()
    return await asyncio.gather(cluster.wait_ready(), cluster.wait_registered())


async def _noticed(cluster: Cluster, before: dict[str, list[Any]]) -> float | None:
    """When the first node was not well, or had connected to Redis once more than before."""
    while True:
        for place in cluster.places:
            if not place.away:
                try:
                    well, links, *_ = await place.program.ask("state")
                except ProgramEndedError:
                    return None
                if not well or (place.node in before and links != before[place.node][1]):
                    return time.monotonic()
        await asyncio.sleep(LOOK)


def _answered(books: Books, held: frozenset[str]) -> list[Call]:
    """The calls of nodes and of the publisher outside that ended, but for those of some nodes."""
    return [
        call
        for call in books.calls
        if call.sender not in held and call.ended < math.inf
        if call.kind != PUBLISH and not call.sender.startswith(COMMAND)
    ]


def _refused(books: Books, held: frozenset[str]) -> float:
    """The time in which there was a call in vain to a namespace of the dense stream.

    A tenth of a second has many of these, and no id is away for long there.
    """
    dense = [call for call in _answered(books, held) if not is_sparse(call.namespace)]
    in_vain = {call.begun // TENTH for call in dense if call.outcome in FAILED_CALLS}
    return len(in_vain) * TENTH


def _sample(node: str, figures: dict[str, Any]) -> Sample:
    held = (figures[name] for name in ("memory", "tasks", "descriptors"))
    return Sample(time.monotonic(), node, *held)
