"""The base of pools and publishers: made once, started and stopped any number of times.

Each start builds another object, which this holds. Nothing here is bound to an event loop.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

from cluster_pool.backplane.backplane import Backplane, Setup
from cluster_pool.cluster.directory import ClusterDirectory
from cluster_pool.cluster.histories import HistoryReading
from cluster_pool.cluster.life import Life
from cluster_pool.cluster.orders import NodeOrders
from cluster_pool.cluster.people import People
from cluster_pool.cluster.revoking import Revoking
from cluster_pool.cluster.sending import Sending
from cluster_pool.core.config import check_wait
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import PoolClosedError
from cluster_pool.loops import check_loop

NOT_RUNNING = "not started, or stopped"

_LOST: list[object] = []
"""Parts that were started in another process, before a fork, or in a loop that is closed. They are
kept for ever: if their coroutines were freed, they would close sockets, and so remove them from the
selector of the parent."""


class Running(Protocol):
    """The parts of one start that both a pool and a publisher have."""

    @property
    def backplane(self) -> Backplane:
        """Its connection to Redis."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which it was started."""

    @property
    def over(self) -> bool:
        """Whether it was stopped."""

    @property
    def sending(self) -> Sending:
        """Sends messages."""

    @property
    def people(self) -> People:
        """Reaches users."""

    @property
    def directory(self) -> ClusterDirectory:
        """Reads the cluster."""

    @property
    def histories(self) -> HistoryReading:
        """Reads histories."""

    @property
    def orders(self) -> NodeOrders:
        """Sends orders to nodes."""

    @property
    def revoking(self) -> Revoking:
        """Revokes tokens."""

    async def start(self, wait: float | None) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""


class Calls:
    """The base of each class of calls."""

    def _running(self) -> Running:
        """The parts of the present start.

        Raises:
            PoolClosedError: not started, or stopped.
            WrongLoopError: this is not the loop of the start.
        """
        raise NotImplementedError

    def _counters(self) -> Counters:
        """The counters of this process."""
        raise NotImplementedError


Parts = TypeVar("Parts", bound=Running)


class Handle(Calls, Generic[Parts]):
    """Starts and stops, and holds the parts of the last start.

    Args:
        build: makes the parts of a start, in the running loop; they do nothing yet.
    """

    def __init__(self, setup: Setup, build: Callable[[], Parts]) -> None:
        self._setup = setup
        self._build = build
        self.limits = setup.limits
        self.timing = setup.timing
        self.counters = setup.counters
        self._life = Life(self._end)
        self._parts: Parts | None = None

    def _running(self) -> Parts:
        parts = self._parts
        if parts is None or parts.over:
            raise PoolClosedError(NOT_RUNNING)
        check_loop(parts.loop)
        return parts

    def _counters(self) -> Counters:
        return self.counters

    def _started(self) -> Parts:
        """The parts of the last start, also when that has been stopped.

        Raises:
            PoolClosedError: it was never started.
            WrongLoopError: this is not the loop of the start.
        """
        if self._parts is None:
            raise PoolClosedError(NOT_RUNNING)
        check_loop(self._parts.loop)
        return self._parts

    def _begin(self, wait: float | None) -> Coroutine[Any, Any, None]:
        if self._life.lost:
            _LOST.append(self._parts)
        parts = self._parts = self._build()
        return parts.start(wait)

    async def _end(self) -> None:
        if self._parts is not None:
            await self._parts.stop()

    # -- lifetime --------------------------------------------------------------------------

    async def start(self, *, wait: float | None = None) -> Self:
        """Connect to Redis. ``async with`` does it, too.

        It may be started again after a stop. A second call waits for the same start; a cancelled
        call undoes it.

        Args:
            wait: seconds to go on trying while Redis cannot be reached, 0 or more, infinity too;
                None tries once.

        Raises:
            BackplaneUnavailableError: Redis cannot be reached; the text names its address.
            PoolClosedError: :meth:`stop` was called before it was up.
        """
        await self._life.start(partial(self._begin, None if wait is None else check_wait(wait)))
        return self

    async def stop(self) -> None:
        """Disconnect. Unanswered calls fail.

        It may be called twice, and during a start, which then raises PoolClosedError. If this call
        is cancelled, the stop goes on; another call waits for it.
        """
        await self._life.stop()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        """The address of Redis, without its password."""
        return self._setup.address.shown

    @property
    def trouble(self) -> str:
        """Why Redis does not serve this process, in a sentence; "" while it does.

        It has the error of Redis or of the network, and advice where there is any. For any thread,
        also before the start. The errors of calls that time out end with the same sentence.
        """
        return "" if self._parts is None else self._parts.backplane.topology.outage.reason
