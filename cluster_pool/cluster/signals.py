"""Draining when the process is told to end: SIGTERM from an orchestrator, SIGINT from a person.

The signals are taken from whoever has them (an ASGI server, say, which would close every socket at
once), and can be handed on when the drain is over.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from cluster_pool.core.closing import SERVICE_RESTART
from cluster_pool.core.drain_plan import announcement_of
from cluster_pool.core.results import DrainReport
from cluster_pool.exceptions import ClusterPoolError

log = logging.getLogger("cluster_pool.drain")

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
GRACE: Final = 25.0
"""Seconds; orchestrators kill after 30."""
HASTY_GRACE: Final = 5.0
"""Seconds when a person waits, or when no other node is there to take anybody."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """How a signal ends a node.

    Attributes:
        max_per_second: closes per second of all nodes that drain, together; None names none.
        grace: seconds for a stop by SIGTERM; by SIGINT, or without another live node, at most 5.
        announce: seconds to announce; None: 5, or a quarter of the grace if that is less.
        message: sent to each connection ahead of its close; "" sends nothing.
        code: the close code.
    """

    max_per_second: float | None = None
    grace: float = GRACE
    announce: float | None = None
    message: str | bytes = ""
    code: int = SERVICE_RESTART


class Drainable(Protocol):
    """A pool, as far as a signal concerns it."""

    async def drain_for_good(
        self, stopping: "Stopping", grace: float, announce: float
    ) -> DrainReport:
        """Drain, and be cancelled by nobody."""

    def hurry_drain(self) -> None:
        """See :class:`ClusterPool`."""

    async def alone(self) -> bool:
        """Whether no other node is alive."""


class Signals:
    """Takes SIGTERM and SIGINT while it is entered; in the main thread only."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[int] = asyncio.Queue()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def hear(number: int, frame: object) -> None:
            loop.call_soon_threadsafe(self._heard.put_nowait, number)

        try:
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, hear)
        except ValueError as error:
            raise ClusterPoolError(
                f"signals can be taken in the main thread only: {error}"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    async def next(self) -> int:
        """Wait for a signal."""
        return await self._heard.get()

    def hand_on(self, number: int) -> None:
        """Do what whoever had the signal before would have done."""
        handler: Callable[[int, object], object] | int | None = self._previous[number]
        if callable(handler):
            handler(number, None)
        elif handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


async def drain_for(
    pool: Drainable, number: int, signals: Signals, stopping: Stopping
) -> DrainReport:
    """Drain because of a signal. A second one, or the end of the grace, closes the rest at once."""
    grace, announce = stopping.grace, announcement_of(stopping.grace, stopping.announce)
    if number == signal.SIGINT or await pool.alone():
        grace, announce = min(grace, HASTY_GRACE), 0.0
    log.info("%s: draining within %g s", signal.Signals(number).name, grace)
    drain = asyncio.create_task(pool.drain_for_good(stopping, grace, min(announce, grace / 2)))
    second = asyncio.create_task(signals.next())
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
