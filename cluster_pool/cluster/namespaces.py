"""The namespaces in which this node holds members: their channels, and the registry's list of them.

Before the first claim in it, a namespace is subscribed, with Redis's confirmation, and added to the
registry's list of this node's namespaces. By that list a node that reaps this one finds its
members. After the last member has left, a namespace lingers for a while, so that a client that
comes back at once costs nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from cluster_pool.backplane.claims import Claims
from cluster_pool.backplane.subscription import Subscription, end_all
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.core.config import Timing
from cluster_pool.core.ids import is_reserved
from cluster_pool.core.keys import Keys
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    MembershipLimitError,
    PoolClosedError,
)

TIDIED: Final = 500
"""Namespaces that are unsubscribed in one turn of the loop: a drain may empty 100,000 at once."""


@dataclass(slots=True)
class Held:
    """A namespace in which this node holds members, or did a moment ago.

    Attributes:
        count: connections that claim, own, or are being released.
        subscription: that to its channel; None before the first claim.
        confirming: the task that waits for Redis to confirm the channel; it lives until the
            namespace is forgotten, independent of its callers.
        listed_under: the incarnation under which the registry lists it, or is about to.
        listing: ends when the registry has answered; None when no listing is under way.
    """

    count: int = 0
    subscription: Subscription | None = None
    confirming: asyncio.Task[None] | None = None
    listed_under: str = ""
    listing: asyncio.Future[None] | None = None


class Namespaces:
    """Counts the members of each namespace; keeps subscriptions and the registry's list in step."""

    def __init__(
        self, topology: Topology, claims: Claims, keys: Keys, timing: Timing, limit: int
    ) -> None:
        self._topology = topology
        self._claims = claims
        self._keys = keys
        self._timing = timing
        self._limit = limit
        self._held: dict[str, Held] = {}
        self._reserved = 0
        """The number of those that are the library's own; there are no more than connections."""
        self._fresh: set[str] = set()
        self._incarnation = ""
        self.unlisted = ""
        """The reason for which namespaces could not be listed last."""
        self._lingering: dict[str, float] = {}
        self._tidying: asyncio.Handle | None = None
        self._subscriptions: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Cancel the subscriptions that are under way."""
        if self._tidying is not None:
            self._tidying.cancel()
        for task in list(self._subscriptions):
            task.cancel()
        await asyncio.gather(*self._subscriptions, return_exceptions=True)

    def held(self) -> list[str]:
        """The namespaces with members of this node."""
        return [namespace for namespace, held in self._held.items() if held.count]

    def holds(self, namespace: str) -> bool:
        """Whether a namespace has members of this node."""
        held = self._held.get(namespace)
        return held is not None and held.count > 0

    def check_room(self, namespace: str) -> None:
        """Raise MembershipLimitError if ``namespace`` would be one too many for this node."""
        if namespace in self._held or is_reserved(namespace):
            return
        if len(self._held) - self._reserved >= self._limit:
            raise MembershipLimitError("node_namespaces", self._limit)

    def enter(self, namespace: str) -> None:
        """Count one more member, before its claim is sent."""
        held = self._held.get(namespace)
        if held is None:
            held = self._held[namespace] = Held()
            self._reserved += is_reserved(namespace)
        if held.listed_under != self._incarnation or not held.listed_under:
            self._fresh.add(namespace)
        held.count += 1

    def leave(self, namespace: str, *, unanswered: bool = False) -> None:
        """Count one member less; after the last one the namespace lingers.

        It lingers longer if the claim was not answered in time: then the channel is still
        subscribed when the client tries again. Otherwise no client could join with a slow Redis.
        """
        held = self._held[namespace]
        held.count -= 1
        if not held.count:
            loop = asyncio.get_running_loop()
            linger = self._timing.linger + (2 * self._timing.timeout if unanswered else 0)
            self._lingering[namespace] = loop.time() + linger
            if self._tidying is None:
                self._tidying = loop.call_later(self._timing.linger, self._tidy)

    async def subscribed(self, namespace: str, deadline: float) -> None:
        """Wait until the channel of an entered namespace is subscribed, ``deadline`` at the latest.

        All callers share one subscription, which has no deadline: a caller that gives up does not
        affect the others, and a later one waits only for the rest.

        Raises:
            BackplaneUnavailableError: not confirmed in time, or Redis refused.
        """
        held = self._held[namespace]
        if held.confirming is None:
            held.confirming = task = asyncio.create_task(self._subscribe(namespace, held))
            self._subscriptions.add(task)
            task.add_done_callback(self._subscribed)
        confirming = held.confirming
        if not confirming.done():
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait((confirming,), timeout=max(0.0, left))
        if not confirming.done():
            raise self._topology.of(namespace).in_vain()
        if confirming.cancelled():
            raise PoolClosedError("stopped")
        error = confirming.exception()
        if isinstance(error, BackplaneUnavailableError):  # each caller raises one of its own
            raise BackplaneUnavailableError(str(error)) from error
        confirming.result()

    async def _subscribe(self, namespace: str, held: Held) -> None:
        try:
            if held.subscription is None:
                channel = self._keys.channel(namespace)
                held.subscription = self._topology.subscriptions.add(channel)
            await held.subscription.confirmed(None)
        except BaseException:
            held.confirming = None  # the next caller tries again
            raise

    def _subscribed(self, task: asyncio.Task[None]) -> None:
        self._subscriptions.discard(task)
        if not task.cancelled():
            task.exception()  # read here, so that asyncio does not log it

    def add_new(
        self, links: Links, incarnation: str, names: Iterable[str], deadline: float
    ) -> Coroutine[Any, Any, bool]:
        """Add those of some namespaces to the registry's list that it does not have under this
        incarnation. After a rejoin there may be very many others, which are not waited for.

        The command is queued before this returns, and so ahead of later claims at the same shard.
        The coroutine gives False when the registry did not list them.
        """
        self._under(incarnation)
        fresh = [name for name in self._fresh.intersection(names) if self.holds(name)]
        self._fresh.difference_update(fresh)
        added_all = self._add(links, incarnation, fresh, deadline)

        async def read() -> bool:
            try:
                added = await added_all()
                self.unlisted = "" if added else "the lease is over"
                return added
            except BackplaneUnavailableError as error:
                self.unlisted = f"the namespace could not be listed: {error}"
                return False

        return read()

    async def listed(self, namespaces: Iterable[str]) -> set[str]:
        """Wait until no listing of these is under way; returns those that the registry lists.

        Claims at other shards than home need this: there no order of commands keeps them behind
        the listing.
        """
        names = {name for name in namespaces if name in self._held}
        listings = {self._held[name].listing for name in names} - {None}
        await asyncio.gather(*filter(None, listings))
        return {name for name in names if name not in self._fresh}

    async def add_before_claims(
        self, links: Links, incarnation: str, names: Iterable[str], deadline: float
    ) -> None:
        """Add some namespaces to the registry's list, if it does not have them yet.

        Raises BackplaneUnavailableError when that failed, or the incarnation has no lease.
        """
        self._under(incarnation)
        fresh = [name for name in names if name in self._fresh]
        self._fresh.difference_update(fresh)
        if not await self._add(links, incarnation, fresh, deadline)():
            raise BackplaneUnavailableError("the lease is over")

    def _under(self, incarnation: str) -> None:
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._fresh = set(self._held)

    def _add(
        self, links: Links, incarnation: str, fresh: list[str], deadline: float
    ) -> Callable[[], Coroutine[Any, Any, bool]]:
        """Queue the command; gives what waits for its reply.

        A coroutine would complain when what is to await it is cancelled before its first step.
        """
        listing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        listed = [self._held[name] for name in fresh if name in self._held]
        for held in listed:
            held.listed_under, held.listing = incarnation, listing
        reply = self._claims.add_namespaces(links, incarnation, fresh, deadline)

        async def read() -> bool:
            added = False
            try:
                added = await reply
            finally:
                if not added:
                    self._fresh.update(fresh)
                listing.set_result(None)
                for held in listed:
                    if held.listing is listing:
                        held.listing = None
            return added

        return read

    def _tidy(self) -> None:
        """Unsubscribe namespaces that have been empty for a while."""
        self._tidying = None
        loop = asyncio.get_running_loop()
        now = loop.time() + 0.01
        every = (name for name, end in self._lingering.items() if end <= now)
        due = list(islice(every, TIDIED))
        left: list[str] = []
        ended: list[Subscription] = []
        for namespace in due:
            del self._lingering[namespace]
            held = self._held.get(namespace)
            if held is not None and not held.count:
                del self._held[namespace]
                self._reserved -= is_reserved(namespace)
                if held.confirming is not None:
                    held.confirming.cancel()
                if held.subscription is not None:
                    ended.append(held.subscription)
                left.append(namespace)
        if left:
            end_all(ended)
            links = self._topology.current
            if links is not None and self._incarnation:
                self._claims.remove_namespaces(links, self._incarnation, left)
        if len(due) == TIDIED:
            self._tidying = loop.call_soon(self._tidy)
        elif self._lingering:
            self._tidying = loop.call_later(self._timing.linger, self._tidy)
