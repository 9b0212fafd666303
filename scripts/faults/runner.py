"""Rounds: a stream of messages, a fault, calm, and the account of the round."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faults.account import Account, account
from faults.cluster import Cluster
from faults.harm import FAULTS

CALM = 1.0
"""Seconds of the stream before each fault, and after everybody is ready again."""

Figures = dict[str, dict[str, Any]]


@dataclass
class Round:
    """One fault and what came of it; ``ready`` is seconds from its begin to everybody's readiness."""

    name: str
    what: str
    lasted: float
    ready: float
    failures: int


@dataclass
class Run:
    """Everything there is to tell of a run."""

    account: Account = field(default_factory=Account)
    rounds: list[Round] = field(default_factory=list)
    figures: list[tuple[float, Figures]] = field(default_factory=list)


async def run_round(
    cluster: Cluster, name: str, chance: random.Random, run: Run, tell: Callable[[str], None]
) -> None:
    """Stream, harm, wait until all is well, and close the books."""
    await cluster.begin()
    await asyncio.sleep(CALM)
    begun = time.monotonic()
    harm = await FAULTS[name](cluster, chance)
    over = time.monotonic()
    ready = await cluster.wait_ready()
    cluster.ledger.broken(begun, ready, harm.nodes)
    await asyncio.sleep(CALM)
    books, figures = await cluster.close_books()
    result = account(books)
    run.account.add(result)
    run.figures.append((time.monotonic(), figures))
    run.rounds.append(Round(name, harm.what, over - begun, ready - begun, len(result.failures)))
    tell(f"{harm.what}: ready after {ready - begun:.2f} s, {len(result.failures)} failures")
