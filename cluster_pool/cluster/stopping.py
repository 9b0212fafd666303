"""The drain before the end of a process: a signal begins it, or the server's own stop."""

import asyncio
import logging
import signal
from dataclasses import dataclass
from typing import Final, Protocol

from cluster_pool.cluster.signals import Signals
from cluster_pool.core.closing import SERVICE_RESTART
from cluster_pool.core.drain_plan import announcement_of
from cluster_pool.core.results import DrainReport

log = logging.getLogger("cluster_pool.drain")

GRACE: Final = 25.0
"""Seconds; orchestrators kill after 30."""
HASTY_GRACE: Final = 5.0
"""Seconds when a person waits, or when no other node can accept the clients."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """How a signal ends a node.

    Attributes:
        max_per_second: closes per second of all draining nodes together; None for no own limit.
        grace: seconds for a stop by SIGTERM; by SIGINT at most 5. None: 25, but 5 once no other
            node accepts newcomers or will; a given grace is not shortened.
        announce: seconds to announce; None: 5, or a quarter of the grace if that is less.
        message: sent to each connection ahead of its close; "" sends nothing.
        code: the close code.
    """

    max_per_second: float | None = None
    grace: float | None = None
    announce: float | None = None
    message: str | bytes = ""
    code: int = SERVICE_RESTART


class StopTarget(Protocol):
    """The methods of a pool that its last drain needs."""

    async def drain_for_good(
        self, stopping: Stopping, grace: float, announce: float, last_grace: float | None
    ) -> DrainReport:
        """Drain; orders cannot cancel it."""

    def hurry_drain(self) -> None:
        """See :class:`ClusterPool`."""

    async def alone(self) -> bool:
        """Whether no other node is alive; False when that is not known."""

    def was_alone(self) -> bool:
        """Whether that was so for a whole heartbeat."""


async def drain_for(
    pool: StopTarget, number: int | None, signals: Signals | None, stopping: Stopping
) -> DrainReport:
    """Drain because of a signal. A second one, or the end of the grace, closes the rest at once.

    Args:
        number: the signal; None when the server ends by itself: there are no newcomers, so nothing
            is announced, and the first signal is not yet a second one.
        signals: catches further signals; None when that is impossible.
    """
    grace = GRACE if stopping.grace is None else stopping.grace
    announce = announcement_of(grace, stopping.announce)
    last_grace = HASTY_GRACE if stopping.grace is None else None
    if number == signal.SIGINT:
        grace, announce, last_grace = min(grace, HASTY_GRACE), 0.0, None
    elif await pool.alone():
        announce = 0.0
        if last_grace is not None and pool.was_alone():
            grace = last_grace
    elif number is None:
        announce = 0.0
    why = "the server ends" if number is None else signal.Signals(number).name
    log.info("%s: draining within %g s", why, grace)
    drain = asyncio.create_task(
        pool.drain_for_good(stopping, grace, min(announce, grace / 2), last_grace)
    )
    second = asyncio.create_task(_second(number, signals))
    try:
        await asyncio.wait((drain, second), timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            log.warning("closing everyone who is left now")
            pool.hurry_drain()
        return await drain
    finally:
        second.cancel()
        drain.cancel()
        await asyncio.gather(drain, second, return_exceptions=True)


async def _second(number: int | None, signals: Signals | None) -> None:
    """Wait for the second signal, which ends the grace."""
    if signals is None:
        await asyncio.Event().wait()
        return
    if number is None:
        await signals.next()
    await signals.next()


class LastDrain:
    """Drains once: on a signal, which is handed on afterwards, or in :meth:`finish`."""

    def __init__(self, pool: StopTarget, signals: Signals | None, stopping: Stopping) -> None:
        self._pool = pool
        self._signals = signals
        self._stopping = stopping
        self._begun = False
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        if signals is not None:
            waiting = self._wait_for_signals(signals)
            self._task = asyncio.create_task(waiting, name="cluster_pool signals")

    async def finish(self, *, needed: bool) -> None:
        """The server ends: wait for the drain that a signal began, or drain now if needed."""
        if self._begun:
            await self._over.wait()
            return
        await self.stop()
        if needed:
            await self._drain(None)

    async def stop(self) -> None:
        """Stop waiting for signals."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _wait_for_signals(self, signals: Signals) -> None:
        number = await signals.next()
        await self._drain(number)
        await signals.hand_on(number)
        while True:
            await signals.hand_on(await signals.next())

    async def _drain(self, number: int | None) -> None:
        self._begun = True
        try:
            await drain_for(self._pool, number, self._signals, self._stopping)
        except Exception:  # in any case the process must end, and the signal be handed on
            log.exception("no drain before the end")
        finally:
            self._over.set()
