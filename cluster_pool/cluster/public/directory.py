"""The public calls by which a pool or publisher looks; :class:`ClusterDirectory` does it."""

import contextlib
from collections.abc import AsyncIterator

from cluster_pool.cluster.public.handle import Calls
from cluster_pool.core.results import Member, MemberEvent, Node


class DirectoryCalls(Calls):
    """Members, nodes and namespaces of the whole cluster."""

    async def count(self, namespace: str, *, timeout: float | None = None) -> int:
        """How many members a namespace has in the cluster, those of dead nodes left out."""
        return await self._running().directory.count(namespace, timeout)

    async def members(
        self, namespace: str, *, timeout: float | None = None
    ) -> AsyncIterator[Member]:
        """The members of a namespace, a page at a time; no reply is ever huge.

        Who joins or leaves meanwhile may or may not be seen, and an id may be given twice while
        Redis resizes its table (as HSCAN documents); everyone who stays is seen, also when its
        node rejoins meanwhile.

        Args:
            timeout: seconds for each page; default 2.
        """
        async for member in self._running().directory.members(namespace, timeout):
            yield member

    async def namespaces(self, *, timeout: float | None = None) -> list[str]:
        """The namespaces that have members, sorted.

        The counts of all that may have some are read, 500 in a round trip; ``timeout`` is for the
        whole call.
        """
        return await self._running().directory.namespaces(timeout)

    async def nodes(self, *, timeout: float | None = None) -> list[Node]:
        """The live nodes, sorted by id; each once, also while it rejoins."""
        return await self._running().directory.nodes(timeout)

    async def locate(
        self, namespace: str, id: str, *, timeout: float | None = None
    ) -> Member | None:
        """Which node owns an id, or None when no living node does."""
        return await self._running().directory.locate(namespace, id, timeout)

    @contextlib.asynccontextmanager
    async def watching(self, namespace: str) -> AsyncIterator[AsyncIterator[MemberEvent]]:
        """Joins and leaves of a namespace, from the moment this is entered.

        What comes, and what is said of what does not, is as :meth:`watch` has it. So a list of
        members stays right that is read once this is entered, and again after each ``"lost"``::

            async with pool.watching("room") as events:
                members = {member.id: member.node async for member in pool.members("room")}
                async for event in events:
                    if event.event == "join":
                        members[event.id] = event.node
                    elif event.event == "leave":
                        members.pop(event.id, None)
                    else:  # "lost"
                        members = {member.id: member.node async for member in pool.members("room")}

        A reading that fails must be tried again until it succeeds: nothing is lost twice.

        Raises:
            BackplaneUnavailableError: Redis did not confirm the subscription in time.
        """
        async with self._running().directory.watching(namespace) as events:
            yield events

    async def watch(self, namespace: str) -> AsyncIterator[MemberEvent]:
        """Joins and leaves of a namespace, as they happen.

        Events come in the order of the registry, each at most once. A takeover is a join with the
        new node, and so is a claim that a node had to register again. Where events were lost, or
        may have been (the link to Redis was interrupted, Redis lost its state, this reader is
        10,000 events behind), one event ``"lost"`` stands in their place: the members must be read
        again. It is counted (``watch_losses``). While Redis is away nothing comes, and
        ``"lost"`` is said when it is back. To be sure of everything from a known moment on, enter
        :meth:`watching` first; there is also how to keep a list of members.

        Raises:
            PoolClosedError: it was stopped.
        """
        async with self.watching(namespace) as events:
            async for event in events:
                yield event
