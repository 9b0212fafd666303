"""Reads which nodes of a Redis Cluster have which slots, from the node that answers first.

Owns the reading, and how often it happens. Its listener decides what follows from a new one.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from cluster_pool.backplane.address import Address
from cluster_pool.backplane.endpoint import Endpoint, drop
from cluster_pool.backplane.refusals import FAULTS, refusal, unavailable
from cluster_pool.backplane.slots import Group, read_groups
from cluster_pool.exceptions import BackplaneUnavailableError

CONNECT: Final = 1.0
"""Seconds to wait at most for a socket to one node."""
PATIENCE: Final = 1.5
"""Seconds to wait for one node."""
STAGGER: Final = 0.15
"""Seconds until another node is asked as well."""
FRESH: Final = 0.1
"""The least number of seconds between two readings."""
PERIOD: Final = 30.0
"""The most seconds between two readings, with jitter, when no move is reported."""

NEVER: Final = float("-inf")


class ClusterMap:
    """The groups of a cluster, as the last reading has them.

    Args:
        changed: told of each reading that says something else than the one before.
    """

    def __init__(self, address: Address, changed: Callable[[Sequence[Group]], None]) -> None:
        self.groups: Sequence[Group] = ()
        self._address = address
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._read_at = NEVER
        self._reading: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()

    # -- when ------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Request a reading soon."""
        self._wanted.set()

    async def wanted(self) -> None:
        """Wait until a reading is requested, or due because the last one is old."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD * random.uniform(0.5, 1)):
                await self._wanted.wait()
        self._wanted.clear()

    async def fresh(self, doubted: Iterable[str] = ()) -> None:
        """Read it, unless that was done a moment ago; callers share a reading that is under way.

        Args:
            doubted: names of nodes that are asked last.

        Raises:
            BackplaneUnavailableError: no node answers.
        """
        if self._loop.time() < self._read_at + FRESH:
            return
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(frozenset(doubted)))
            self._reading.add_done_callback(self._end_reading)
        await asyncio.shield(self._reading)

    def _end_reading(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # raised in whoever waits, if anybody does

    async def stop(self) -> None:
        """End a reading that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    # -- reading ---------------------------------------------------------------------------

    async def _read(self, doubted: frozenset[str]) -> None:
        groups = await self._first_answer(self._endpoints(doubted))
        self._read_at = self._loop.time()
        if _normal(groups) != _normal(self.groups):
            self.groups = groups
            self._changed(groups)

    def _endpoints(self, doubted: frozenset[str]) -> list[Endpoint]:
        """The nodes to ask: known ones in random order, then doubted ones, then the user's."""
        known = [
            (id in doubted, random.random(), place)
            for group in self.groups
            for id, place in zip(group.ids, group.places, strict=True)
        ]
        announced = [self._address.announced(place) for _, _, place in sorted(known)]
        return announced + self._address.seeds

    async def _first_answer(self, endpoints: Sequence[Endpoint]) -> list[Group]:
        """Ask one after another, without waiting long for any of them."""
        asked: set[asyncio.Task[list[Group]]] = set()
        left, failures = list(endpoints), list[BaseException]()
        try:
            while left or asked:
                if left:
                    asked.add(asyncio.create_task(_ask(left.pop(0))))
                done, asked = await asyncio.wait(
                    asked,
                    timeout=STAGGER if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                failed = {one: failure for one in done if (failure := one.exception())}
                for one in done - failed.keys():
                    return one.result()
                failures += failed.values()
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        failure = failures[-1]
        if isinstance(failure, BackplaneUnavailableError):
            raise BackplaneUnavailableError(
                f"no node of the cluster {self._address.shown} says who has its slots: {failure}"
            ) from failure
        raise failure


async def _ask(endpoint: Endpoint) -> list[Group]:
    """Ask one node for all groups; raises BackplaneUnavailableError without an answer."""
    what = f"Redis at {endpoint.shown}"
    try:
        async with asyncio.timeout(PATIENCE):
            connection = await endpoint.within(CONNECT).open()
            try:
                await connection.send_command("CLUSTER", "SLOTS")
                groups = read_groups(await connection.read_response(), endpoint.login.where)
            finally:
                await drop(connection)
    except TimeoutError:
        raise BackplaneUnavailableError(f"{what} did not answer in time") from None
    except ResponseError as error:
        raise BackplaneUnavailableError(f"{what}: {refusal(error)}") from error
    except FAULTS as error:
        raise unavailable(what, error) from error
    except ValueError as error:
        raise BackplaneUnavailableError(f"{what}: {error}") from error
    if not groups:
        raise BackplaneUnavailableError(f"{what}: no node has any slot yet")
    return groups


def _normal(groups: Sequence[Group]) -> dict[str, tuple[Any, ...]]:
    """A reading in a form that is independent of its order."""
    return {
        group.ids[0]: (dict(zip(group.ids, group.places, strict=True)), set(group.ranges))
        for group in groups
    }
